//! A take-over while queries of the open plan still run: a select is ended, an insert, which this server cannot kill, is
//! waited for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};
use weir_harness::faults::cloud::Cloud;
use weir_shared::clock::Deadline;

use super::{LOOK, Scene};

/// An insert shows among the queries when the server has read a mebibyte of it.
const FIRST_BYTES: usize = 2 << 20;
const ROW_BYTES: usize = 8;
/// How long the sink is watched while it must wait.
const WATCHED: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);

impl Scene {
    /// Gives the sink that took over.
    pub(super) fn take_over_waits_for_what_runs(&self) -> anyhow::Result<Cloud> {
        let open = self.open_plans()?;
        let prefix = open.first().context("an open plan")?;
        self.oracle.in_clickhouse("CREATE TABLE elsewhere (n Int64) ENGINE = MergeTree ORDER BY n")?;
        let mut select = self.query(&format!("{prefix}select"), "SELECT count() FROM system.numbers", 0)?;
        let mut insert = self.query(
            &format!("{prefix}insert"),
            "INSERT INTO elsewhere FORMAT RowBinary",
            FIRST_BYTES + ROW_BYTES,
        )?;
        insert.write_all(&vec![0; FIRST_BYTES])?;
        self.wait_running(prefix, 2)?;
        let answer: JoinHandle<std::io::Result<String>> = thread::spawn(move || read(&mut select));

        let cloud = self.start()?;
        thread::park_timeout(WATCHED);
        ensure!(
            self.open_plans()? == open,
            "a plan was closed while its insert still ran; {}",
            cloud.last_words()
        );
        insert.write_all(&[0; ROW_BYTES])?;
        let inserted = read(&mut insert)?;
        ensure!(inserted.starts_with("HTTP/1.1 200"), "{inserted}");
        let selected = answer.join().ok().context("the select's thread")??;
        ensure!(selected.contains("Query was cancelled"), "the select was not killed: {selected}");
        self.wait_ready(&cloud)?;
        Ok(cloud)
    }

    /// Begins a query with this id and a body of so many bytes.
    fn query(&self, id: &str, query: &str, body_bytes: usize) -> anyhow::Result<TcpStream> {
        let port = self.stack.ports().clickhouse();
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let escaped = |text: &str| text.replace(' ', "+").replace('|', "%7C");
        let (query, id) = (escaped(query), escaped(id));
        write!(
            stream,
            "POST /?query={query}&query_id={id} HTTP/1.1\r\nHost: x\r\nContent-Length: {body_bytes}\r\n\
             Connection: close\r\n\r\n"
        )?;
        Ok(stream)
    }

    fn wait_running(&self, prefix: &str, wanted: usize) -> anyhow::Result<()> {
        let ask = format!("SELECT query_id FROM system.processes WHERE startsWith(query_id, '{prefix}')");
        let deadline = Deadline::after(PATIENCE);
        while self.oracle.in_clickhouse(&ask)?.lines().count() < wanted {
            ensure!(!deadline.passed(), "fewer than {wanted} queries run");
            thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

fn read(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
