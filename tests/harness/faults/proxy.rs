//! A proxy between edges and their broker, which sees every acknowledgement.
//!
//! Comes in: connections of edges. Goes out: the same bytes, both ways; a book of which reading was acknowledged when,
//! and of every attempt to connect.
//! Guarantees: an acknowledgement stands in the book before the broker can have it, and a message before the edge can.
//! On failure: a connection that fails on one side is closed on the other.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use weir_shared::clock;

use crate::judge::run::number_in;

/// Of each packet so much is kept: what the book needs stands at its beginning.
const KEPT_BYTES_MAX: usize = 4096;
/// How long an edge may take to say who it is.
const HELLO: Duration = Duration::from_secs(2);

/// A running proxy; it ends with the process that started it, its connections with [`Proxy::cut`].
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: (String, u16),
    refusing: AtomicBool,
    ended: AtomicBool,
    book: Mutex<Book>,
    open: Mutex<Vec<TcpStream>>,
}

/// What the proxy saw.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Numbers of the readings that were acknowledged, in that order; a redelivered one may stand twice.
    pub acknowledged: Vec<u64>,
    /// All acknowledgements, of other messages too.
    pub acknowledgements: u64,
    /// When the first one after [`Proxy::mark`] came, and the last one of all.
    pub first: Option<Instant>,
    /// See `first`.
    pub last: Option<Instant>,
    /// Acknowledgements of messages that the broker had not sent, or not in the order it sent them.
    pub strange: u64,
    /// Subscriptions that the broker confirmed.
    pub subscribed: u64,
    /// Who tried to connect, and when.
    pub attempts: Vec<(String, Instant)>,
}

impl Proxy {
    /// Listens on a loopback port of the operating system's choice.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(upstream: &(String, u16)) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the proxy cannot listen")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream: upstream.clone(),
            refusing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            book: Mutex::default(),
            open: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if theirs.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || {
                    let _a_lost_connection_is_no_failure = serve(&shared, client);
                });
            }
        });
        Ok(Self { port, shared })
    }

    /// Where edges connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Refuses connections from now on, or takes them again. Those that stand go on.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::Relaxed);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.shared.open().drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }

    /// Forgets the first acknowledgement, so that the next one is the first.
    pub fn mark(&self) {
        self.shared.book().first = None;
    }

    /// A look at the book.
    pub fn look<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.shared.book())
    }

    /// Acknowledgements so far.
    #[must_use]
    pub fn acknowledgements(&self) -> u64 {
        self.look(|book| book.acknowledgements)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        self.cut();
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages on their way to the edge of one connection: packet identifier and number.
type Sent = Mutex<VecDeque<(u16, Option<u64>)>>;

fn serve(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(HELLO))?;
    let mut hello = [0; 1024];
    let count = client.read(&mut hello)?;
    let who = client_id(&hello[..count]).unwrap_or_default();
    shared.book().attempts.push((who, clock::instant()));
    if shared.refusing.load(Ordering::Relaxed) {
        return Ok(()); // closed
    }
    client.set_read_timeout(None)?;
    let mut broker = TcpStream::connect((shared.upstream.0.as_str(), shared.upstream.1))?;
    broker.set_nodelay(true)?;
    broker.write_all(&hello[..count])?;
    shared.open().extend([client.try_clone()?, broker.try_clone()?]);
    let sent = Sent::default();
    let (to_edge, from_broker) = (client.try_clone()?, broker.try_clone()?);
    std::thread::scope(|scope| {
        scope.spawn(|| pass(from_broker, to_edge, |first, body| note_message(shared, &sent, first, body)));
        pass(client, broker, |first, body| note_acknowledgement(shared, &sent, first, body));
    });
    Ok(())
}

/// Passes bytes on, after the packets in them were noted. Ends when a side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(u8, &[u8])) {
    let mut framer = Framer::default();
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        framer.feed(&bytes[..count], &mut note);
        if to.write_all(&bytes[..count]).is_err() {
            let _gone_already = from.shutdown(Shutdown::Read);
            break;
        }
    }
    let _gone_already = to.shutdown(Shutdown::Write);
}

fn note_message(shared: &Shared, sent: &Sent, first: u8, body: &[u8]) {
    shared.book().subscribed += u64::from(first >> 4 == 9);
    let is_qos_1 = first >> 4 == 3 && (first >> 1) & 3 == 1;
    if let Some((packet, payload)) = publish(body).filter(|_| is_qos_1) {
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push_back((packet, number_in(payload)));
    }
}

fn note_acknowledgement(shared: &Shared, sent: &Sent, first: u8, body: &[u8]) {
    if first >> 4 != 4 {
        return;
    }
    let packet = body.first_chunk().map(|two| u16::from_be_bytes(*two));
    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
    let at = sent.iter().position(|(p, _)| Some(*p) == packet);
    let number = at.and_then(|at| sent.remove(at));
    let mut book = shared.book();
    book.strange += u64::from(at != Some(0));
    book.acknowledgements += 1;
    let now = clock::instant();
    book.first.get_or_insert(now);
    book.last = Some(now);
    book.acknowledged.extend(number.and_then(|(_, number)| number));
}

/// Packet identifier and payload of a PUBLISH with QoS 1.
fn publish(body: &[u8]) -> Option<(u16, &[u8])> {
    let (topic_len, rest) = body.split_first_chunk()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*topic_len))..)?;
    let (packet, payload) = rest.split_first_chunk()?;
    Some((u16::from_be_bytes(*packet), payload))
}

/// The client id in a CONNECT of MQTT 3.1.1.
fn client_id(packet: &[u8]) -> Option<String> {
    let mut found = None;
    Framer::default().feed(packet, &mut |first, body| {
        if first == 0x10 && body.len() > 12 {
            let len = usize::from(u16::from_be_bytes([body[10], body[11]]));
            found = body.get(12..12 + len).map(|id| String::from_utf8_lossy(id).into_owned());
        }
    });
    found
}

/// Cuts a stream of bytes into MQTT packets; of each only the first [`KEPT_BYTES_MAX`] are kept.
#[derive(Debug, Default)]
struct Framer {
    /// The packet's first byte and its length so far, while the header is not complete.
    header: Vec<u8>,
    /// Bytes of the body still to come, once it is.
    left: Option<usize>,
    body: Vec<u8>,
}

impl Framer {
    fn feed(&mut self, mut bytes: &[u8], packet: &mut impl FnMut(u8, &[u8])) {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.left {
                None => {
                    self.header.push(first);
                    bytes = rest;
                    if self.header.len() > 1 && first & 0x80 == 0 {
                        let digits = self.header[1..].iter().rev();
                        self.left = Some(digits.fold(0, |len, b| len << 7 | usize::from(b & 0x7f)));
                    }
                }
                Some(left) => {
                    let taken = left.min(bytes.len());
                    let kept = taken.min(KEPT_BYTES_MAX - self.body.len());
                    self.body.extend_from_slice(&bytes[..kept]);
                    self.left = Some(left - taken);
                    bytes = &bytes[taken..];
                }
            }
            if self.left == Some(0) {
                packet(self.header[0], &self.body);
                (self.left, self.header, self.body) = (None, Vec::new(), Vec::new());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_however_the_bytes_are_cut() {
        let mut stream = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04edge".to_vec();
        let payload = br#"{"tags":{"run":"r","id":"77"}}"#;
        let body: Vec<u8> = [b"\x00\x03a/b\x00\x09", payload.as_slice()].concat();
        stream.extend([0x32, u8::try_from(body.len()).unwrap()]);
        stream.extend(&body);
        stream.extend(b"\xc0\x00\x40\x02\x00\x09");
        let large = 100_000;
        stream.extend([0x30, 0xa0, 0x8d, 0x06]);
        stream.extend(vec![b'x'; large]);
        stream.extend(b"\xe0\x00");
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut framer, mut packets) = (Framer::default(), Vec::new());
            for part in stream.chunks(step) {
                framer.feed(part, &mut |first, body| packets.push((first, body.to_vec())));
            }
            let kinds: Vec<u8> = packets.iter().map(|(first, _)| *first).collect();
            assert_eq!(kinds, [0x10, 0x32, 0xc0, 0x40, 0x30, 0xe0], "{step}");
            let (packet, found) = publish(&packets[1].1).unwrap();
            assert_eq!((packet, number_in(found)), (9, Some(77)));
            assert_eq!(packets[4].1.len(), KEPT_BYTES_MAX);
        }
        assert_eq!(client_id(&stream[..18]).as_deref(), Some("edge"));
    }
}
