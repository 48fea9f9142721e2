//! One edge (or several) between a publisher and Kafka, to be hurt, healed and judged.
//!
//! Comes in: the lab, how fast to publish. Goes out: a [`Verdict`]. Guarantees: nothing is published before the edge has
//! subscribed, as the broker keeps nothing for strangers; a scene ends when everything owed was found, or nothing new
//! came for [`QUIET`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use weir_harness::control::Exit;
use weir_harness::faults::edge::{Edge, EdgeSpec};
use weir_harness::faults::load::{self, Load};
use weir_harness::faults::proxy::Proxy;
use weir_harness::judge::run::Run;
use weir_harness::judge::tape::{Seen, State, Tape};
use weir_harness::judge::windows::{self, Outputs};
use weir_harness::judge::{Verdict, judge};
use weir_harness::patience::holds_within;
use weir_harness::programs::Samples;
use weir_shared::clock::{self, Deadline};

use crate::controls::NO_CANARY;
use crate::lab::{Lab, pass};

/// Devices of each edge.
const DEVICES: u64 = 20;
/// An edge subscribes within this time of its first start.
const SUBSCRIBE: Duration = Duration::from_secs(20);
/// So long nothing new comes before what is owed counts as lost.
const QUIET: Duration = Duration::from_secs(15);
/// The longest drain.
const DRAIN: Duration = Duration::from_secs(300);
/// Nobody listens here.
pub(crate) const DEAD_PORT: u16 = 1;
/// The edge of a copied journal gets so long for the next of what is owed.
const PATIENCE: Duration = Duration::from_secs(5);
/// And has sent everything when nothing comes for so long.
const STILL: Duration = Duration::from_millis(700);
/// The longest wait for a canary: what takes longer than it may is told, with how long it took.
const CANARY: Duration = Duration::from_secs(120);
/// The edges are looked at as often while it is waited for.
const LOOK: Duration = Duration::from_millis(500);
/// A look at what cannot be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A scene.
pub(crate) struct Scene<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) run: Arc<Run>,
    pub(crate) proxy: Proxy,
    pub(crate) specs: Vec<EdgeSpec>,
    pub(crate) folder: PathBuf,
    pub(crate) edges: Vec<Edge>,
    rate: u64,
    /// What else was wrong, for the verdict.
    problems: Vec<String>,
    tape: Option<Tape>,
    load: Option<Load>,
}

impl<'a> Scene<'a> {
    /// One edge; nothing runs yet.
    pub(crate) fn new(lab: &'a Lab, about: &str, rate: u64) -> anyhow::Result<Self> {
        Self::with_edges(lab, about, rate, 1)
    }

    /// Several edges on one broker.
    pub(crate) fn with_edges(lab: &'a Lab, about: &str, rate: u64, edges: u64) -> anyhow::Result<Self> {
        let (name, folder) = lab.scene(about)?;
        let run = Arc::new(Run::new(&name, clock::wall_ms(), rate, (edges, DEVICES), lab.partitions));
        let proxy = Proxy::start(&lab.mqtt())?;
        let mut specs = Vec::new();
        for edge in 0..edges {
            let folder = folder.join(format!("edge-{edge}"));
            specs.push(EdgeSpec {
                name: format!("{name}-{edge}"),
                binary: lab.binary()?,
                journal: folder.join("journal"),
                folder,
                mqtt_port: proxy.port(),
                filter: run.filter(edge),
                brokers: lab.brokers(),
                partitions: lab.partitions,
                admin_port: lab.admin_port(edge)?,
                more: [("kafka", "cursor_ms = 100\n".to_owned())].into(),
            });
        }
        let tape = Some(Tape::start(&lab.brokers(), &run)?);
        Ok(Self {
            lab,
            run,
            proxy,
            specs,
            folder,
            edges: Vec::new(),
            rate,
            problems: Vec::new(),
            tape,
            load: None,
        })
    }

    /// Tumbling windows of these sizes over each device.
    pub(crate) fn windows(&mut self, sizes: &[&str]) {
        if !self.lab.windows {
            return;
        }
        // A table of an array has two brackets; the second pair comes with the section.
        for spec in &mut self.specs {
            let rules = sizes.iter().map(|size| {
                format!(
                    "name = \"w-{size}\"\nkind = \"tumbling\"\nsize = \"{size}\"\ndelay = \"1s\"\n\
                     aggregates = [\"count\", \"mean\", \"min\", \"max\"]\n"
                )
            });
            spec.add("[window]", &rules.collect::<Vec<_>>().join("[[window]]\n"));
        }
    }

    /// Readings without a time of their own; before anything runs.
    pub(crate) fn without_times(&mut self) -> anyhow::Result<()> {
        let lab = self.lab;
        let run = Run::new(self.run.name(), clock::wall_ms(), self.rate, (1, DEVICES), lab.partitions);
        self.run = Arc::new(run.without_times());
        self.tape = Some(Tape::start(&lab.brokers(), &self.run)?);
        Ok(())
    }

    /// The only edge's configuration.
    pub(crate) fn spec(&mut self) -> &mut EdgeSpec {
        &mut self.specs[0]
    }

    /// The only edge.
    pub(crate) fn edge(&mut self) -> anyhow::Result<&mut Edge> {
        self.edges.first_mut().context("no edge runs")
    }

    /// Starts the edges with these failpoints and this environment; those of before must have ended.
    pub(crate) fn start(&mut self, failpoints: &str, env: &[(String, String)]) -> anyhow::Result<()> {
        self.edges.clear();
        let env = with_failpoints(self.lab, failpoints, env);
        for spec in &self.specs {
            self.edges.push(spec.start(&env)?);
        }
        Ok(())
    }

    /// Starts the edges, waits until they have subscribed, and begins to publish.
    pub(crate) fn begin(&mut self, failpoints: &str, env: &[(String, String)]) -> anyhow::Result<()> {
        self.start(failpoints, env)?;
        let wanted = self.specs.len() as u64;
        let (proxy, edges) = (&self.proxy, &mut self.edges);
        let subscribed = wait(SUBSCRIBE, || {
            for edge in edges.iter_mut() {
                let ended = edge.ended()?;
                ensure!(ended.is_none(), "the edge ended ({ended:?}); {}", edge.last_words());
            }
            Ok(proxy.look(|book| book.subscribed) >= wanted)
        })?;
        if !subscribed {
            let words = self.edges.iter().map(Edge::last_words).next().unwrap_or_default();
            bail!("not subscribed within {SUBSCRIBE:?}; {words}");
        }
        self.load = Some(Load::start(&self.lab.mqtt(), &self.run, self.rate));
        Ok(())
    }

    /// No more is published.
    pub(crate) fn end_load(&mut self) -> anyhow::Result<()> {
        self.load.take().map_or(Ok(()), Load::stop)
    }

    /// Waits until the only edge has ended.
    pub(crate) fn ended(&mut self, patience: Duration) -> anyhow::Result<Exit> {
        self.edge()?.wait_end(patience)
    }

    /// Publishes a canary into each partition and waits until all are in Kafka: how many seconds that took.
    pub(crate) fn canary(&mut self) -> anyhow::Result<f64> {
        self.canaries(CANARY)
    }

    /// The same where an edge gives up what it cannot send soon, canaries too: new ones until some come through.
    pub(crate) fn new_canaries(&mut self) -> anyhow::Result<f64> {
        self.canaries(LOOK)
    }

    /// New ones follow after `patience`.
    fn canaries(&mut self, patience: Duration) -> anyhow::Result<f64> {
        let begun = clock::instant();
        let deadline = Deadline::after(CANARY);
        let mut sets: Vec<Vec<u64>> = Vec::new();
        let mut next = Deadline::after(Duration::ZERO);
        loop {
            if next.passed() {
                let canaries = self.run.next_canaries();
                load::publish(&self.lab.mqtt(), &self.run, &canaries)?;
                sets.push(canaries);
                next = Deadline::after(patience);
            }
            let there = |state: &State| sets.iter().any(|set| set.iter().all(|n| state.readings.contains(n)));
            if self.tape()?.wait(LOOK, LOOK, there) {
                return Ok(clock::since(begun).as_secs_f64());
            }
            for edge in &mut self.edges {
                let ended = edge.ended()?;
                ensure!(ended.is_none(), "the edge ended ({ended:?}); {}", edge.last_words());
            }
            if deadline.passed() {
                let words = self.edges.first().map(Edge::last_words).unwrap_or_default();
                bail!("{NO_CANARY} within {CANARY:?}; {words}");
            }
        }
    }

    /// Seconds until an acknowledgement leaves the edge, from now.
    pub(crate) fn acknowledges(&self, patience: Duration) -> anyhow::Result<Option<f64>> {
        let begun = clock::instant();
        self.proxy.mark();
        let first = || Ok(self.proxy.look(|book| book.first).is_some());
        Ok(if wait(patience, first)? { Some(clock::since(begun).as_secs_f64()) } else { None })
    }

    /// Acknowledgements that leave the edge within this time.
    pub(crate) fn acknowledged_within(&self, time: Duration) -> u64 {
        let before = self.proxy.acknowledgements();
        pass(time);
        self.proxy.acknowledgements() - before
    }

    /// What was read of Kafka so far, and what follows, is the caller's from now on.
    pub(crate) fn take_tape(&mut self) -> anyhow::Result<Tape> {
        self.tape.take().context("a scene is judged once")
    }

    /// A look at what Kafka has so far.
    fn tape(&self) -> anyhow::Result<&Tape> {
        self.tape.as_ref().context("the tape runs until the end")
    }

    /// Ends the load, waits for what is owed, stops the edges in order: everything that Kafka has.
    pub(crate) fn drain(&mut self) -> anyhow::Result<Vec<Seen>> {
        self.end_load()?;
        let owed = self.run.obligations();
        let tape = self.tape.take().context("a scene is judged once")?;
        tape.wait(QUIET, DRAIN, |state| {
            state.readings.len() >= owed.len() && owed.is_subset(&state.readings)
        });
        self.tape = Some(tape);
        // Whatever is still on its way stands before a last round of canaries.
        let passed = self.canary();
        // Results of windows stand behind the readings that closed them.
        self.tape()?.wait(STILL, DRAIN, |_| false);
        for edge in &mut self.edges {
            if edge.ended()?.is_none() {
                let exit = edge.stop()?;
                if exit.code != Some(0) {
                    self.problems.push(format!("stopped in order, but {exit}; {}", edge.last_words()));
                }
            }
        }
        passed?;
        self.tape.take().context("a scene is judged once")?.finish()
    }

    /// Drains and judges.
    pub(crate) fn finish(&mut self) -> anyhow::Result<(Verdict, Vec<Seen>)> {
        let seen = self.drain()?;
        let strange = self.proxy.look(|book| book.strange);
        ensure!(strange == 0, "{strange} acknowledgements out of order");
        let mut verdict = judge(&self.run, &self.run.obligations(), &seen);
        verdict.problems.append(&mut self.problems);
        Ok((verdict, seen))
    }
}

/// What an edge made of a journal.
pub(crate) struct Developed {
    /// What Kafka has.
    pub(crate) seen: Vec<Seen>,
    pub(crate) metrics: Samples,
    /// What was wrong with its stop.
    pub(crate) stop: Option<String>,
}

impl Scene<'_> {
    /// Starts an edge on another journal of this scene, without a broker, and lets it drain: what Kafka has, `before` in
    /// front; and its metrics.
    pub(crate) fn develop(
        &self,
        journal: &Path,
        owed: &HashSet<u64>,
        before: Vec<Seen>,
    ) -> anyhow::Result<Developed> {
        let spec = EdgeSpec {
            journal: journal.to_owned(),
            folder: self.folder.join("developed"),
            mqtt_port: DEAD_PORT,
            brokers: self.lab.brokers(),
            ..self.specs[0].clone()
        };
        let tape = Tape::start(&self.lab.brokers(), &self.run)?;
        let mut edge = spec.start(&with_failpoints(self.lab, "", &[]))?;
        let known: HashSet<u64> = before.iter().filter_map(Seen::reading).collect();
        let wanted: Vec<u64> = owed.difference(&known).copied().collect();
        tape.wait(PATIENCE, DRAIN, |state| wanted.iter().all(|n| state.readings.contains(n)));
        tape.wait(STILL, DRAIN, |_| false);
        let ended = edge.ended()?;
        ensure!(ended.is_none(), "the edge ended by itself: {ended:?}; {}", edge.last_words());
        let metrics = edge.metrics(&self.lab.admin).unwrap_or_default();
        let exit = edge.stop()?;
        let stop =
            (exit.code != Some(0)).then(|| format!("stopped in order, but {exit}; {}", edge.last_words()));
        let mut seen = before;
        seen.extend(tape.finish()?);
        Ok(Developed { seen, metrics, stop })
    }

    /// What is wrong with the windows of a scene that was drained: each must have counted every reading, and with a
    /// journal that was retained they must be those of the engine run over all of it.
    pub(crate) fn judge_windows(&self, seen: &[Seen], retained: bool) -> anyhow::Result<Vec<String>> {
        if !self.lab.windows {
            return Ok(vec!["this weir-edge has no windows".to_owned()]);
        }
        let mut problems = windows::whole(&self.run, seen);
        if retained && self.lab.replay {
            problems.extend(self.replay(seen)?);
        } else if retained {
            problems.push("this weir-edge has no replay".to_owned());
        }
        Ok(problems)
    }

    fn replay(&self, seen: &[Seen]) -> anyhow::Result<Vec<String>> {
        let spec = &self.specs[0];
        let mut command = Command::new(&spec.binary);
        let output = command.args(["replay", "--config"]).arg(spec.config()).output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "weir-edge replay: {}: {words}", output.status);
        let replayed = Outputs::replayed(&String::from_utf8_lossy(&output.stdout));
        let sent = Outputs::sent(seen);
        let mut problems = Outputs::differences(&sent, &replayed);
        if replayed.count() == 0 {
            problems.push("weir-edge replay gave nothing".to_owned());
        }
        Ok(problems)
    }
}

/// The environment with failpoints, and the known-bad switch of this run.
pub(crate) fn with_failpoints(
    lab: &Lab,
    failpoints: &str,
    env: &[(String, String)],
) -> Vec<(String, String)> {
    let bad = lab.bad.borrow();
    let bad = bad.iter().map(|bad| format!("{bad}=return"));
    let all: Vec<String> =
        bad.chain(Some(failpoints.to_owned()).filter(|points| !points.is_empty())).collect();
    let mut env = env.to_vec();
    if !all.is_empty() {
        env.push(("FAILPOINTS".to_owned(), all.join(";")));
    }
    env
}

/// Waits until this holds; whether it did in time.
pub(crate) fn wait(patience: Duration, holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    holds_within(patience, LOOK_EVERY, holds)
}
