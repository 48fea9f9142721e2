//! The section `admin` of both programs.
//!
//! Comes in: the section. Goes out: where the port is, who may use it, and with which certificate.
//! Guarantees: a token is long enough, can travel in a header, and is there once.

use std::net::SocketAddr;

use super::access::{Access, Role, Token};
use crate::config::Section;
use crate::tls::Tls;

/// One `[[admin.token]]` with its defaults.
const TOKEN: &str = "name = ''\nrole = 'viewer'\ntoken = ''\n";
/// Bytes of the shortest token: 16 random ones as hexadecimal are 32.
const TOKEN_BYTES_MIN: usize = 16;

/// Where the admin port is, and who may use it.
#[derive(Clone, Debug, Default)]
pub struct AdminConfig {
    /// `None`: there is none.
    pub listen: Option<SocketAddr>,
    /// Who may use it.
    pub access: Access,
    /// What it shows to who connects; without, it speaks plain HTTP.
    pub tls: Option<Tls>,
}

impl AdminConfig {
    /// Reads it.
    #[must_use]
    pub fn read(root: &Section<'_>) -> Self {
        let section = root.section("admin");
        let listen = section.parsed("listen", "an address with a port, or \"off\"", |text| match text {
            "off" => Some(None),
            address => address.parse().ok().map(Some),
        });
        let mut tokens: Vec<Token> = Vec::new();
        section.each("token", TOKEN, |item| {
            let name = item.required("name", "who uses it; stands in the audit log");
            let token = item.required("token", "the secret, for example \"${file:/etc/weir/name.token}\"");
            if !token.is_empty() && token.len() < TOKEN_BYTES_MIN {
                item.problem(
                    "token",
                    &format!("has fewer than {TOKEN_BYTES_MIN} bytes; `openssl rand -hex 16` makes one"),
                );
            }
            if token.bytes().any(|b| !b.is_ascii_graphic()) {
                item.problem("token", "must be of printable ASCII without spaces: it travels in a header");
            }
            if tokens.iter().any(|t| t.name == name || t.token == token) {
                item.problem("name", "this name, or its token, is there twice");
            }
            let role = Role::ALL[item.choice("role", &Role::ALL.map(Role::name))];
            tokens.push(Token { name, role, token });
        });
        Self { listen, access: Access(tokens), tls: Tls::served(&section) }
    }
}
