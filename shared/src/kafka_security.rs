//! Over what a client of Kafka speaks, and who it is: `[kafka.tls]` and `[kafka.sasl]`.
//!
//! Comes in: the two sections. Goes out: the settings of librdkafka. Guarantees: a password goes only where it was meant to:
//! without TLS, PLAIN is refused (it would be readable on the way), SCRAM is not.
//! On failure: a problem of the configuration, with its place.

use std::fmt;

use crate::config::{Section, is_secret};
use crate::tls::{Renewals, Tls};

/// Said when a client ends because of [`Renewals`].
pub const RENEWED: &str = "certificates were renewed";

const MECHANISMS: [&str; 4] = ["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Options that would switch checks of certificates off.
const CHECKS: [&str; 2] = ["enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"];

/// How the brokers are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// TLS, when it is on.
    pub tls: Option<Tls>,
    sasl: Option<Sasl>,
}

#[derive(Clone)]
struct Sasl {
    mechanism: &'static str,
    user: String,
    password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}, password ***", self.mechanism, self.user)
    }
}

impl Security {
    /// Reads the sections `tls` and `sasl` of `[kafka]`.
    #[must_use]
    pub fn read(kafka: &Section<'_>) -> Self {
        let tls = Tls::read(kafka);
        let section = kafka.section("sasl");
        let (user, password) = (section.string("user"), section.string("password"));
        let mechanism = MECHANISMS[section.choice("mechanism", &MECHANISMS)];
        if mechanism == "none" {
            if !user.is_empty() {
                section.problem("mechanism", "must be set with a user, for example \"SCRAM-SHA-512\"");
            }
            return Self { tls, sasl: None };
        }
        if user.is_empty() {
            section.problem("user", "must be set with a mechanism");
        }
        if mechanism == "PLAIN" && tls.is_none() {
            section.problem(
                "mechanism",
                "PLAIN sends the password as it is: set kafka.tls.enabled, or use SCRAM",
            );
        }
        Self { tls, sasl: Some(Sasl { mechanism, user, password }) }
    }

    /// Whether an option of librdkafka is set by these sections.
    #[must_use]
    pub fn sets(&self, option: &str) -> bool {
        let theirs = ["security.protocol", "ssl.", "enable.ssl.", "sasl."];
        (self.tls.is_some() || self.sasl.is_some()) && theirs.iter().any(|start| option.starts_with(start))
    }

    /// The settings of librdkafka; none where neither is on, so that `kafka.options` may still do it by hand.
    #[must_use]
    pub fn librdkafka(&self) -> Vec<(&'static str, String)> {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return Vec::new(),
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        let mut settings = vec![("security.protocol", protocol.to_owned())];
        settings.extend(self.tls.iter().flat_map(Tls::librdkafka));
        if let Some(Sasl { mechanism, user, password }) = &self.sasl {
            settings.push(("sasl.mechanism", (*mechanism).to_owned()));
            settings.push(("sasl.username", user.clone()));
            settings.push(("sasl.password", password.clone()));
        }
        settings
    }

    /// To hear when a certificate is replaced from now on: with others there must be a new client.
    #[must_use]
    pub fn renewals(&self) -> Option<Renewals> {
        self.tls.as_ref().map(Renewals::of)
    }
}

/// The options of `[kafka]` for librdkafka, but for those that the program sets itself.
pub fn options(
    kafka: &Section<'_>,
    security: &Security,
    pinned: &[&str],
    program: &str,
) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for (n, option) in (1..).zip(kafka.strings("options")) {
        match option.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            // What it is instead may be a secret.
            None => kafka.problem("options", &format!("number {n} must be \"name=value\"")),
            Some((name, _)) if CHECKS.contains(&name) => {
                kafka.problem("options", &format!("{name:?}: certificates are always checked"));
            }
            Some((name, _)) if pinned.contains(&name) || security.sets(name) => {
                kafka.problem("options", &format!("{name:?} is set by {program} itself"));
            }
            Some((name, value)) => options.push((name.to_owned(), value.to_owned())),
        }
    }
    options
}

/// What librdkafka says of an option that it refuses, without a value that may be a secret: of a name that it does not know, any
/// may be one.
#[must_use]
pub fn refused(option: &str, said: &dyn fmt::Display) -> String {
    let said = said.to_string();
    if said.contains("No such configuration property") {
        format!("{option:?} is no option of librdkafka: look for it in its CONFIGURATION.md")
    } else if is_secret(option) {
        format!("{option:?} has a value that librdkafka refuses")
    } else {
        said
    }
}

/// What librdkafka says of a connection, with what to do where that is known.
#[must_use]
pub fn explained(reason: &str) -> String {
    const ADVICE: [(&str, &str); 8] = [
        (
            "certificate verify failed",
            "kafka.tls.ca_file must hold the authority that signed the broker's certificate, which must be valid and for this host",
        ),
        ("certificate expired", "renew kafka.tls.certificate_file"),
        (
            "certificate required",
            "the broker wants a certificate: set kafka.tls.certificate_file and key_file",
        ),
        (
            "alert",
            "the broker refuses kafka.tls.certificate_file: is it signed by an authority that it trusts, and valid?",
        ),
        ("wrong version number", "this port speaks no TLS: another port, or kafka.tls.enabled = false"),
        ("uthentication fail", "check kafka.sasl.user, password and mechanism"),
        ("nsupported SASL mechanism", "set kafka.sasl.mechanism to one that the broker has"),
        (
            "isconnected while requesting ApiVersion",
            "does this port want TLS (kafka.tls) or a login (kafka.sasl)?",
        ),
    ];
    match ADVICE.iter().find(|(part, _)| reason.contains(part)) {
        Some((_, advice)) => format!("{reason}  → {advice}"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, check};

    const REFERENCE: &str = "[kafka.tls]\nenabled = false\nca_file = ''\ncertificate_file = ''\nkey_file = ''\n\
        [kafka.sasl]\nmechanism = 'none'\nuser = ''\npassword = ''\n";

    fn settings(text: &str) -> Result<Vec<(&'static str, String)>, Problems> {
        check("k.toml", text, REFERENCE, |root| Security::read(&root.section("kafka")).librdkafka())
    }

    #[test]
    fn nothing_is_said_unless_it_is_on() {
        assert_eq!(settings("").unwrap(), []);
        let tls = settings("kafka.tls.enabled = true").unwrap();
        assert_eq!(tls[0], ("security.protocol", "ssl".to_owned()));
        assert_eq!(tls[1], ("ssl.ca.location", "probe".to_owned()));
        let login = "[kafka.sasl]\nmechanism = 'SCRAM-SHA-512'\nuser = 'u'\npassword = 'secret'\n";
        let both = settings(&format!("{login}[kafka.tls]\nenabled = true")).unwrap();
        assert_eq!(both[0], ("security.protocol", "sasl_ssl".to_owned()));
        assert_eq!(settings(login).unwrap()[0], ("security.protocol", "sasl_plaintext".to_owned()));
        let shown =
            check("k", login, REFERENCE, |root| format!("{:?}", Security::read(&root.section("kafka"))));
        assert!(!shown.unwrap().contains("secret"));
    }

    #[test]
    fn what_cannot_be_meant_is_a_problem_with_its_place() {
        let problems = |text: &str| settings(text).unwrap_err().to_string();
        let plain = problems("[kafka.sasl]\nmechanism = 'PLAIN'\nuser = 'u'");
        assert!(
            plain.starts_with("k.toml:2:13: kafka.sasl.mechanism: PLAIN sends the password as it is"),
            "{plain}"
        );
        assert!(problems("kafka.sasl.user = 'u'").contains("kafka.sasl.mechanism: must be set with a user"));
        let missing = problems("[kafka.tls]\nenabled = true\nca_file = '/none.pem'");
        assert!(missing.contains("kafka.tls.ca_file: /none.pem: No such file"), "{missing}");
        assert!(
            settings("kafka.tls.ca_file = '/none.pem'").is_ok(),
            "a file that is not used is not looked at"
        );
        assert!(problems("kafka.tls.key_file = '/k'").contains("kafka.tls.certificate_file: must be set"));
        let secret = problems("kafka.sasl.password = '${file:/none}'");
        assert!(secret.contains("kafka.sasl.password: /none: No such file"), "{secret}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let told =
            explained("sasl_ssl://b:9093/1: SASL authentication error: Authentication failed during login");
        assert!(told.ends_with("→ check kafka.sasl.user, password and mechanism"), "{told}");
        assert_eq!(explained("Connect to b failed: refused"), "Connect to b failed: refused");
        assert!(!refused("ssl.key.pem", &"ssl.key.pem: invalid value \"x1\"").contains("x1"));
        assert_eq!(refused("acks", &"invalid value \"x1\""), "invalid value \"x1\"");
        let unknown =
            refused("sasl.pasword", &"No such configuration property: \"sasl.pasword\" sasl.pasword x1");
        assert_eq!(
            unknown,
            "\"sasl.pasword\" is no option of librdkafka: look for it in its CONFIGURATION.md"
        );
    }
}
