//! What the target `reading` does; the test of its corpus does the same.
//!
//! Comes in: any bytes. Checks: no panic; what is taken for a reading is JSON, and says the same.

use weir_shared::reading::Reading;

/// The JSON of `weir.readings`.
pub(super) fn reading(bytes: &[u8]) {
    let mut reading = Reading::default();
    if reading.parse(bytes).is_err() {
        return;
    }
    let json: serde_json::Value = serde_json::from_slice(bytes).expect("a reading is JSON");
    assert_eq!(json["device"], *reading.device);
    assert_eq!(json["time"], reading.time);
    for (name, value) in &reading.values {
        assert!(value.number().is_none_or(f64::is_finite), "{name}");
    }
}
