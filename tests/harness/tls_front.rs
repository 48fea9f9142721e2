//! TLS before a server that has none here, as a reverse proxy gives it: Elasticsearch without its security module, and the
//! ClickHouse engine behind HTTP.
//!
//! Comes in: connections with TLS. Goes out: the same bytes without. Guarantees: a listener of loopback; it ends with the
//! process that started it. On failure: a connection that fails on one side is closed on the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use native_tls::{Identity, TlsAcceptor, TlsStream};

use crate::certificates::Certificates;

/// What is passed on at once.
const CHUNK: usize = 64 * 1024;
/// How long one direction is listened to before the other is.
const TURN: Duration = Duration::from_millis(2);

/// Listens on a loopback port of the operating system's choice, and passes on to `upstream`: the port.
///
/// # Errors
/// When it cannot listen, or the certificates are not there.
pub fn start(certificates: &Certificates, upstream: u16) -> anyhow::Result<u16> {
    let server = certificates.server();
    let identity = Identity::from_pkcs8(&std::fs::read(server.certificate)?, &std::fs::read(server.key)?)?;
    let acceptor = Arc::new(TlsAcceptor::new(identity)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the front cannot listen")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let acceptor = Arc::clone(&acceptor);
            std::thread::spawn(move || {
                let _a_lost_connection_is_no_failure = serve(&acceptor, client, upstream);
            });
        }
    });
    Ok(port)
}

fn serve(acceptor: &TlsAcceptor, client: TcpStream, upstream: u16) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let mut inside = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    let mut outside: TlsStream<TcpStream> = acceptor.accept(client)?;
    outside.get_ref().set_read_timeout(Some(TURN))?;
    inside.set_read_timeout(Some(TURN))?;
    let mut bytes = vec![0; CHUNK];
    // One thread for both directions: a TLS stream is one thing.
    loop {
        if !pass(&mut outside, &mut inside, &mut bytes)? || !pass(&mut inside, &mut outside, &mut bytes)? {
            return Ok(());
        }
    }
}

/// Passes on what is there; false at the end.
fn pass(from: &mut impl Read, to: &mut impl Write, bytes: &mut [u8]) -> std::io::Result<bool> {
    loop {
        match from.read(bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => to.write_all(&bytes[..count])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
    }
}
