//! What one run of the fault suite publishes: everything about a reading follows from its number.
//!
//! Comes in: numbers. Goes out: topics and payloads; and, for what came out at the far end, its number or what is wrong
//! with it. Guarantees: a device belongs to one connection, so the numbers of a device grow in its order; a number is
//! an obligation once [`Run::acknowledge`] was told. Pure but for its own books.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use weir_shared::wire;

/// Numbers from here on are canaries: one device per partition, so that a round of them passes every partition.
pub const CANARIES_FROM: u64 = 1 << 40;

/// How far the time of arrival may lie from that of publishing.
const LATE_MS: i64 = 15_000;
/// A canary may be published at any time of its run.
const CANARY_LATE_MS: i64 = 3_600_000;

/// One run.
#[derive(Debug)]
pub struct Run {
    name: String,
    /// Event time of number 0, ms since 1970.
    base_ms: i64,
    /// Event time between two numbers, µs.
    step_us: u64,
    edges: u64,
    devices: u64,
    canaries: Vec<String>,
    /// Whether readings carry a time of their own; else the edge gives them that of their arrival.
    timed: bool,
    issued: AtomicU64,
    canaries_issued: AtomicU64,
    acknowledged: Mutex<HashSet<u64>>,
}

impl Run {
    /// A run of `rate` readings per second of event time over `devices` devices at each of `edges` edges; `partitions`
    /// is that of the readings' topic.
    #[must_use]
    pub fn new(name: &str, base_ms: i64, rate: u64, (edges, devices): (u64, u64), partitions: i32) -> Self {
        Self {
            name: name.to_owned(),
            base_ms,
            step_us: 1_000_000 / rate.max(1),
            edges,
            devices,
            canaries: canaries(name, partitions),
            timed: true,
            issued: AtomicU64::new(0),
            canaries_issued: AtomicU64::new(0),
            acknowledged: Mutex::default(),
        }
    }

    /// The same run, of readings without a time of their own.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        self.timed = false;
        self
    }

    /// Its name: in every topic and every reading.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topic filter of an edge.
    #[must_use]
    pub fn filter(&self, edge: u64) -> String {
        format!("sensors/{}/{edge}/#", self.name)
    }

    /// The next number to publish.
    pub fn next(&self) -> u64 {
        self.issued.fetch_add(1, Ordering::Relaxed)
    }

    /// The numbers of one canary for each partition.
    pub fn next_canaries(&self) -> Vec<u64> {
        let count = self.canaries.len() as u64;
        let first = self.canaries_issued.fetch_add(count, Ordering::Relaxed);
        (first..first + count).map(|n| CANARIES_FROM + n).collect()
    }

    /// How many readings were issued; canaries are not counted.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// The broker has it: from now on it is owed.
    pub fn acknowledge(&self, number: u64) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Everything that is owed.
    #[must_use]
    pub fn obligations(&self) -> HashSet<u64> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How much is owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Name of the device of a number.
    #[must_use]
    pub fn device(&self, number: u64) -> String {
        if let Some(canary) = number.checked_sub(CANARIES_FROM) {
            let at = usize::try_from(canary % self.canaries.len() as u64).unwrap_or(0);
            return self.canaries[at].clone();
        }
        format!("e{}-d{:02}", number % self.edges, number / self.edges % self.devices)
    }

    /// MQTT topic of a number. Canaries go to edge 0.
    #[must_use]
    pub fn topic(&self, number: u64) -> String {
        let edge = if number >= CANARIES_FROM { 0 } else { number % self.edges };
        format!("sensors/{}/{edge}/{}", self.name, self.device(number))
    }

    /// Event time of a number, ms since 1970.
    #[must_use]
    pub fn time_ms(&self, number: u64) -> i64 {
        // Canaries have devices, and so watermarks, of their own.
        let n = if number >= CANARIES_FROM { number - CANARIES_FROM } else { number };
        self.base_ms + (n.saturating_mul(self.step_us) / 1000).cast_signed()
    }

    /// Its value `x`.
    #[must_use]
    pub fn measured(&self, number: u64) -> f64 {
        f64::from(measured(number)) / 100.0
    }

    /// The message of a number.
    #[must_use]
    pub fn payload(&self, number: u64) -> Vec<u8> {
        let (device, x) = (self.device(number), self.measured(number));
        let time = if self.timed { format!(r#""ts":{},"#, self.time_ms(number)) } else { String::new() };
        format!(
            r#"{{"device":"{device}",{time}"values":{{"n":{number},"x":{x},"on":{}}},"tags":{{"run":"{}","id":"{number}"}}}}"#,
            number.is_multiple_of(3),
            self.name
        )
        .into_bytes()
    }

    /// The number of a reading as the edge sent it; `Ok(None)`: of another run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn number_of(&self, value: &[u8]) -> Result<Option<u64>, String> {
        let shown = || String::from_utf8_lossy(&value[..value.len().min(200)]).into_owned();
        let json: Value =
            serde_json::from_slice(value).map_err(|e| format!("not JSON ({e}): {}", shown()))?;
        if json["tags"]["run"] != self.name.as_str() {
            return Ok(None);
        }
        let number = json["tags"]["id"].as_str().and_then(|id| id.parse().ok());
        let Some(number) = number.filter(|&n| self.is_issued(n)) else {
            return Err(format!("never published: {}", shown()));
        };
        let x = self.measured(number);
        let same = json["device"] == self.device(number).as_str()
            && json["time"].as_i64().is_some_and(|time| self.is_time_of(number, time))
            && json["values"]["n"] == number
            && json["values"]["x"].as_f64().is_some_and(|found| (found - x).abs() < f64::EPSILON)
            && json["values"]["on"] == number.is_multiple_of(3)
            && json["values"].as_object().is_some_and(|values| values.len() == 3);
        if same {
            Ok(Some(number))
        } else {
            Err(format!("says something else than what was published: {}", shown()))
        }
    }

    fn is_time_of(&self, number: u64, time_ms: i64) -> bool {
        // Without a time of its own a reading has that of its arrival: soon after it was published.
        let late = if number >= CANARIES_FROM { CANARY_LATE_MS } else { LATE_MS };
        let (least, most) = if self.timed { (0, 0) } else { (-LATE_MS, late) };
        (least..=most).contains(&(time_ms - self.time_ms(number)))
    }

    fn is_issued(&self, number: u64) -> bool {
        match number.checked_sub(CANARIES_FROM) {
            Some(canary) => canary < self.canaries_issued.load(Ordering::Relaxed),
            None => number < self.issued(),
        }
    }
}

/// The number that a message of the run carries, without parsing all of it.
#[must_use]
pub fn number_in(message: &[u8]) -> Option<u64> {
    const MARK: &[u8] = br#""id":""#;
    let at = message.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let digits: &[u8] = &message[at..];
    let end = digits.iter().position(|b| !b.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Between 0 and 99,999: well-spread bits of the number.
fn measured(number: u64) -> u32 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 31)) % 100_000) as u32
}

/// One device name for each partition.
fn canaries(run: &str, partitions: i32) -> Vec<String> {
    (0..partitions)
        .map(|partition| {
            let name = |k: u32| format!("canary-{run}-{k}");
            (0..).map(name).find(|name| wire::partition_of(name.as_bytes(), partitions) == partition)
        })
        .map(|found| found.expect("the partitioner reaches every partition"))
        .collect()
}
