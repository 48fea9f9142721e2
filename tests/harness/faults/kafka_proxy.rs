//! A proxy before the brokers that loses replies: the broker has done it, the client never hears of it.
//!
//! Comes in: connections of Kafka's clients. Goes out: the same bytes, both ways; a reply that is to be lost is dropped
//! and its connection cut.
//! Guarantees: a reply is known by its request: Kafka answers the requests of a connection in their order.
//! On failure: a connection that fails on one side is closed on the other.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use crate::addresses::{BROKERS, HOST, Ports};

/// No request has this key.
const NONE: i32 = -1;
/// A frame beyond this is none of Kafka's.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// A request of Kafka's protocol, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Records.
    Produce = 0,
    /// The end of a transaction.
    EndTxn = 26,
    /// Offsets within a transaction.
    TxnOffsetCommit = 28,
}

/// Proxies of all brokers; they end with the process that started them.
#[derive(Debug)]
pub struct KafkaProxy {
    shared: Arc<Shared>,
    brokers: String,
}

#[derive(Debug)]
struct Shared {
    /// Key of the request whose next reply is lost.
    lose: AtomicI32,
    lost: AtomicU64,
}

impl KafkaProxy {
    /// Listens where the brokers say that they do.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(ports: Ports) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { lose: AtomicI32::new(NONE), lost: AtomicU64::new(0) });
        for number in 0..BROKERS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.broker_proxy(number)))
                .context("the proxy of Kafka cannot listen")?;
            let (shared, upstream) = (Arc::clone(&shared), ports.broker_behind_proxy(number));
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || {
                        let _a_lost_connection_is_no_failure = serve(&shared, client, upstream);
                    });
                }
            });
        }
        let brokers = (0..BROKERS).map(|n| format!("{HOST}:{}", ports.broker_proxy(n)));
        Ok(Self { shared, brokers: brokers.collect::<Vec<_>>().join(",") })
    }

    /// Bootstrap servers.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The next reply to such a request is lost, and its connection with it.
    pub fn lose(&self, api: Api) {
        self.shared.lose.store(api as i32, Ordering::Relaxed);
    }

    /// Replies that were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

/// Keys of the requests that wait for their reply.
type Waiting = Mutex<VecDeque<i32>>;

fn serve(shared: &Shared, client: TcpStream, upstream: u16) -> io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let waiting = Waiting::default();
    let (to_client, from_broker) = (client.try_clone()?, broker.try_clone()?);
    std::thread::scope(|scope| {
        scope.spawn(|| pass(from_broker, to_client, |_| keeps(shared, &waiting)));
        pass(client, broker, |frame| {
            if expects_reply(frame) {
                waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(key(frame));
            }
            true
        });
    });
    Ok(())
}

/// Whether the reply to the oldest request that waits is passed on.
fn keeps(shared: &Shared, waiting: &Waiting) -> bool {
    let Some(key) = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return true };
    let lost = shared.lose.compare_exchange(key, NONE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    shared.lost.fetch_add(u64::from(lost), Ordering::Relaxed);
    !lost
}

fn key(frame: &[u8]) -> i32 {
    frame.first_chunk().map_or(NONE, |two| i32::from(i16::from_be_bytes(*two)))
}

/// All are answered but a Produce without acknowledgement, which nobody here sends.
fn expects_reply(frame: &[u8]) -> bool {
    key(frame) != NONE
}

/// Passes frames on as long as `keep` says so. Ends when a side ends, and ends both.
fn pass(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8]) -> bool) {
    let mut frame = Vec::new();
    while let Ok(()) = read_frame(&mut from, &mut frame) {
        let size = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
        if !keep(&frame) || to.write_all(&size).and_then(|()| to.write_all(&frame)).is_err() {
            break;
        }
    }
    let _gone_already = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn read_frame(from: &mut impl Read, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut size = [0; 4];
    from.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size) as usize;
    if size > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    frame.resize(size, 0);
    from.read_exact(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_known_by_its_request_and_lost_once() {
        let shared = Shared { lose: AtomicI32::new(Api::EndTxn as i32), lost: AtomicU64::new(0) };
        let waiting: Waiting = Mutex::new(VecDeque::from([0, 26, 26]));
        let passed: Vec<bool> = (0..4).map(|_| keeps(&shared, &waiting)).collect();
        assert_eq!((passed, shared.lost.into_inner()), (vec![true, false, true, true], 1));
    }

    #[test]
    fn frames_are_whole_or_none() {
        let bytes = [0, 0, 0, 3, 0, 26, 9];
        let mut frame = Vec::new();
        read_frame(&mut bytes.as_slice(), &mut frame).unwrap();
        assert_eq!((key(&frame), frame.len()), (26, 3));
        assert!(read_frame(&mut &bytes[..6], &mut frame).is_err());
        assert!(read_frame(&mut [0xff; 9].as_slice(), &mut frame).is_err());
    }
}
