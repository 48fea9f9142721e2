//! Window results of the edges: checked, joined, passed on.
//!
//! Comes in: a record of `weir.windows`. Goes out: one of `weir.aggregates`.
//! Guarantees: what passes has the members that every store needs; masks are laid on it without asking for their
//! conditions, since those are about readings: a masked value has no aggregates, a masked key is shown masked.
//! On failure: a refusal, the reason of the dead letter.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use weir_shared::reading::Reading;
use weir_shared::reading::strict::{self, Refusal};
use weir_shared::record::{DEVICE_BYTES_MAX, TIME_MS_MAX, TIME_MS_MIN};
use weir_shared::wire;

use super::{Cycle, Emit, Incoming, Outgoing, Refused, Whose, fits, short};
use crate::process::outputs::{self, Joined};
use crate::rules::{Masks, write_dims};

impl Cycle<'_> {
    pub(super) fn aggregate(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        body: &[u8],
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        strict::object(body, &["weir", "dims"])?;
        let window: Window<'_> =
            serde_json::from_slice(body).map_err(|e| outputs::unreadable("not_a_window", &e))?;
        window.check()?;
        let device = window.key.get("device").map_or("", |device| &**device);
        let tags = window.key.iter().filter(|(name, _)| *name != "device");
        let reading = Reading {
            device: device.into(),
            time: window.end,
            tags: tags.map(|(name, text)| (name.as_str().into(), text.as_str().into())).collect(),
            ..Reading::default()
        };
        let joined = self.world.tables.join(&reading, &mut self.engine.dims, &mut self.found);
        let masks = self.world.rules.set.masks(&self.engine.all_masks);
        let (mut dims, mut text, mut key) = (&self.engine.dims, Cow::Borrowed(body), short(record.key));
        if !masks.is_empty() {
            write_dims(&mut self.engine.masked_dims, dims, masks)?;
            dims = &self.engine.masked_dims;
            text = Cow::Owned(masked(body, masks)?);
            // It is made of the parts of the window's key.
            key = None;
        }
        let joined = Joined {
            joined,
            rules: self.world.rules.number,
            stores: None,
            versions: self.world.tables.versions(),
            dims,
        };
        outputs::enriched(&mut self.engine.value, whose, &joined, &text);
        fits(&self.engine.value)?;
        Ok(emit.emit(Outgoing { topic: wire::AGGREGATES, key, value: &self.engine.value })?)
    }
}

/// The window result as it may be shown.
fn masked(body: &[u8], masks: Masks<'_>) -> Result<Vec<u8>, Refusal> {
    let wrong = |e: serde_json::Error| outputs::unreadable("not_a_window", &e);
    let mut whole: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(wrong)?;
    if let Some(values) = whole.get_mut("values").and_then(serde_json::Value::as_object_mut) {
        values.retain(|name, _| !masks.hides_value(name));
    }
    if let Some(key) = whole.get_mut("key").and_then(serde_json::Value::as_object_mut) {
        for (name, part) in key {
            let hidden = match part.as_str() {
                Some(text) if name == "device" => masks.device(text),
                Some(text) => masks.tag_text(name, text),
                None => None,
            };
            if let Some(hidden) = hidden {
                *part = hidden.into();
            }
        }
    }
    serde_json::to_vec(&whole).map_err(wrong)
}

/// What every store needs of a window result, see [`wire`].
#[derive(Deserialize)]
struct Window<'a> {
    #[serde(borrow)]
    rule: Cow<'a, str>,
    key: BTreeMap<String, String>,
    start: i64,
    end: i64,
    #[serde(rename = "revision")]
    _revision: u64,
    #[serde(rename = "count")]
    _count: u64,
    #[serde(rename = "values")]
    _values: serde_json::Map<String, serde_json::Value>,
}

impl Window<'_> {
    fn check(&self) -> Result<(), Refusal> {
        let texts = self.key.values().map(String::as_str).chain([&*self.rule]);
        if let Some(text) =
            texts.into_iter().find(|text| text.len() > DEVICE_BYTES_MAX || text.contains('\0'))
        {
            let detail = format!("a name of {} bytes, or with a NUL character", text.len());
            return Err(Refusal::new("window_name", detail));
        }
        let times = TIME_MS_MIN..=TIME_MS_MAX;
        if !times.contains(&self.start) || !times.contains(&self.end) || self.start > self.end {
            let detail = format!("a window from {} to {}", self.start, self.end);
            return Err(Refusal::new("window_out_of_range", detail));
        }
        Ok(())
    }
}
