//! Starting one child process of the supervisor.
//!
//! In: what to run ([`Launch`]). Out: the running child, in its own process group, its output in a file.
//! Guarantees: the child is killed by the kernel when the supervisor dies, however it dies. The kernel
//! ties that to the *thread* that spawned: call [`spawn`] from the supervisor's main thread only.
//! On failure: an error that names the program; nothing is left behind.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal};

/// A log that has grown past this is set aside (one old one is kept) at the next start.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// What to run, and where its output goes.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Added to the supervisor's own environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Working folder.
    pub(crate) folder: PathBuf,
    /// Standard output and error are appended here.
    pub(crate) log: PathBuf,
}

/// Starts the program. Only from the thread that lives as long as the supervisor.
pub(crate) fn spawn(launch: &Launch) -> Result<Child> {
    let Some((program, arguments)) = launch.argv.split_first() else { bail!("nothing to run: empty argv") };
    let log = open_log(&launch.log)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(&launch.env)
        .current_dir(&launch.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot use the log twice")?)
        .stderr(log)
        .process_group(0);
    tie_to_this_thread(&mut command);
    command.spawn().with_context(|| format!("cannot start {program}"))
}

/// The kernel will kill the command's process when the thread that spawns it ends, or its whole process.
#[expect(unsafe_code, reason = "tying a child's life to its parent's can only be done between fork and exec")]
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let parent = getpid();
    let tie = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
    unsafe { command.pre_exec(tie) };
}

/// Sends a signal to the child's whole process group. A group that is gone already is fine.
pub(crate) fn signal_group(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _gone_already = kill_process_group(pid, signal);
    }
}

fn open_log(path: &Path) -> Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("old.log")).context("cannot set a long log aside")?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write the log {}", path.display()))
}
