//! TLS and logins on every way: MQTT and MariaDB with client certificates, Kafka with SCRAM over TLS and with client
//! certificates, Elasticsearch and ClickHouse behind TLS (they have none here). Secrets stand in a file.
//!
//! Readings come through once; certificates that are renewed are used while all runs, by the stores' clients too, also such as
//! live for 40 s (row 31 of the fault matrix); and what is wrong (the password, the authority, an expired certificate) is said
//! in one line that names the setting.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use weir_harness::addresses::{
    HOST, KAFKA_PASSWORD, KAFKA_USER, MYSQL_DATABASE, MYSQL_PASSWORD, MYSQL_TLS_USER, Ports,
};
use weir_harness::certificates::{Certificates, Identity};
use weir_harness::oracle::Oracle;
use weir_harness::patience::holds_within;
use weir_harness::programs::{Admin, Program, Programs, Samples};
use weir_harness::stack::Stack;
use weir_harness::stream::new_run_name;
use weir_harness::tls_front;
use weir_shared::clock::{self, Deadline};

use crate::alone;
use crate::first_light::first_light;
use crate::started::{Started, entries};

const READINGS: u64 = 200;
const STORED: Duration = Duration::from_secs(60);
/// Files are looked at every ten seconds.
const RENEWED: Duration = Duration::from_secs(30);
/// Certificates of row 31: how long they live, how often they are renewed, how many times.
const SHORT: Duration = Duration::from_secs(40);
const SHORT_EVERY: Duration = Duration::from_secs(15);
const SHORT_ROUNDS: u64 = 4;
/// Clients of the cloud that are made anew with each renewal.
const CLIENTS: usize = 3;
const SAID: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Days from now.
const VALID: (i64, i64) = (-1, 5);
const EXPIRED: (i64, i64) = (-9, -2);

struct Scene<'a> {
    stack: &'a Stack,
    programs: Programs<'a>,
    oracle: Oracle,
    admin: Admin,
    certificates: Certificates,
    folder: PathBuf,
    run: String,
}

/// A `tls` section.
fn tls(name: &str, enabled: &str, ca: &Path, identity: Option<&Identity>) -> String {
    let mut text = format!("[{name}]\n{enabled}ca_file = \"{}\"\n", ca.display());
    if let Some(Identity { certificate, key }) = identity {
        let (certificate, key) = (certificate.display(), key.display());
        text.push_str(&format!("certificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n"));
    }
    text
}

const ON: &str = "enabled = true\n";

impl Scene<'_> {
    fn ports(&self) -> Ports {
        self.stack.ports()
    }

    fn edge_admin(&self) -> String {
        format!("{HOST}:{}", self.ports().first_free())
    }

    /// An edge with an authority to trust, a certificate to show to both servers, and a password for Kafka.
    fn edge(&self, ca: &Path, shown: &Identity, password: &str) -> String {
        let (ports, folder) = (self.ports(), self.folder.display());
        format!(
            "name = \"gw-{run}\"\n[admin]\nlisten = \"{admin}\"\n[journal]\ndir = \"{folder}/journal\"\n\
             [audit]\ndirectory = \"{folder}/audit\"\n\
             [mqtt]\nhost = \"{HOST}\"\nport = {mqtt}\ntopics = [\"{run}/#\"]\n{mqtt_tls}\
             [kafka]\nbrokers = \"{HOST}:{kafka}\"\n{kafka_tls}\
             [kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nuser = \"{KAFKA_USER}\"\npassword = \"{password}\"\n",
            run = self.run,
            admin = self.edge_admin(),
            mqtt = ports.mqtt_tls(),
            mqtt_tls = tls("mqtt.tls", ON, ca, Some(shown)),
            kafka = ports.kafka_sasl(),
            kafka_tls = tls("kafka.tls", ON, ca, None),
        )
    }

    fn cloud(&self, ca: &Path, shown: &Identity) -> String {
        let ports = self.ports();
        let front = |port| tls_front::start(&self.certificates, port).unwrap();
        let (elasticsearch, clickhouse) = (front(ports.elasticsearch()), front(ports.clickhouse()));
        let password = "${env:WEIR_TEST_MYSQL}";
        let mysql = format!("mysql://{MYSQL_TLS_USER}:{password}@{HOST}:{}/{MYSQL_DATABASE}", ports.mysql());
        let mysql_tls = |name: &str| tls(name, ON, ca, Some(shown));
        format!(
            "slot = \"weir-cloud-0\"\n[admin]\nlisten = \"{admin}\"\n\
             [kafka]\nbrokers = \"{HOST}:{kafka}\"\n{kafka_tls}\
             [[dimension]]\nname = \"devices\"\nurl = \"{mysql}\"\ntable = \"weir_devices\"\n{dimension_tls}\
             [rules]\nurl = \"{mysql}\"\n{rules_tls}\
             [sink.mysql]\nenabled = true\nurl = \"{mysql}\"\n{sink_tls}\
             [sink.elasticsearch]\nenabled = true\nurl = \"https://{HOST}:{elasticsearch}\"\n{search_tls}\
             [sink.clickhouse]\nenabled = true\nurl = \"https://{HOST}:{clickhouse}\"\n{click_tls}",
            admin = self.programs.address(Program::Cloud),
            kafka = ports.kafka_tls(),
            kafka_tls = tls("kafka.tls", ON, ca, Some(shown)),
            dimension_tls = mysql_tls("dimension.tls"),
            rules_tls = mysql_tls("rules.tls"),
            sink_tls = mysql_tls("sink.mysql.tls"),
            search_tls = tls("sink.elasticsearch.tls", "", ca, None),
            click_tls = tls("sink.clickhouse.tls", "", ca, None),
        )
    }

    fn start(&self, program: Program, config: &str) -> Started {
        let path = self.folder.join(format!("{}.toml", program.name()));
        std::fs::write(&path, config).unwrap();
        let binary = self.programs.command(program, &[]);
        let mut command = std::process::Command::new(binary.get_program());
        command.args(["run", "--config"]).arg(&path).env("WEIR_TEST_MYSQL", MYSQL_PASSWORD);
        Started::new(&mut command, &path.with_extension("log"))
    }

    /// Readings from `first` on, over MQTT without TLS, until the broker has them all.
    fn publish(&self, first: u64) {
        let (host, port) = self.stack.addresses().mqtt;
        let options = MqttOptions::new(format!("{}-publisher", self.run), host, port);
        let (client, mut connection) = Client::new(options, 2 * READINGS as usize);
        for n in first..first + READINGS {
            let (device, time) = (format!("{}-{}", self.run, n % 5), clock::wall_ms());
            let reading = json!({ "device": device, "ts": time, "values": { "n": n } }).to_string();
            client.publish(format!("{}/x", self.run), QoS::AtLeastOnce, false, reading).unwrap();
        }
        let acknowledged = connection
            .iter()
            .filter(|event| matches!(event.as_ref().unwrap(), Event::Incoming(Packet::PubAck(_))))
            .take(READINGS as usize)
            .count();
        assert_eq!(acknowledged, READINGS as usize);
    }

    /// Rows of this run, and different numbers among them, in each store.
    fn stored(&self) -> anyhow::Result<[(u64, u64); 3]> {
        let run = &self.run;
        let pair = |text: &str| {
            let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
            (numbers.next().unwrap(), numbers.next().unwrap())
        };
        let mysql = self.oracle.rows_in_mysql(&format!(
            "SELECT CONCAT(COUNT(*), ' ', COUNT(DISTINCT JSON_VALUE(`values`, '$.n'))) FROM weir_readings \
             WHERE device LIKE '{run}-%'"
        ))?;
        let clickhouse = self.oracle.in_clickhouse(&format!(
            "SELECT count(), uniqExact(numbers['n']) FROM weir_readings \
             WHERE startsWith(device, '{run}-')"
        ))?;
        self.oracle.refresh_elasticsearch()?;
        let query = json!({
            "size": (2 + SHORT_ROUNDS) * READINGS,
            "track_total_hits": true,
            "query": { "prefix": { "device": run } },
        });
        let found = self.oracle.in_elasticsearch("weir-readings-*/_search", &query)?;
        let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
        let mut numbers: Vec<_> = hits.iter().map(|hit| hit["_source"]["values"]["n"].to_string()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let total = found["hits"]["total"]["value"].as_u64().unwrap_or_default();
        Ok([pair(&mysql[0]), pair(&clickhouse), (total, numbers.len() as u64)])
    }

    fn wait_stored(&self, wanted: u64, programs: &[&Started]) {
        let all = holds_within(STORED, LOOK_EVERY, || Ok(self.stored()? == [(wanted, wanted); 3])).unwrap();
        let logs: Vec<_> = programs.iter().map(|program| program.log()).collect();
        assert!(all, "{:?}, wanted {wanted}\n{}", self.stored().unwrap(), logs.join("\n---\n"));
    }

    /// A program says this on `/ready`.
    fn says(&self, program: &Started, admin: &str, words: &str) {
        let ready = || self.admin.words(admin, "/ready");
        let said = holds_within(SAID, LOOK_EVERY, || Ok(ready().contains(words))).unwrap();
        assert!(said, "{words:?} is not in {:?}\n{}", ready(), program.log());
    }

    /// Row 31: certificates that live for seconds, renewed in time; the first of them end on the way.
    fn streams_on_short_certificates(&self, cloud: &Started) {
        for round in 0..SHORT_ROUNDS {
            let began = Deadline::after(SHORT_EVERY);
            let before = renewals(cloud);
            self.certificates.issue_for("e2e", "weir", SHORT).unwrap();
            self.publish((2 + round) * READINGS);
            let used = || Ok(began.passed() && renewals(cloud) >= before + CLIENTS);
            assert!(holds_within(SHORT, LOOK_EVERY, used).unwrap(), "{}", cloud.log());
        }
    }

    /// An edge of this configuration says this, in its audit log too, and counts it.
    fn edge_says(&self, config: &str, words: &str) {
        let edge = self.start(Program::Edge, config);
        self.says(&edge, &self.edge_admin(), words);
        self.audits(&edge, &format!("gw-{}", self.run), ("", words));
        self.counts_refused(&self.edge_admin());
    }

    /// A process that a database of business data refuses: these passwords it gives for the dimension and for the rules.
    fn cloud_is_refused(&self, ca: &Path, shown: &Identity, passwords: [&str; 2], who: &str) {
        let [dimension, rules] = passwords.map(|password| {
            format!("mysql://{MYSQL_TLS_USER}:{password}@{HOST}:{}/{MYSQL_DATABASE}", self.ports().mysql())
        });
        let admin = self.programs.address(Program::Cloud);
        let config = format!(
            "slot = \"refused\"\n[admin]\nlisten = \"{admin}\"\n[audit]\ndirectory = \"{folder}/audit\"\n\
             [kafka]\nbrokers = \"{HOST}:{kafka}\"\n{kafka_tls}\
             [[dimension]]\nname = \"devices\"\nurl = \"{dimension}\"\ntable = \"weir_devices\"\n{dimension_tls}\
             [rules]\nurl = \"{rules}\"\n{rules_tls}",
            folder = self.folder.display(),
            kafka = self.ports().kafka_tls(),
            kafka_tls = tls("kafka.tls", ON, ca, Some(shown)),
            dimension_tls = tls("dimension.tls", ON, ca, Some(shown)),
            rules_tls = tls("rules.tls", ON, ca, Some(shown)),
        );
        let cloud = self.start(Program::Cloud, &config);
        self.audits(&cloud, "refused", (who, "Access denied"));
        self.counts_refused(&admin);
    }

    /// An entry `login` with this subject, where one is given, and these words is in the audit log of this name.
    fn audits(&self, program: &Started, name: &str, (subject, words): (&str, &str)) {
        let path = self.folder.join(format!("audit/{name}.audit.jsonl"));
        let is_audited = || {
            let holds = |entry: &Value, member: &str, words: &str| {
                entry[member].as_str().is_some_and(|text| text.contains(words))
            };
            let is_it = |entry: &Value| {
                entry["action"] == "login"
                    && holds(entry, "subject", subject)
                    && holds(entry, "result", words)
            };
            Ok(entries(&path).iter().any(is_it))
        };
        let audited = holds_within(SAID, LOOK_EVERY, is_audited).unwrap();
        assert!(audited, "{subject} {words:?} is not audited\n{}", program.log());
    }

    fn counts_refused(&self, admin: &str) {
        let page = self.admin.page(admin, "/metrics").unwrap();
        assert!(Samples::parse(&page).sum("weir_logins_refused_total", "") >= 1.0);
    }
}

/// Clients of the cloud that were made anew with other certificates.
fn renewals(cloud: &Started) -> usize {
    cloud.log().matches("certificates were renewed").count()
}

#[test]
fn readings_come_through_tls_and_logins_once_and_what_is_wrong_is_said() {
    let first = first_light();
    let _alone = alone();
    let run = format!("tls-{}", new_run_name());
    let folder = std::env::temp_dir().join(&run);
    std::fs::create_dir_all(&folder).unwrap();
    let scene = Scene {
        stack: &first.stack,
        programs: Programs::new(&first.stack).unwrap(),
        oracle: Oracle::new(&first.stack.addresses()).unwrap(),
        admin: Admin::new().unwrap(),
        certificates: Certificates::of(&first.stack.data_dir().join("data")),
        folder: folder.clone(),
        run,
    };
    let (ca, issue) =
        (scene.certificates.ca(), |name, days| scene.certificates.issue(name, "weir", days).unwrap());
    let password_file = folder.join("password");
    std::fs::write(&password_file, format!("{KAFKA_PASSWORD}\n")).unwrap();
    let password = format!("${{file:{}}}", password_file.display());

    let good = issue("e2e", VALID);
    scene.edge_says(&scene.edge(&ca, &good, "wrong"), "→ check kafka.sasl.user, password and mechanism");
    let other_ca = scene.certificates.other_ca();
    scene.edge_says(&scene.edge(&other_ca, &good, &password), "→ kafka.tls.ca_file must hold the authority");
    scene.edge_says(&scene.edge(&ca, &issue("e2e-expired", EXPIRED), &password), "certificate expired");

    scene.cloud_is_refused(&ca, &good, ["wrong", MYSQL_PASSWORD], "dimension devices");
    scene.cloud_is_refused(&ca, &good, [MYSQL_PASSWORD, "wrong"], "rules");

    let edge = scene.start(Program::Edge, &scene.edge(&ca, &good, &password));
    let trusted = folder.join("authority.pem");
    std::fs::copy(&other_ca, &trusted).unwrap();
    let cloud = scene.start(Program::Cloud, &scene.cloud(&trusted, &good));
    let cloud_admin = scene.programs.address(Program::Cloud);
    scene.says(&cloud, &cloud_admin, "→ kafka.tls.ca_file must hold the authority");
    // All of its clients were made with the other one.
    std::fs::copy(&ca, &trusted).unwrap();
    let subscribed = || Ok(scene.admin.page(&scene.edge_admin(), "/ready").is_some());
    assert!(holds_within(STORED, LOOK_EVERY, subscribed).unwrap(), "{}", edge.log());
    scene.publish(0);
    scene.wait_stored(READINGS, &[&edge, &cloud]);

    let ends = |page: Option<String>| page.unwrap().contains("_tls_not_after_seconds{peer=\"kafka\"}");
    assert!(ends(scene.admin.page(&scene.edge_admin(), "/metrics")));
    assert!(ends(scene.admin.page(&cloud_admin, "/metrics")));

    let before = renewals(&cloud);
    issue("e2e", VALID);
    let renewed = || Ok(renewals(&cloud) >= before + CLIENTS);
    assert!(holds_within(RENEWED, LOOK_EVERY, renewed).unwrap(), "{}", cloud.log());
    scene.publish(READINGS);
    scene.wait_stored(2 * READINGS, &[&edge, &cloud]);
    let (mut edge, mut cloud) = (edge, cloud);
    scene.streams_on_short_certificates(&cloud);
    scene.wait_stored((2 + SHORT_ROUNDS) * READINGS, &[&edge, &cloud]);
    for program in [&mut edge, &mut cloud] {
        assert!(program.ended().is_none(), "it ended:\n{}", program.log());
    }
    for log in [edge.log(), cloud.log()] {
        assert!(!log.contains(KAFKA_PASSWORD) && !log.contains(MYSQL_PASSWORD), "a secret was said:\n{log}");
    }
    drop((edge, cloud));
    std::fs::remove_dir_all(&folder).unwrap();
}
