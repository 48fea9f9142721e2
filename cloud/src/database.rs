//! Where a MySQL or MariaDB is, and how it is spoken to: `url` and `tls` of a section.
//!
//! Comes in: a section. Goes out: what a connection is made of. Guarantees: with TLS on, a server without it is not spoken to.
//! On failure: a problem of the configuration, with its place.

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};
use weir_shared::config::Section;
use weir_shared::tls::Tls;

/// What is wanted of `url`.
pub(crate) const FORM: &str = "mysql://user:password@host:3306/database";

/// Reads `url` and `tls`; `None` after a problem.
pub(crate) fn read(section: &Section<'_>, url: &str) -> Option<Opts> {
    let tls = Tls::read(section).map(|tls| encrypted(section, &tls));
    match Opts::from_url(url) {
        Ok(options) => {
            let builder = OptsBuilder::from_opts(options.clone());
            Some(tls.map_or(options, |tls| builder.ssl_opts(tls).into()))
        }
        Err(error) => {
            section.problem("url", &format!("must be {FORM}: {error}"));
            None
        }
    }
}

fn encrypted(section: &Section<'_>, tls: &Tls) -> SslOpts {
    let mut options = SslOpts::default();
    if let Some(ca) = &tls.ca_file {
        options = options.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(true);
    }
    match tls.pkcs12() {
        Ok(identity) => {
            options.with_client_identity(identity.map(|archive| ClientIdentity::new(archive.into())))
        }
        Err(why) => {
            section.problem("tls", &why.to_string());
            options
        }
    }
}
