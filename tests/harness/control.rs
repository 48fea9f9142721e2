//! The supervisor's control socket: one JSON line per request, one JSON line as its answer.
//!
//! In: a [`Request`]. Out: a [`Reply`]; `ok: false` carries the reason in `error`.
//! Guarantees: a request is answered once, after it has been carried out.
//! On failure: no supervisor (no socket, nobody listening, hung up) is `Ok(None)`; one that does not
//! answer in time, or answers nonsense, is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The socket's name in a stack's folder.
pub(crate) const SOCKET: &str = "control.sock";

/// What can be asked of a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How is everything?
    Status,
    /// Start a program beside the servers; a stopped one of the same name is replaced.
    Spawn {
        /// How it is called from now on.
        name: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// Added to the supervisor's environment.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Where its output goes; `log/<name>.log` if not given.
        #[serde(default)]
        log: Option<PathBuf>,
        /// Start it again, with backoff, whenever it ends unasked.
        #[serde(default)]
        restart: bool,
    },
    /// Send a signal to the process group of a program or server.
    Signal {
        /// Its name.
        name: String,
        /// The signal's number, for example 9.
        signal: i32,
    },
    /// Answered when the process that runs now has ended, or at once when none runs.
    WaitExit {
        /// Its name.
        name: String,
        /// How long to wait.
        timeout_ms: u64,
    },
    /// Stop one server or program and leave it down. Answered when it is down.
    StopServer {
        /// Its name.
        name: String,
    },
    /// Start a server that is down. Answered when it is ready.
    StartServer {
        /// Its name.
        name: String,
    },
    /// Stop everything and end. Answered when everything is down.
    Stop,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Whether the request was carried out.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// For `wait_exit`: how the process ended, if it ever ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// For `spawn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl Reply {
    pub(crate) fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    pub(crate) fn refused(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }
}

/// The state of a whole stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The stack's name.
    pub stack: String,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// Whether every server is ready.
    pub ready: bool,
    /// Whether it is on its way down.
    #[serde(default)]
    pub stopping: bool,
    /// Servers first, then programs in the order they were started.
    pub units: Vec<UnitStatus>,
}

/// The state of one server or program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Its name.
    pub name: String,
    /// One of the five servers, or a program that was spawned.
    pub is_server: bool,
    /// Where it is in its life.
    pub state: State,
    /// Its process, when one runs.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u32,
    /// How long the last start took until it answered.
    pub ready_after_ms: Option<u64>,
    /// How its last process ended.
    pub last_exit: Option<Exit>,
    /// Why it is in this state, when there is something to say.
    pub detail: String,
    /// Where its output goes.
    pub log: PathBuf,
}

/// The life of a server or program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not running, and nobody will start it unasked.
    Down,
    /// Its data folder is being made.
    Preparing,
    /// Running, does not answer yet.
    Starting,
    /// Running and answering (a program: running).
    Ready,
    /// Asked to end.
    Stopping,
    /// Ended unasked; will be started again soon.
    Waiting,
    /// Given up; `start_server` or `up` tries again.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Down => "down",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        })
    }
}

/// How a process ended: one of the two is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(out, "exit code {code}"),
            (None, Some(signal)) => write!(out, "signal {signal}"),
            (None, None) => out.write_str("unknown end"),
        }
    }
}

/// Asks the supervisor of the stack in `folder`. `None`: there is no supervisor, or it has just ended.
pub(crate) fn ask(folder: &Path, request: &Request, patience: Duration) -> Result<Option<Reply>> {
    let Some(stream) = connect(folder)? else { return Ok(None) };
    let mut line = serde_json::to_string(request).context("request to JSON")?;
    line.push('\n');
    match exchange(stream, &line, patience) {
        Ok(answer) if answer.is_empty() => Ok(None),
        Ok(answer) => {
            serde_json::from_str(&answer).map(Some).with_context(|| format!("not an answer: {answer}"))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!(
                "no answer from the supervisor in {patience:?}; see {}",
                folder.join("log/supervisor.log").display()
            )
        }
        Err(error) => Err(error).context("cannot talk to the supervisor"),
    }
}

fn exchange(mut stream: UnixStream, line: &str, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

fn connect(folder: &Path) -> Result<Option<UnixStream>> {
    let path = match ShortPath::of(folder) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot open the stack's folder"),
    };
    match UnixStream::connect(path.socket()) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error).context("cannot reach the supervisor"),
    }
}

/// Listens in `folder`; a socket that a dead supervisor left is replaced.
pub(crate) fn listen(folder: &Path) -> Result<UnixListener> {
    let _stale = std::fs::remove_file(folder.join(SOCKET));
    let path = ShortPath::of(folder).context("cannot open the stack's folder")?;
    UnixListener::bind(path.socket()).context("cannot listen on the control socket")
}

/// A unix socket's path has at most 107 bytes and a checkout may lie deeper: so the folder is opened and
/// named by its descriptor.
struct ShortPath {
    folder: File,
}

impl ShortPath {
    fn of(folder: &Path) -> io::Result<Self> {
        File::open(folder).map(|folder| Self { folder })
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.folder.as_raw_fd()))
    }
}

/// Reads one request from a connection and writes its reply.
pub(crate) fn serve(stream: UnixStream, carry_out: impl FnOnce(Request) -> Reply) -> Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut line).context("cannot read the request")?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => carry_out(request),
        Err(error) => Reply::refused(format!("not a request: {error}")),
    };
    let mut answer = serde_json::to_string(&reply).context("reply to JSON")?;
    answer.push('\n');
    reader.into_inner().write_all(answer.as_bytes()).context("the asker has gone")
}
