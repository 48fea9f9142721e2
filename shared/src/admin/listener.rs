//! Where the admin port listens: TCP, or TLS over it.
//!
//! Comes in: the address and the certificate. Goes out: connections, ready to be read.
//! Guarantees: who is slow in the handshake, or never ends it, keeps nobody else waiting; at most [`OPEN_MAX`] connections are
//! open, and none on which nothing happens; a renewed certificate is shown to who connects within ten seconds after.
//! On failure: an address that is in use, or a certificate that cannot be read, ends the program at the start; later ones are
//! logged, and the one before stays.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use openssl::ssl::{Ssl, SslAcceptor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tokio_openssl::SslStream;

use crate::clock;
use crate::supervise::Error;
use crate::tls::{Renewals, Tls};

/// Connections at a time; further ones wait.
const OPEN_MAX: usize = 128;
/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection on which nothing comes or goes for so long is closed: events go each second, scrapes come every 15 s.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// After an error of the machine (no descriptors left) it is tried again so soon.
const AGAIN: Duration = Duration::from_millis(500);

/// Gives connections on which the handshake is done.
pub(super) struct Listener {
    done: mpsc::Receiver<(Connection, SocketAddr)>,
    local: SocketAddr,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// What was accepted; counts as open until it is dropped, and breaks when nothing comes or goes for [`IDLE_MAX`].
pub(super) struct Connection {
    stream: Pin<Box<dyn Stream>>,
    idle: Pin<Box<Sleep>>,
    _open: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: Pin<Box<dyn Stream>>, open: OwnedSemaphorePermit) -> Self {
        Self { stream, idle: Box::pin(tokio::time::sleep(IDLE_MAX)), _open: open }
    }

    /// Bytes came or went; or nothing did, for how long?
    fn passed<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.idle.as_mut().reset((clock::instant() + IDLE_MAX).into());
            return done;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl Listener {
    /// Listens; the task accepts as long as it lives, and must not end before.
    pub(super) async fn bind(
        address: SocketAddr,
        tls: Option<&Tls>,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| format!("admin port {address}: {e}; choose another with admin.listen"))?;
        let local = listener.local_addr()?;
        let shown = tls.map(Shown::new).transpose()?;
        let (give, done) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, shown, give));
        Ok((Self { done, local }, accepting))
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.done.recv().await {
            Some(accepted) => accepted,
            // Whoever serves sees that the accepting task has ended.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

async fn accept(listener: TcpListener, shown: Option<Shown>, give: mpsc::Sender<(Connection, SocketAddr)>) {
    let open = Arc::new(Semaphore::new(OPEN_MAX));
    let shown = shown.map(Arc::new);
    while let Ok(permit) = Arc::clone(&open).acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("admin port: {error}");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let (give, shown) = (give.clone(), shown.clone());
        tokio::spawn(async move {
            let stream: Pin<Box<dyn Stream>> = match shown {
                None => Box::pin(stream),
                Some(shown) => match tokio::time::timeout(HANDSHAKE, shown.handshake(stream)).await {
                    Ok(Ok(stream)) => Box::pin(stream),
                    Ok(Err(error)) => return tracing::debug!(%peer, "admin port: {error}"),
                    Err(_) => return tracing::debug!(%peer, "admin port: no handshake in time"),
                },
            };
            if give.send((Connection::new(stream, permit), peer)).await.is_err() {
                tracing::debug!(%peer, "admin port: closed");
            }
        });
    }
}

/// The certificate that is shown.
struct Shown {
    tls: Tls,
    now: Mutex<(SslAcceptor, Renewals)>,
}

impl Shown {
    fn new(tls: &Tls) -> Result<Self, Error> {
        let acceptor = tls.acceptor()?.ok_or("admin.tls: certificate_file and key_file must be set")?;
        Ok(Self { tls: tls.clone(), now: Mutex::new((acceptor, Renewals::of(tls))) })
    }

    async fn handshake(&self, stream: TcpStream) -> Result<SslStream<TcpStream>, Error> {
        let mut stream = SslStream::new(Ssl::new(self.acceptor().context())?, stream)?;
        Pin::new(&mut stream).accept().await?;
        Ok(stream)
    }

    fn acceptor(&self) -> SslAcceptor {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.1.came() {
            match self.tls.acceptor() {
                Ok(Some(acceptor)) => now.0 = acceptor,
                Ok(None) => {}
                Err(error) => tracing::warn!("admin port: {error}; the certificate before is still shown"),
            }
        }
        now.0.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let done = own.stream.as_mut().poll_read(cx, buf);
        own.passed(cx, done)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let done = own.stream.as_mut().poll_write(cx, bytes);
        own.passed(cx, done)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let done = own.stream.as_mut().poll_flush(cx);
        own.passed(cx, done)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let done = own.stream.as_mut().poll_shutdown(cx);
        own.passed(cx, done)
    }
}
