//! Asking a running process through its admin port.
//!
//! Comes in: its settings, or an address. Goes out: the text of an answer, or a sentence. Guarantees: with TLS the certificate
//! must come from `admin.tls.ca_file`, else from an authority of the machine, unless it is one itself; its name is not looked at
//! on loopback alone.
//! On failure: what is in the way and what to do about it; nobody is waited for longer than [`WAIT_MAX`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, Uri, header};
use hyper_tls::HttpsConnector;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use native_tls::TlsConnector;

use crate::admin::AdminConfig;
use crate::supervise::Error;
use crate::tls::Tls;

/// An answer comes within this time.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Where a process is, and how it is spoken to.
#[derive(Clone)]
pub struct Settings {
    base: String,
    token: Option<String>,
    /// What is shown there.
    tls: Option<Tls>,
}

impl Settings {
    /// From the settings of the process, with the first token that they have; `address` is an url that goes before theirs.
    ///
    /// # Errors
    /// When there is no port.
    pub fn of(config: &AdminConfig, address: Option<&str>) -> Result<Self, Error> {
        // It only looks.
        let token = config.access.0.iter().min_by_key(|token| token.role).map(|token| token.token.clone());
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let base = match (address, config.listen) {
            (Some(address), _) if address.contains("://") => address.trim_end_matches('/').to_owned(),
            (Some(address), _) => format!("{scheme}://{}", address.trim_end_matches('/')),
            (None, Some(listen)) => format!("{scheme}://{}", reachable(listen)),
            (None, None) => return Err("admin.listen is \"off\": there is no port to ask".into()),
        };
        Ok(Self { base, token, tls: config.tls.clone() })
    }

    fn connector(&self) -> Result<TlsConnector, Error> {
        Ok(self.tls.clone().unwrap_or_default().connector_to_own(self.is_loopback()?)?)
    }

    fn is_loopback(&self) -> Result<bool, Error> {
        let url: Uri = self.base.parse().map_err(|e| format!("{}: {e}", self.base))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        Ok(host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
    }
}

/// Who listens everywhere is asked on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Asks one process.
pub struct Client {
    settings: Settings,
    http: Http<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Client {
    /// Connects with the first question.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnector::from((tcp, settings.connector()?.into()));
        let http = Http::builder(TokioExecutor::new()).build(connector);
        Ok(Self { settings: settings.clone(), http })
    }

    /// Where it asks.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.settings.base
    }

    /// The text at a path.
    ///
    /// # Errors
    /// Nobody answers, or the answer is not 200; then its text.
    pub async fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("{}{path}", self.settings.base);
        let mut request = Request::get(&url);
        // In plain text it stays on this machine.
        let is_private = url.starts_with("https://") || self.settings.is_loopback().unwrap_or(false);
        let kept_back = match &self.settings.token {
            Some(_) if !is_private => {
                "; the token of the settings was not sent, as everybody on the way could read it: use TLS \
                                       ([admin.tls]), or --address http://127.0.0.1:… where it listens there"
            }
            _ => "",
        };
        if let Some(token) = self.settings.token.as_ref().filter(|_| is_private) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|e| format!("{url}: {e}"))?;
        let answer = async {
            let answer = self.http.request(request).await.map_err(|error| root_cause(&error))?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok::<_, String>((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        match tokio::time::timeout(WAIT_MAX, answer).await {
            Err(_) => Err(format!("{url}: no answer within {} s", WAIT_MAX.as_secs())),
            Ok(Err(why)) if why.contains("certificate") => Err(format!(
                "{url}: {why}: has the certificate of the process ended, and is its authority in admin.tls.ca_file?"
            )),
            Ok(Err(why)) => Err(format!("{url}: {why}; is the process running?")),
            Ok(Ok((StatusCode::OK, text))) => Ok(text),
            Ok(Ok((StatusCode::UNAUTHORIZED, text))) => Err(format!("{}{kept_back}", text.trim_end())),
            Ok(Ok((_, text))) => Err(text.trim_end().to_owned()),
        }
    }
}

/// What lies at the bottom of an error of an HTTP client; its own text only repeats the address.
#[must_use]
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_listens_everywhere_is_asked_here() {
        let config = |listen: &str| AdminConfig { listen: listen.parse().ok(), ..AdminConfig::default() };
        let base =
            |listen: &str, address: Option<&str>| Settings::of(&config(listen), address).map(|s| s.base);
        assert_eq!(base("0.0.0.0:9188", None).unwrap(), "http://127.0.0.1:9188");
        assert_eq!(base("[::]:9188", None).unwrap(), "http://[::1]:9188");
        assert_eq!(base("10.0.0.7:1", Some("gw7:9187/")).unwrap(), "http://gw7:9187");
        assert_eq!(base("10.0.0.7:1", Some("https://gw7")).unwrap(), "https://gw7");
        assert!(base("off", None).unwrap_err().to_string().contains("\"off\""));
    }
}
