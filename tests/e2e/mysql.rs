//! Many rows at once into MySQL: by LOAD DATA, which bends what it dislikes, and never a row is bent or left out.
//!
//! Readings that only go to MySQL are put into `weir.enriched` while no sink runs, so that the first batch has them all:
//! once of texts that a text format could mangle, once with some that the table refuses, once on a server that takes no
//! LOCAL data. `verify --deep` compares every column. And a topic of another id than the progress was made for is not read.

use std::time::Duration;

use anyhow::ensure;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use weir_harness::oracle::Oracle;
use weir_harness::patience::holds_within;
use weir_harness::programs::{Program, Programs};
use weir_shared::clock;
use weir_shared::wire;

use crate::alone;
use crate::first_light::{FirstLight, first_light};

const ROWS: u64 = 1_000;
/// Every so many readings are of a device that the table refuses, in the step that forbids it.
const FORBIDDEN_EACH: u64 = 250;
const FORBIDDEN: &str = "load-forbidden";
/// What a text of lines, tabs and backslashes could take for its own, and characters of one to four bytes.
const TEXT: &str = "tab\t line\n return\r back\\slash \\N quote\" ' nul\u{1}\u{1a} µ€😀";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Scene<'a> {
    run: &'a FirstLight,
    programs: Programs<'a>,
    oracle: Oracle,
}

#[test]
fn rows_that_are_loaded_are_never_bent() {
    let run = first_light();
    let _alone = alone();
    let oracle = Oracle::new(&run.stack.addresses()).unwrap();
    let scene = Scene { run, programs: Programs::new(&run.stack).unwrap(), oracle };
    assert!(scene.step(1, ROWS).unwrap() > 0, "nothing was loaded");

    let forbid = "ALTER TABLE weir_readings ADD CONSTRAINT no_load CHECK";
    let others = format!("device <> '{FORBIDDEN}' OR stream <> UNHEX('{}')", stream(2));
    scene.oracle.in_mysql(&format!("{forbid} ({others})")).unwrap();
    scene.step(2, ROWS - ROWS / FORBIDDEN_EACH).unwrap();
    scene.oracle.in_mysql("ALTER TABLE weir_readings DROP CONSTRAINT no_load").unwrap();

    scene.oracle.as_admin_in_mysql("SET GLOBAL local_infile = 0").unwrap();
    let loads = scene.step(3, ROWS);
    scene.oracle.as_admin_in_mysql("SET GLOBAL local_infile = 1").unwrap();
    // The server counts the one that it refused.
    assert!(loads.unwrap() <= 1, "asked again, though the server forbids it");
}

#[test]
fn a_topic_that_was_made_anew_is_not_read() {
    let run = first_light();
    let _alone = alone();
    let oracle = Oracle::new(&run.stack.addresses()).unwrap();
    let scene = Scene { run, programs: Programs::new(&run.stack).unwrap(), oracle };
    let select = "SELECT DISTINCT topic_id FROM weir_progress WHERE topic = 'weir.enriched'";
    let ids = scene.oracle.rows_in_mysql(select).unwrap();
    assert!(matches!(&ids[..], [id] if id.len() == 32), "{ids:?}");

    let set = |id: &str| {
        let set = format!("UPDATE weir_progress SET topic_id = '{id}' WHERE topic = 'weir.enriched'");
        scene.oracle.in_mysql(&set).unwrap();
    };
    set(&"0".repeat(32));
    let unread = stream(4);
    scene.produce(&unread).unwrap();
    scene.programs.start_role(&["sink", "mysql"]).unwrap();
    let said = || {
        let log = std::fs::read_to_string(run.stack.log_of(Program::Cloud.name())).unwrap();
        Ok(log.contains("weir.enriched was deleted and made again"))
    };
    let said = holds_within(PATIENCE, LOOK_EVERY, said).unwrap();
    let rows = scene.rows(&unread).unwrap();
    assert_eq!(scene.programs.stop_one(Program::Cloud).unwrap(), Some(0));
    set(&ids[0]);
    assert_eq!((said, rows), (true, 0));
    scene.step(5, ROWS).unwrap();
    assert_eq!(scene.rows(&unread).unwrap(), ROWS);
}

/// The id of the stream of a step.
fn stream(number: u8) -> String {
    format!("10ad{number:028x}")
}

impl Scene<'_> {
    /// Readings of a stream of their own, then the sink until so many are stored: how many statements were to load rows.
    fn step(&self, number: u8, wanted: u64) -> anyhow::Result<u64> {
        let stream = stream(number);
        let begun = clock::instant();
        self.produce(&stream)?;
        let before = self.loads()?;
        self.programs.start_role(&["sink", "mysql"])?;
        holds_within(PATIENCE, LOOK_EVERY, || Ok(self.rows(&stream)? >= wanted))?;
        ensure!(self.programs.stop_one(Program::Cloud)? == Some(0), "the sink ended badly");
        let rows = self.rows(&stream)?;
        ensure!(rows == wanted, "{rows} rows of {stream}, not {wanted}");
        // What other tests damaged is older.
        let since = format!("{}s", clock::since(begun).as_secs() + 3);
        let verify = ["verify", "--deep", "--json", "--store", "mysql", "--from", &since];
        let done = self.programs.command(Program::Cloud, &verify).output()?;
        let report: Value = serde_json::from_slice(&done.stdout)?;
        ensure!(done.status.success(), "{report}");
        Ok(self.loads()? - before)
    }

    fn produce(&self, stream: &str) -> anyhow::Result<()> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.run.stack.addresses().kafka)
            .set("enable.idempotence", "true")
            .create()?;
        let now = clock::wall_ms();
        for number in 0..ROWS {
            let device = if number % FORBIDDEN_EACH == 7 { FORBIDDEN } else { "load-\t\\" };
            let values = json!({"t": 20.5, "tiny": 1e-300, "text": TEXT});
            let weir = json!({"stream": stream, "partition": 0, "number": number, "edge": "gw-load", "stores": ["mysql"]});
            let tags = json!({"note": TEXT});
            let record = json!({"weir": weir, "device": device, "time": now, "received": now, "values": values, "tags": tags});
            let record = record.to_string();
            let sent = BaseRecord::to(wire::ENRICHED).partition(0).key(device).payload(&record);
            producer.send(sent).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(PATIENCE)?)
    }

    fn rows(&self, stream: &str) -> anyhow::Result<u64> {
        let select = format!("SELECT COUNT(*) FROM weir_readings WHERE stream = UNHEX('{stream}')");
        Ok(self.oracle.rows_in_mysql(&select)?[0].parse()?)
    }

    fn loads(&self) -> anyhow::Result<u64> {
        let ask =
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'COM_LOAD'";
        Ok(self.oracle.rows_in_mysql(ask)?[0].parse()?)
    }
}
