//! A relay before a server: the way to it can be cut, slowed down, led elsewhere, or lose a reply, while the server
//! itself goes on.
//!
//! Comes in: connections. Goes out: the same bytes, both ways. Guarantees: while it is cut nothing passes and nobody
//! gets in; a reply that is to be lost is that to the first request with certain bytes in it, and the server has done
//! what was asked. On failure: a connection that fails on one side is closed on the other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

/// What is passed on at once.
const CHUNK: usize = 64 * 1024;

/// A running relay; it ends with the process that started it.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: AtomicU16,
    is_cut: AtomicBool,
    /// 0: as fast as it goes.
    bytes_per_second: AtomicU64,
    /// What a request contains whose reply is lost.
    lose: Mutex<Option<Vec<u8>>>,
    lost: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Listens on a loopback port of the operating system's choice.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(upstream: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the relay cannot listen")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream: AtomicU16::new(upstream),
            is_cut: AtomicBool::new(false),
            bytes_per_second: AtomicU64::new(0),
            lose: Mutex::default(),
            lost: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !theirs.is_cut.load(Ordering::SeqCst) {
                    let _a_lost_connection_is_no_failure = serve(&theirs, client);
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections and takes no new ones.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        self.end_all();
    }

    /// Lets them through again.
    pub fn heal(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// Leads to another server from now on; all connections end.
    pub fn lead_to(&self, upstream: u16) {
        self.shared.upstream.store(upstream, Ordering::SeqCst);
        self.end_all();
    }

    /// Each way of each connection passes so many bytes a second; 0: all.
    pub fn slow(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// The reply to the next request that contains this is lost, and its connection with it.
    pub fn lose_reply(&self, to: &[u8]) {
        *lock(&self.shared.lose) = Some(to.to_vec());
    }

    /// Replies that were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    fn end_all(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(shared: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream.load(Ordering::SeqCst)))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    lock(&shared.open).extend([client.try_clone()?, server.try_clone()?]);
    let loses = Arc::new(AtomicBool::new(false));
    let (theirs, told) = (Arc::clone(shared), Arc::clone(&loses));
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        pass(&theirs, from, to, |request| {
            let mut lose = lock(&theirs.lose);
            if lose.as_ref().is_some_and(|wanted| request.windows(wanted.len()).any(|part| part == wanted)) {
                *lose = None;
                told.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        pass(&shared, server, client, |_reply| {
            let is_lost = loses.load(Ordering::SeqCst);
            shared.lost.fetch_add(u64::from(is_lost), Ordering::SeqCst);
            !is_lost
        });
    });
    Ok(())
}

/// Passes bytes on as long as `keep` says so. Ends when a side ends, and ends both.
fn pass(shared: &Shared, mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8]) -> bool) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !keep(&bytes[..count]) || to.write_all(&bytes[..count]).is_err() {
            break;
        }
        let rate = shared.bytes_per_second.load(Ordering::SeqCst);
        if rate > 0 {
            std::thread::park_timeout(Duration::from_secs_f64(count as f64 / rate as f64));
        }
    }
    let _gone_already = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each line with its length.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut bytes = [0; 100];
                    while let Ok(count @ 1..) = client.read(&mut bytes) {
                        client.write_all(count.to_string().as_bytes()).unwrap();
                    }
                });
            }
        });
        port
    }

    fn ask(relay: &Relay, question: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        let mut answer = [0; 100];
        let sent = stream.write_all(question.as_bytes());
        let count = sent.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
        String::from_utf8_lossy(&answer[..count]).into_owned()
    }

    #[test]
    fn only_the_reply_to_the_named_request_is_lost_and_only_once() {
        let relay = Relay::start(echo()).unwrap();
        relay.lose_reply(b"COMMIT");
        assert_eq!(ask(&relay, "START"), "5");
        assert_eq!((ask(&relay, "a COMMIT b").as_str(), relay.lost()), ("", 1));
        assert_eq!((ask(&relay, "COMMIT").as_str(), relay.lost()), ("6", 1));
    }

    #[test]
    fn a_way_is_cut_healed_and_led_elsewhere() {
        let relay = Relay::start(echo()).unwrap();
        relay.cut();
        assert_eq!(ask(&relay, "x"), "");
        relay.heal();
        assert_eq!(ask(&relay, "x"), "1");
        relay.lead_to(1);
        assert_eq!(ask(&relay, "x"), "");
    }
}
