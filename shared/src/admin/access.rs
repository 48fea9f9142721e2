//! Who may do what on the admin port: tokens with roles.
//!
//! Comes in: the `Authorization` header of a request. Goes out: who asks, or why it is refused, in a line that says what to do.
//! Guarantees: without any token in the settings everybody who reaches the port may look and nobody may change; tokens are
//! compared in constant time, and every one of them is; a refusal does not tell whether a token is nearly right.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};

/// What somebody may do; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Also changes how the process runs: what it logs, which sinks rest.
    Operator,
    /// Also changes what the process computes: rules.
    Admin,
}

impl Role {
    /// From the least to the most.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As in the settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A secret that stands for somebody.
#[derive(Clone)]
pub struct Token {
    /// Who; stands in the audit log.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.role.name())
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token; empty: nobody in particular.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no token in the request.
    NoToken,
    /// The token is none of ours.
    WrongToken,
    /// The role is too low.
    Role {
        /// Who.
        name: String,
        /// What they are.
        is: Role,
        /// What it takes.
        needs: Role,
    },
    /// There are no tokens at all, so that nobody may change anything.
    NoTokens,
    /// It was asked under a name that may be anybody's.
    Host,
}

impl Refusal {
    /// For metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::Role { .. } => "role",
            Self::NoTokens => "no_tokens",
            Self::Host => "host",
        }
    }

    /// For HTTP.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Role { .. } | Self::NoTokens => StatusCode::FORBIDDEN,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoToken => {
                f.write_str("a token is needed: send the header \"Authorization: Bearer <token of [[admin.token]]>\"")
            }
            Self::WrongToken => f.write_str(
                "this token is not known: compare it with [[admin.token]] in the settings (it is read at the start only)",
            ),
            Self::Role { name, is, needs } => write!(
                f,
                "{name} is {}, and this needs {}: use another token, or change its role in [[admin.token]] and restart",
                is.name(),
                needs.name()
            ),
            Self::Host => f.write_str(
                "ask by the address (127.0.0.1) or as localhost, or add an [[admin.token]]: without tokens other names are not answered",
            ),
            Self::NoTokens => f.write_str(
                "changes need a token, and there is none: add an [[admin.token]] to the settings and restart",
            ),
        }
    }
}

/// All tokens.
#[derive(Clone, Debug, Default)]
pub struct Access(pub Vec<Token>);

impl Access {
    /// Who asks, if they may do what `needs` this role.
    ///
    /// # Errors
    /// Why they may not.
    pub fn caller(&self, headers: &HeaderMap, needs: Role) -> Result<Caller, Refusal> {
        if self.0.is_empty() {
            return match needs {
                Role::Viewer => Ok(Caller { name: String::new(), role: Role::Viewer }),
                Role::Operator | Role::Admin => Err(Refusal::NoTokens),
            };
        }
        let header = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?;
        let Token { name, role, .. } =
            bearer(header.as_bytes()).and_then(|given| self.of(given)).ok_or(Refusal::WrongToken)?;
        if *role < needs {
            return Err(Refusal::Role { name: name.clone(), is: *role, needs });
        }
        Ok(Caller { name: name.clone(), role: *role })
    }

    /// Looks at all of them, so that the time tells nothing.
    fn of(&self, given: &[u8]) -> Option<&Token> {
        let is = |t: &&Token| t.token.len() == given.len() && openssl::memcmp::eq(t.token.as_bytes(), given);
        self.0.iter().filter(is).fold(None, |found, token| found.or(Some(token)))
    }
}

/// Whether the request was sent to an address, or to this machine's own name for itself; who says no name has none that misleads.
pub(super) fn names_an_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return host.is_empty() };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The scheme in any case, then spaces, then the token.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    fn access() -> Access {
        let token =
            |name: &str, role| Token { name: name.into(), role, token: format!("{name}-0123456789abcdef") };
        Access(vec![token("look", Role::Viewer), token("run", Role::Operator), token("rule", Role::Admin)])
    }

    #[test]
    fn each_role_may_what_those_below_it_may() {
        let access = access();
        for (at, name) in ["look", "run", "rule"].into_iter().enumerate() {
            for (needs_at, needs) in Role::ALL.into_iter().enumerate() {
                let answer = access.caller(&with(&format!("bearer  {name}-0123456789abcdef")), needs);
                assert_eq!(answer.is_ok(), at >= needs_at, "{name} {needs:?} {answer:?}");
            }
        }
    }

    #[test]
    fn what_is_no_token_of_ours_is_refused() {
        let access = access();
        let asked = |headers: &HeaderMap| access.caller(headers, Role::Viewer).unwrap_err();
        assert_eq!(asked(&HeaderMap::new()), Refusal::NoToken);
        for wrong in ["Bearer", "Bearer ", "Bearer look-0123456789abcde", "Basic look-0123456789abcdef", "x"]
        {
            assert_eq!(asked(&with(wrong)), Refusal::WrongToken, "{wrong}");
        }
        let role = access.caller(&with("Bearer look-0123456789abcdef"), Role::Admin).unwrap_err();
        assert_eq!(role.status(), StatusCode::FORBIDDEN);
        assert!(role.to_string().starts_with("look is viewer, and this needs admin"), "{role}");
    }

    #[test]
    fn a_name_that_may_be_anybodys_is_told_from_an_address() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            names_an_address(&headers)
        };
        for right in ["127.0.0.1", "127.0.0.1:9187", "[::1]", "[::1]:9187", "localhost", "LocalHost:1", ""] {
            assert!(named(right), "{right}");
        }
        for wrong in
            ["evil.example", "evil.example:9187", "localhost.evil.example", "127.0.0.1.evil.example", "a b"]
        {
            assert!(!named(wrong), "{wrong}");
        }
        assert!(names_an_address(&HeaderMap::new()));
    }

    #[test]
    fn without_tokens_everybody_looks_and_nobody_changes() {
        let open = Access::default();
        assert!(open.caller(&with("Bearer x"), Role::Viewer).is_ok());
        assert_eq!(open.caller(&HeaderMap::new(), Role::Operator), Err(Refusal::NoTokens));
    }
}
