//! Certificates of a stack: an authority of its own, what its servers show, and what clients do.
//!
//! In: a folder. Out: PEM files in it. Guarantees: what is there stays; a server's certificate is for `addresses::HOST` and
//! `localhost`. On failure: the error of OpenSSL or of the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};
use weir_shared::clock;

use crate::addresses::HOST;

/// How long certificates are valid from when they are made.
const DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

/// The certificates in a folder.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Those of a stack's data folder.
    pub fn of(data: &Path) -> Self {
        Self { folder: data.join("tls") }
    }

    /// Makes the authority, a server and a client called `weir`, if they are not there.
    pub fn ensure(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        if self.server_bundle().is_file() {
            return Ok(());
        }
        self.make_authority("ca")?;
        self.make_authority("other-ca")?;
        let server = self.issue("server", "localhost", (-1, DAYS))?;
        self.issue("client", "weir", (-1, DAYS))?;
        let bundle = [fs::read(server.key)?, fs::read(server.certificate)?].concat();
        Ok(fs::write(self.server_bundle(), bundle)?)
    }

    /// The authority.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// An authority that signed nothing.
    pub fn other_ca(&self) -> PathBuf {
        self.folder.join("other-ca.pem")
    }

    /// What the servers show.
    pub fn server(&self) -> Identity {
        self.identity("server")
    }

    /// The same in one file, the key first.
    pub fn server_bundle(&self) -> PathBuf {
        self.folder.join("server-bundle.pem")
    }

    /// What a client shows.
    pub fn client(&self) -> Identity {
        self.identity("client")
    }

    /// Makes a certificate for `common_name`, valid from and up to so many days from now, under a file name.
    pub fn issue(&self, name: &str, common_name: &str, days: (i64, i64)) -> Result<Identity> {
        self.issue_with(name, common_name, days, |_| Ok(()))
    }

    /// The same with one that ends so soon from now.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn issue_for(&self, name: &str, common_name: &str, valid: Duration) -> Result<Identity> {
        let end = clock::wall_ms() / 1000 + i64::try_from(valid.as_secs())?;
        self.issue_with(name, common_name, (-1, 1), |builder| {
            Ok(builder.set_not_after(Asn1Time::from_unix(end)?.as_ref())?)
        })
    }

    fn issue_with(
        &self,
        name: &str,
        common_name: &str,
        days: (i64, i64),
        change: impl FnOnce(&mut X509Builder) -> Result<()>,
    ) -> Result<Identity> {
        let (authority, authority_key) = self.authority()?;
        let key = new_key()?;
        let mut builder = begin(common_name, &key, days)?;
        change(&mut builder)?;
        builder.set_issuer_name(authority.subject_name())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().client_auth().build()?)?;
        let names = SubjectAlternativeName::new()
            .dns("localhost")
            .ip(HOST)
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(names)?;
        builder.sign(&authority_key, MessageDigest::sha256())?;
        self.write(name, &builder.build(), &key)?;
        Ok(self.identity(name))
    }

    fn identity(&self, name: &str) -> Identity {
        Identity {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        }
    }

    fn authority(&self) -> Result<(X509, PKey<Private>)> {
        let Identity { certificate, key } = self.identity("ca");
        Ok((X509::from_pem(&fs::read(certificate)?)?, PKey::private_key_from_pem(&fs::read(key)?)?))
    }

    fn make_authority(&self, name: &str) -> Result<()> {
        let key = new_key()?;
        let common_name = format!("Weir test authority ({name})");
        let mut builder = begin(&common_name, &key, (-1, DAYS))?;
        let issuer = named(&common_name)?;
        builder.set_issuer_name(&issuer)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        self.write(name, &builder.build(), &key)
    }

    fn write(&self, name: &str, certificate: &X509, key: &PKey<Private>) -> Result<()> {
        let Identity { certificate: file, key: key_file } = self.identity(name);
        fs::write(&key_file, key.private_key_to_pem_pkcs8()?)
            .with_context(|| format!("writing {}", key_file.display()))?;
        fs::write(&file, certificate.to_pem()?).with_context(|| format!("writing {}", file.display()))
    }
}

fn begin(common_name: &str, key: &PKey<Private>, (from, to): (i64, i64)) -> Result<X509Builder> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    let subject = named(common_name)?;
    builder.set_subject_name(&subject)?;
    let now = weir_shared::clock::wall_ms() / 1000;
    builder.set_not_before(&*Asn1Time::from_unix(now + from * DAY_SECONDS)?)?;
    builder.set_not_after(&*Asn1Time::from_unix(now + to * DAY_SECONDS)?)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

fn named(common_name: &str) -> Result<X509Name> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn new_key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}
