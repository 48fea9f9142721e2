//! What the engine gives out.
//!
//! Comes in: window results and late readings, as they come up. Goes out: the same, in that order.
//! Guarantees: one buffer for all texts, kept when it is cleared; the JSON is that of [`crate::wire`].

use std::ops::Range;

use super::form::Form;
use super::schema::Schema;
use super::tally::Tally;

/// One output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// A window result.
    Window {
        /// Its Kafka key: the parts of the window's key with `/` between them; without parts the name of the rule.
        key: &'a str,
        /// Its JSON.
        json: &'a [u8],
    },
    /// The reading that was given last is in no window of this rule: it came too late.
    Late {
        /// The rule.
        rule: &'a str,
        /// Who sent it.
        device: &'a str,
        /// The watermark of its key, ms since 1970.
        watermark: i64,
    },
}

/// What became of readings, each counted once per rule; one that is in none of these entered a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came too late for every window.
    pub late: u64,
    /// The filter was not true.
    pub filtered: u64,
    /// Lacked a tag of the key.
    pub unkeyed: u64,
    /// Were of a new key when there were [`super::Limits::keys_max`].
    pub keys_refused: u64,
    /// Would have opened a window when their key had [`super::Limits::windows_per_key_max`].
    pub windows_refused: u64,
    /// Carried a time outside 1970 to 2262.
    pub times_refused: u64,
    /// **Entered**, but their device does not hold back its key, which has [`super::Limits::devices_per_key_max`].
    pub devices_refused: u64,
    /// Values (not readings) left out, because their key has 500 fields.
    pub fields_refused: u64,
}

#[derive(Debug)]
enum Item {
    Window { key: Range<usize>, json: Range<usize> },
    Late { rule: Range<usize>, device: Range<usize>, watermark: i64 },
}

/// A buffer of outputs.
#[derive(Debug, Default)]
pub struct Outputs {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// Since it was cleared.
    pub counts: Counts,
}

impl Outputs {
    /// Forgets all, keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.counts = Counts::default();
    }

    /// How many outputs there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = Output<'_>> {
        let text = |range: &Range<usize>| {
            std::str::from_utf8(&self.bytes[range.clone()]).expect("it was written from texts")
        };
        self.items.iter().map(move |item| match item {
            Item::Window { key, json } => Output::Window { key: text(key), json: &self.bytes[json.clone()] },
            Item::Late { rule, device, watermark } => {
                Output::Late { rule: text(rule), device: text(device), watermark: *watermark }
            }
        })
    }

    fn put(&mut self, text: &[u8]) -> Range<usize> {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(text);
        begin..self.bytes.len()
    }

    pub(super) fn late(&mut self, rule: &str, device: &str, watermark: i64) {
        self.counts.late += 1;
        let (rule, device) = (self.put(rule.as_bytes()), self.put(device.as_bytes()));
        self.items.push(Item::Late { rule, device, watermark });
    }
}

/// Readings known to be lost.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Why; the number of a reason is its index + 1.
    pub(super) reasons: Vec<Box<str>>,
    /// The clock at the last loss, and its reason: windows that started before may lack readings.
    pub(super) last: Option<(i64, u8)>,
}

impl Losses {
    /// The number of a reason. There are few; past 255 the last one stands for all.
    pub(super) fn reason(&mut self, why: &str) -> u8 {
        let known = self.reasons.iter().position(|r| **r == *why).unwrap_or_else(|| {
            if self.reasons.len() < usize::from(u8::MAX) {
                self.reasons.push(why.into());
            }
            self.reasons.len() - 1
        });
        u8::try_from(known + 1).unwrap_or(u8::MAX)
    }
}

/// Where the results of one key go.
pub(super) struct Emit<'a> {
    pub(super) form: &'a Form,
    pub(super) key: &'a [u8],
    pub(super) schema: &'a Schema,
    pub(super) losses: &'a Losses,
    /// The clock at which the rule began in the midst of things, and that as a reason.
    pub(super) begun: Option<(i64, u8)>,
    pub(super) out: &'a mut Outputs,
}

impl Emit<'_> {
    /// Why a window that starts here and was never sent may lack readings: its own mark, or it starts before its rule
    /// began or before the last loss.
    pub(super) fn why(&self, start: i64, mark: u8) -> u8 {
        let before = |loss: &&(i64, u8)| start <= loss.0;
        let losses = self.begun.iter().chain(&self.losses.last);
        if mark == 0 { losses.filter(before).map(|loss| loss.1).next().unwrap_or(0) } else { mark }
    }

    /// A window result. `why` is the number of the reason why readings are missing.
    pub(super) fn window(&mut self, start: i64, end: i64, revision: u32, why: u8, tally: &Tally) {
        let form = self.form;
        let begin = self.out.bytes.len();
        form.write_kafka_key(self.key, &mut self.out.bytes);
        let key = begin..self.out.bytes.len();
        let out = &mut self.out.bytes;
        form.write_head(self.key, out);
        for (name, number) in [
            (&b"},\"start\":"[..], i128::from(start)),
            (b",\"end\":", i128::from(end)),
            (b",\"revision\":", i128::from(revision)),
            (b",\"count\":", i128::from(tally.readings)),
        ] {
            out.extend_from_slice(name);
            write(out, &number);
        }
        out.extend_from_slice(b",\"values\":{");
        tally.write(&form.plan, self.schema, out);
        out.push(b'}');
        if let Some(completeness) = form.completeness(start, end, tally) {
            out.extend_from_slice(b",\"completeness\":");
            write(out, &completeness);
        }
        if let Some(reason) = usize::from(why).checked_sub(1).and_then(|why| self.losses.reasons.get(why)) {
            out.extend_from_slice(b",\"incomplete\":");
            write(out, &**reason);
        }
        out.push(b'}');
        let json = key.end..out.len();
        self.out.items.push(Item::Window { key, json });
    }
}

/// Writes a number or a text as JSON.
pub(super) fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("numbers and texts into a buffer are always JSON");
}
