//! Where a MySQL or MariaDB is, and how it is spoken to: `url` and `tls` of a section.
//!
//! Comes in: a section. Goes out: a [`Server`], and from it what a connection is made of. Guarantees: with TLS on, a server
//! without it is not spoken to; each connection uses the certificates as they are when it is made.
//! On failure: a problem of the configuration, with its place; later, an error of the connection.

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};
use weir_shared::config::Section;
use weir_shared::tls::{self, Tls};

/// What is wanted of `url`.
pub(crate) const FORM: &str = "mysql://user:password@host:3306/database";

/// A server, and who speaks to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    url: Opts,
    tls: Option<Tls>,
}

impl Server {
    /// Reads `tls`, with this `url`; `None` after a problem.
    pub(crate) fn read(section: &Section<'_>, url: &str) -> Option<Self> {
        let tls = Tls::read(section);
        match Opts::from_url(url) {
            Ok(url) if url.ssl_opts().is_some() => {
                section.problem("url", "must be without options of TLS: they stand in the section tls");
                None
            }
            Ok(url) => Some(Self { url, tls }),
            // What it says may have a part of the password in it.
            Err(_) => {
                let hint = "a password with other signs than letters and digits must be percent-encoded";
                section.problem("url", &format!("must be {FORM}, without unknown options; {hint}"));
                None
            }
        }
    }

    /// None: but what is wrong in `tls` is told all the same.
    pub(crate) fn unused(section: &Section<'_>) -> Option<Self> {
        let _files_are_not_looked_at = Tls::named(&section.section("tls"));
        None
    }

    /// The same, where the url must name a database.
    pub(crate) fn read_with_database(section: &Section<'_>, url: &str) -> Option<Self> {
        let server = Self::read(section, url)?;
        if server.url.db_name().is_none() {
            section.problem("url", &format!("must name a database: {FORM}"));
        }
        Some(server)
    }

    /// Without TLS.
    #[cfg(test)]
    pub(crate) fn plain(url: &str) -> Self {
        Self { url: Opts::from_url(url).expect("the url of a test"), tls: None }
    }

    /// The database that the url names.
    pub(crate) fn database(&self) -> Option<&str> {
        self.url.db_name()
    }

    /// `host:port`.
    pub(crate) fn target(&self) -> String {
        format!("{}:{}", self.url.ip_or_hostname(), self.url.tcp_port())
    }

    /// Which files it is spoken to with.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether one connection does for both, whatever their databases.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let who = |server: &Self| (server.target(), server.url.user().map(str::to_owned));
        self.tls == other.tls && who(self) == who(other) && self.url.pass() == other.url.pass()
    }

    /// What a new connection is made of.
    ///
    /// # Errors
    /// When a certificate cannot be used.
    pub(crate) fn connection(&self) -> Result<OptsBuilder, tls::Error> {
        let builder = OptsBuilder::from_opts(self.url.clone()).prefer_socket(false);
        Ok(match &self.tls {
            None => builder,
            Some(tls) => builder.ssl_opts(encrypted(tls)?),
        })
    }
}

fn encrypted(tls: &Tls) -> Result<SslOpts, tls::Error> {
    let mut options = SslOpts::default();
    if let Some(ca) = &tls.ca_file {
        options = options.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(true);
    }
    let identity = tls.pkcs12()?.map(|archive| ClientIdentity::new(archive.into()));
    Ok(options.with_client_identity(identity))
}

#[cfg(test)]
mod tests {
    use weir_harness::certificates::Certificates;
    use weir_shared::config::check;

    use super::*;

    const REFERENCE: &str = "[db]\nurl = ''\n\
        [db.tls]\nenabled = false\nca_file = ''\ncertificate_file = ''\nkey_file = ''\n";

    #[test]
    fn options_of_tls_stand_in_their_section_only() {
        let read = |url: &str| {
            let text = format!("[db]\nurl = '{url}'\n");
            let read = |root: &Section<'_>| {
                let section = root.section("db");
                Server::read_with_database(&section, &section.string("url"))
            };
            check("c.toml", &text, REFERENCE, read).map_err(|problems| problems.to_string())
        };
        assert_eq!(read("mysql://u:p@h:1/d").unwrap().unwrap().target(), "h:1");
        let why = read("mysql://u:p@h:1/d?require_ssl=true&verify_ca=false").unwrap_err();
        assert!(why.contains("c.toml:2:7: db.url: must be without options of TLS"), "{why}");
        assert!(read("mysql://u:p@h:1").unwrap_err().contains("must name a database"));
        let missing = read("mysql://u:${file:/none}@h:1/d").unwrap_err();
        assert!(
            missing.contains("/none: No such file") && missing.ends_with("1 problem in c.toml"),
            "{missing}"
        );
    }

    #[test]
    fn a_connection_shows_the_certificate_that_there_is_now() {
        let folder = std::env::temp_dir().join(format!("weir-database-{}", std::process::id()));
        let certificates = Certificates::of(&folder);
        certificates.ensure().unwrap();
        let issue = || certificates.issue("cloud", "weir", (-1, 1)).unwrap();
        let files = issue();
        let tls = Tls { ca_file: Some(certificates.ca()), identity: Some((files.certificate, files.key)) };
        let server = Server { tls: Some(tls), ..Server::plain("mysql://u@h/d") };
        let shown =
            || Opts::from(server.connection().unwrap()).ssl_opts().unwrap().client_identity().cloned();
        let before = shown();
        issue();
        assert!(before.is_some() && shown() != before);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
