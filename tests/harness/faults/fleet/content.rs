//! What the records of the fleet say. Pure: an id gives the same bytes again.

use weir_shared::record::StreamId;

/// Event time of the record with id 0; each later one is 1 ms later.
const FIRST_MS: u64 = 1_790_000_000_000;

/// What readings look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// As always.
    #[default]
    Plain,
    /// With members that nobody knew before, nested too.
    NewMembers,
    /// A value that was a number is a text.
    OtherType,
    /// A name of a value that Elasticsearch cannot map beside another.
    Unmappable,
    /// A value that no reading may have.
    Broken,
}

/// What the rules of the suite make of readings, by their tag `line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Passed on as it is.
    Kept,
    /// Passed on with a value more.
    Changed,
    /// Dropped.
    Dropped,
}

/// Readings are of so many lines.
const LINES: u64 = 7;

/// Whether a rule of the suite sends the reading with this id to one store only.
#[must_use]
pub const fn is_routed(id: u64) -> bool {
    id % LINES == 2
}

/// Event time of the reading with this id, ms since 1970.
#[must_use]
pub const fn time_of(id: u64) -> u64 {
    FIRST_MS + id
}

/// What becomes of the reading with this id.
pub(super) fn fate(id: u64) -> Fate {
    match id % LINES {
        6 => Fate::Dropped,
        3 => Fate::Changed,
        _ => Fate::Kept,
    }
}

/// Rules that make it so, however often they change: id, kind, spec of a generation. `six` stays the same, so that it
/// need not be known under which rules a reading was dropped.
#[must_use]
pub fn rules(generation: u64) -> [(&'static str, &'static str, String); 4] {
    let (above, store) =
        (80 + generation % 15, ["mysql", "clickhouse"][usize::from(generation.is_multiple_of(2))]);
    [
        ("six", "filter", "{\"drop\":\"tags.line == '6'\"}".to_owned()),
        (
            "three",
            "derive",
            format!("{{\"when\":\"tags.line == '3'\",\"set\":{{\"more\":\"values.n + {generation}.0\"}}}}"),
        ),
        (
            "hot",
            "threshold",
            format!("{{\"value\":\"values.n\",\"above\":{above},\"clear_below\":30,\"severity\":\"high\"}}"),
        ),
        ("where", "route", format!("{{\"when\":\"tags.line == '2'\",\"stores\":[\"{store}\"]}}")),
    ]
}

/// Name of a device.
#[must_use]
pub fn device(number: u64) -> String {
    format!("d-{number:05}")
}

pub(super) fn reading(id: u64, device: &str, shape: Shape) -> String {
    let (time, degrees) = (time_of(id), id % 1000);
    let (value, more) = match shape {
        Shape::Plain => (format!("{}.{}", degrees / 10, degrees % 10), ""),
        Shape::NewMembers => {
            (format!("{degrees}"), ",\"firmware\":\"7.1\",\"diagnostics\":{\"a\":[1,{\"b\":null}],\"ä\":2e3}")
        }
        Shape::OtherType => (format!("\"{degrees} C\""), ""),
        Shape::Unmappable => (format!("{degrees},\"t.x\":1"), ""),
        Shape::Broken => ("{\"celsius\":20}".to_owned(), ""),
    };
    format!(
        "{{\"device\":\"{device}\",\"time\":{time},\"values\":{{\"t\":{value},\"on\":{},\"mode\":\"auto\",\"n\":{}.5}},\
         \"tags\":{{\"line\":\"{}\",\"id\":\"{id}\"}},\"received\":{time},\"clock\":\"trusted\"{more}}}",
        id.is_multiple_of(2),
        id * 7 % 100,
        id % LINES,
    )
}

pub(super) fn poison(id: u64) -> String {
    match id % 4 {
        0 => format!("{{\"device\":\"d\",\"time\":{id}"),
        1 => format!("[{id}]"),
        2 => format!("{{\"time\":{id},\"values\":{{}}}}"),
        _ => format!("not JSON {id}"),
    }
}

pub(super) fn rejection(id: u64) -> String {
    format!(
        "{{\"stage\":\"edge.decode\",\"reason\":\"not_json\",\"detail\":\"line 1\",\"source\":\"mqtt\",\
         \"topic\":\"sensors/{}\",\"received\":{},\"bytes\":3,\"raw\":\"AAAA\",\"id\":\"{id}\"}}",
        id % 9,
        FIRST_MS + id
    )
}

pub(super) fn window(id: u64, device: &str) -> String {
    // A window of its own for each: two results of one revision would be one thing with two contents.
    let start = FIRST_MS + id * 10;
    format!(
        "{{\"rule\":\"avg-10s\",\"key\":{{\"device\":\"{device}\"}},\"start\":{start},\"end\":{},\"revision\":0,\
         \"count\":{},\"values\":{{\"t\":{{\"mean\":{}.5}}}},\"id\":\"{id}\"}}",
        start + 10_000,
        id % 50 + 1,
        id % 90
    )
}

pub(super) fn gap(
    id: u64,
    edge: &str,
    stream: StreamId,
    topic: &str,
    partition: i32,
    range: (u64, u64),
) -> String {
    let time = FIRST_MS + id;
    format!(
        "{{\"edge\":\"{edge}\",\"reason\":\"dropped\",\"stream\":\"{stream}\",\"topic\":\"{topic}\",\
         \"partition\":{partition},\"from\":{},\"to\":{},\"count\":{},\"time_from\":{time},\"time_to\":{time},\
         \"noticed\":{time},\"id\":\"{id}\"}}",
        range.0,
        range.1,
        range.1 - range.0 + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::run::number_in;

    #[test]
    fn records_are_json_and_carry_their_id() {
        for shape in [Shape::Plain, Shape::NewMembers, Shape::OtherType, Shape::Broken] {
            let text = reading(4711, "d-1", shape);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((json["device"].as_str(), number_in(text.as_bytes())), (Some("d-1"), Some(4711)));
        }
        let gap = gap(5, "gw", StreamId([1; 16]), "weir.readings", 2, (7, 9));
        for text in [rejection(5), window(5, "d"), gap] {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((json["id"].as_str(), number_in(text.as_bytes())), (Some("5"), Some(5)));
        }
    }
}
