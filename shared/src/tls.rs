//! TLS towards a server: which certificates are trusted, and which one is shown.
//!
//! Comes in: a `tls` section. Goes out: what client libraries want, and how long the certificates are valid.
//! Guarantees: names and chains are always checked; a file that is missing, is no PEM, or a key of another certificate, is a
//! problem of the configuration with its place. Files are read again for each connector; [`Renewals`]
//! tells that one was replaced.
//! On failure: a certificate that expires is a metric and a warning before it is an error of the connection.

pub mod expiry;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use native_tls::{Certificate, Identity, TlsConnector, TlsConnectorBuilder};
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslContext, SslMethod};
use openssl::x509::{X509, X509VerifyResult};

use crate::clock::Deadline;
use crate::config::Section;

/// Why a connection cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("{0}: {1}")]
    File(String, String),
    /// The TLS library.
    #[error("TLS: {0}")]
    Library(#[from] native_tls::Error),
}

/// A certificate with its chain, and its key.
type Shown = (Vec<X509>, PKey<Private>);

/// What tells that a file was replaced.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Which certificates to use; the machine's own authorities are trusted too, unless `ca_file` names others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities to trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// What a server is shown that asks for a certificate: certificate (with its chain) and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// The section `tls` of this one, when it is enabled; only then are its files looked at.
    #[must_use]
    pub fn read(parent: &Section<'_>) -> Option<Self> {
        let section = parent.section("tls");
        let tls = Self::named(&section);
        if !section.boolean("enabled") {
            return None;
        }
        tls.check(&section);
        Some(tls)
    }

    /// The section `tls` of a server of ours, when it is enabled: it must have a certificate.
    #[must_use]
    pub fn served(parent: &Section<'_>) -> Option<Self> {
        let section = parent.section("tls");
        if !section.boolean("enabled") {
            return None;
        }
        let [certificate, key] = ["certificate_file", "key_file"]
            .map(|key| section.required(key, "PEM, what is shown to who connects"));
        let are_named = !certificate.is_empty() && !key.is_empty();
        let ca_file = Some(section.string("ca_file")).filter(|path| !path.is_empty()).map(PathBuf::from);
        let tls = Self { ca_file, identity: Some((certificate.into(), key.into())) };
        if are_named {
            tls.check(&section);
        }
        Some(tls)
    }

    /// The files that a section names. `certificate_file` and `key_file` may be missing from its reference, for a server
    /// that cannot be shown any.
    #[must_use]
    pub fn named(section: &Section<'_>) -> Self {
        let path = |key| Some(section.string(key)).filter(|path| !path.is_empty()).map(PathBuf::from);
        let ca_file = path("ca_file");
        if !section.has("certificate_file") {
            return Self { ca_file, identity: None };
        }
        let identity = match (path("certificate_file"), path("key_file")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                section.problem("key_file", "must be set: the key of certificate_file");
                None
            }
            (None, Some(_)) => {
                section.problem("certificate_file", "must be set: the certificate of key_file");
                None
            }
        };
        Self { ca_file, identity }
    }

    /// Whether the files can be used; problems belong to the section that names them.
    pub fn check(&self, section: &Section<'_>) {
        if let Some(Err(why)) = self.ca_file.as_deref().map(certificates) {
            section.file_problem("ca_file", &why.to_string());
        }
        if let Err(why) = self.shown() {
            section.file_problem("certificate_file", &why.to_string());
        }
    }

    /// The settings of librdkafka.
    #[must_use]
    pub fn librdkafka(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut settings =
            vec![("ssl.ca.location", self.ca_file.as_deref().map_or("probe".to_owned(), text))];
        if let Some((certificate, key)) = &self.identity {
            settings.push(("ssl.certificate.location", text(certificate)));
            settings.push(("ssl.key.location", text(key)));
        }
        settings
    }

    /// For a client that takes a connector.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn connector(&self) -> Result<TlsConnector, Error> {
        Ok(self.builder()?.build()?)
    }

    fn builder(&self) -> Result<TlsConnectorBuilder, Error> {
        let mut builder = TlsConnector::builder();
        if let Some(ca) = &self.ca_file {
            builder.disable_built_in_roots(true);
            for certificate in certificates(ca)? {
                let pem = certificate.to_pem().map_err(|e| failed(ca, &e))?;
                builder.add_root_certificate(Certificate::from_pem(&pem)?);
            }
        }
        if let Some(identity) = self.pkcs8()? {
            builder.identity(identity);
        }
        Ok(builder)
    }

    /// For a client of a server of ours that has this section: trusts its authorities, or the machine's, or the certificate
    /// itself where it is its own authority. On loopback it may have another name.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn connector_to_own(&self, is_loopback: bool) -> Result<TlsConnector, Error> {
        let certificate = self.identity.as_ref().map(|(certificate, _)| certificate.clone());
        let ca_file = self.ca_file.clone().or(certificate.filter(|path| is_own_authority(path)));
        let mut builder = Self { ca_file, identity: None }.builder()?;
        builder.danger_accept_invalid_hostnames(is_loopback);
        Ok(builder.build()?)
    }

    /// For a server of ours, which shows its identity, by TLS 1.2 and 1.3; `None` where it has none.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn acceptor(&self) -> Result<Option<SslAcceptor>, Error> {
        let (Some((chain, key)), Some((path, _))) = (self.shown()?, &self.identity) else { return Ok(None) };
        let build = || {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
            let mut chain = chain.into_iter();
            if let Some(first) = chain.next() {
                builder.set_certificate(&first)?;
            }
            builder.set_private_key(&key)?;
            chain.try_for_each(|certificate| builder.add_extra_chain_cert(certificate))?;
            Ok::<_, ErrorStack>(builder.build())
        };
        build().map(Some).map_err(|e| failed(path, &e))
    }

    /// Certificate and key as the library takes them, whatever PEM the key was.
    fn pkcs8(&self) -> Result<Option<Identity>, Error> {
        let (Some((chain, key)), Some((path, _))) = (self.shown()?, &self.identity) else { return Ok(None) };
        let key = key.private_key_to_pem_pkcs8().map_err(|e| failed(path, &e))?;
        let chain: Result<Vec<_>, _> = chain.iter().map(|certificate| certificate.to_pem()).collect();
        let chain = chain.map_err(|e| failed(path, &e))?.concat();
        Ok(Some(Identity::from_pkcs8(&chain, &key)?))
    }

    /// The identity as PKCS #12 without a password, for libraries that want that.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn pkcs12(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some((chain, key)) = self.shown()? else { return Ok(None) };
        let path = self.identity.as_ref().map_or(Path::new(""), |(certificate, _)| certificate);
        let build = || {
            let mut builder = Pkcs12::builder();
            builder.name("weir").pkey(&key);
            let mut chain = chain.into_iter();
            if let Some(first) = chain.next() {
                builder.cert(&first);
            }
            let mut rest = openssl::stack::Stack::new()?;
            for certificate in chain {
                rest.push(certificate)?;
            }
            builder.ca(rest).build2("")?.to_der()
        };
        build().map(Some).map_err(|e| failed(path, &e))
    }

    /// When the first of the certificates ends, in seconds since 1970; `None` where no file is named, or cannot be read now.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        let files = self.ca_file.iter().chain(self.identity.as_ref().map(|(certificate, _)| certificate));
        let all = files.filter_map(|path| certificates(path).ok()).flatten();
        all.filter_map(|certificate| seconds(certificate.not_after())).min()
    }

    /// Whether all files can be used now: while a certificate and its key are being replaced they do not fit.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.usable().is_ok()
    }

    fn usable(&self) -> Result<(), Error> {
        self.ca_file.as_deref().map(certificates).transpose()?;
        self.shown().map(drop)
    }

    /// Another value when a file was replaced.
    fn stamp(&self) -> Stamp {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        self.ca_file.iter().chain(identity).map(stamp).collect()
    }

    /// The identity's chain and key.
    fn shown(&self) -> Result<Option<Shown>, Error> {
        let Some((certificate, key_file)) = &self.identity else { return Ok(None) };
        let chain = certificates(certificate)?;
        let key = PKey::private_key_from_pem_callback(&bytes(key_file)?, |_| Ok(0))
            .map_err(|_| failed(key_file, &"holds no private key in PEM without a password"))?;
        let owner = chain.first().and_then(|first| first.public_key().ok());
        if !owner.is_some_and(|owner| owner.public_eq(&key)) {
            return Err(failed(key_file, &format!("is not the key of {}", certificate.display())));
        }
        for shown in &chain {
            is_taken(shown).map_err(|e| failed(certificate, &format!("cannot be shown: {}", reason(&e))))?;
        }
        Ok(Some((chain, key)))
    }
}

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);

/// Hears that certificates were replaced: most clients read them once.
#[derive(Debug)]
pub struct Renewals {
    tls: Tls,
    stamp: Stamp,
    /// Of files that cannot be used, which was said.
    unusable: Stamp,
    next: Deadline,
}

impl Renewals {
    /// From now on.
    #[must_use]
    pub fn of(tls: &Tls) -> Self {
        Self { tls: tls.clone(), stamp: tls.stamp(), unusable: Stamp::new(), next: Deadline::after(LOOK) }
    }

    /// Whether certificates were replaced since this was last said, and can be used: until then the client that stands is
    /// the better one. Cheap: the files are looked at every ten seconds.
    pub fn came(&mut self) -> bool {
        if !self.next.passed() {
            return false;
        }
        self.next = Deadline::after(LOOK);
        let stamp = self.tls.stamp();
        if stamp == self.stamp {
            return false;
        }
        match self.tls.usable() {
            Ok(()) => {
                self.stamp = stamp;
                return true;
            }
            // Once: it may be that a part of them is not there yet.
            Err(why) if stamp != self.unusable => {
                tracing::warn!(
                    "certificates were replaced and cannot be used: {why}; those before stay in use"
                );
                self.unusable = stamp;
            }
            Err(_) => {}
        }
        false
    }
}

/// Whether the first certificate of a file was signed by itself.
fn is_own_authority(path: &Path) -> bool {
    let first = certificates(path).ok().and_then(|list| list.into_iter().next());
    first.is_some_and(|first| first.issued(&first) == X509VerifyResult::OK)
}

/// Whether the TLS library will show it: not when its key is too short, say.
fn is_taken(certificate: &X509) -> Result<(), ErrorStack> {
    SslContext::builder(SslMethod::tls())?.set_certificate(certificate)
}

/// In the library's words, without its own places.
fn reason(error: &ErrorStack) -> &str {
    error.errors().first().and_then(openssl::error::Error::reason).unwrap_or("refused by the TLS library")
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<X509>, Error> {
    let list = X509::stack_from_pem(&bytes(path)?).unwrap_or_default();
    if list.is_empty() { Err(failed(path, &"holds no certificate in PEM")) } else { Ok(list) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| failed(path, &e))
}

fn failed(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::File(path.display().to_string(), why.to_string())
}

fn seconds(time: &Asn1TimeRef) -> Option<i64> {
    let since = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    Some(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;
    use openssl::ssl::{SslConnector, SslVerifyMode, SslVersion};

    use super::*;

    fn new_key() -> EcKey<Private> {
        EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap()
    }

    /// Writes a certificate of this key; where it is, and where the key belongs.
    fn certificate_of(owner: &PKey<Private>, name: &str) -> (Tls, PathBuf) {
        let folder = std::env::temp_dir().join(format!("weir-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key_file) = (folder.join("c.pem"), folder.join("c.key"));
        let mut builder = X509::builder().unwrap();
        builder.set_pubkey(owner).unwrap();
        let (from, to) = (Asn1Time::from_unix(0).unwrap(), Asn1Time::from_unix(2_000_000_000).unwrap());
        builder.set_not_before(&from).unwrap();
        builder.set_not_after(&to).unwrap();
        builder.sign(owner, MessageDigest::sha256()).unwrap();
        std::fs::write(&certificate, builder.build().to_pem().unwrap()).unwrap();
        (Tls { ca_file: None, identity: Some((certificate, key_file)) }, folder)
    }

    #[test]
    fn a_server_speaks_tls_1_2_and_1_3_and_nothing_older() {
        let owner = PKey::from_ec_key(new_key()).unwrap();
        let (tls, folder) = certificate_of(&owner, "server");
        std::fs::write(folder.join("c.key"), owner.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let acceptor = tls.acceptor().unwrap().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let versions = [SslVersion::TLS1_1, SslVersion::TLS1_2, SslVersion::TLS1_3];
        let server = std::thread::spawn(move || {
            versions.map(|_| acceptor.accept(listener.accept().unwrap().0).is_ok())
        });
        let spoken = versions.map(|newest| {
            let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_max_proto_version(Some(newest)).unwrap();
            let stream = std::net::TcpStream::connect(address).unwrap();
            let stream = builder.build().connect("weir", stream).ok()?;
            Some(stream.ssl().version_str())
        });
        assert_eq!(spoken, [None, Some("TLSv1.2"), Some("TLSv1.3")]);
        assert_eq!(server.join().unwrap(), [false, true, true]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_that_is_too_short_is_a_problem_of_the_file() {
        let owner = PKey::from_rsa(Rsa::generate(512).unwrap()).unwrap();
        let (tls, folder) = certificate_of(&owner, "short");
        std::fs::write(folder.join("c.key"), owner.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let why = tls.usable().unwrap_err().to_string();
        assert!(why.ends_with("c.pem: cannot be shown: ee key too small"), "{why}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_of_any_pem_fits_its_certificate_and_no_other() {
        let key = new_key();
        let (tls, folder) = certificate_of(&PKey::from_ec_key(key.clone()).unwrap(), "fits");
        let key_file = folder.join("c.key");
        assert!(!tls.is_usable(), "the key is not there yet");
        // "EC PRIVATE KEY", as step-ca writes it.
        std::fs::write(&key_file, key.private_key_to_pem().unwrap()).unwrap();
        assert!(tls.is_usable() && tls.connector().is_ok() && tls.pkcs12().unwrap().is_some());
        assert_eq!(tls.not_after(), Some(2_000_000_000));
        let before = tls.stamp();
        std::fs::write(&key_file, [new_key().private_key_to_pem().unwrap(), b"\n".to_vec()].concat())
            .unwrap();
        assert!(!tls.is_usable() && tls.stamp() != before);
        let why = tls.connector().unwrap_err().to_string();
        assert!(why.contains("c.key: is not the key of") && why.contains("c.pem"), "{why}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
