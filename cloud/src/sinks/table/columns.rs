//! The columns of each table, in the order of `deploy/sql`. Names and kinds stand in stores: they never change.

use super::Absent::{Empty, Null, Refused};
use super::Kind::{Base64, Flag, Float64, Int32, Int64, Name, Object, Stream, Text, Time, UInt64};
use super::{Absent, Column, Kind, Table};

const fn column(name: &'static str, member: &'static str, kind: Kind, absent: Absent) -> Column {
    Column { name, member, kind, absent }
}

/// Dead letters: stream and number are NULL when the record was too broken to have them.
pub(super) static REJECTED: Table = Table {
    name: "weir_rejected",
    columns: &[
        column("stream", "weir.stream", Stream, Null),
        column("stream_partition", "weir.partition", Int32, Null),
        column("number", "weir.number", UInt64, Null),
        column("edge", "weir.edge", Name, Empty),
        column("origin", "weir.topic", Name, Empty),
        column("origin_offset", "weir.offset", Int64, Null),
        column("stage", "stage", Name, Refused),
        column("reason", "reason", Name, Refused),
        column("detail", "detail", Text, Empty),
        column("source", "source", Name, Empty),
        column("source_topic", "topic", Text, Empty),
        column("received", "received", Time, Refused),
        column("bytes", "bytes", UInt64, Empty),
        column("raw", "raw", Base64, Empty),
    ],
    time: "received",
    identity: &[],
    revision: None,
};

/// Window results. Two edges may have rules of the same name: the edge is part of what a result is.
pub(super) static AGGREGATES: Table = Table {
    name: "weir_aggregates",
    columns: &[
        column("stream", "weir.stream", Stream, Refused),
        column("stream_partition", "weir.partition", Int32, Refused),
        column("number", "weir.number", UInt64, Refused),
        column("edge", "weir.edge", Name, Empty),
        column("rule", "rule", Name, Refused),
        column("part", "part", UInt64, Null),
        column("key", "key", Object, Refused),
        column("device", "key.device", Name, Empty),
        column("start", "start", Time, Refused),
        column("end", "end", Time, Refused),
        column("revision", "revision", UInt64, Refused),
        column("count", "count", UInt64, Empty),
        column("values", "values", Object, Empty),
        column("completeness", "completeness", Float64, Null),
        column("incomplete", "incomplete", Name, Empty),
        column("dims", "dims", Object, Empty),
        column("versions", "weir.versions", Object, Empty),
        column("joined", "weir.joined", Flag, Empty),
    ],
    time: "start",
    identity: &["edge", "rule", "key", "start", "end", "part"],
    revision: Some("revision"),
};

/// What was given up or lost. stream and number are NULL, origin and its offset are not, when the cloud found it.
pub(super) static LOSSES: Table = Table {
    name: "weir_losses",
    columns: &[
        column("stream", "weir.stream", Stream, Null),
        column("stream_partition", "weir.partition", Int32, Null),
        column("number", "weir.number", UInt64, Null),
        column("edge", "edge", Name, Empty),
        column("origin", "weir.topic", Name, Empty),
        column("origin_offset", "weir.offset", Int64, Null),
        column("reason", "reason", Name, Refused),
        column("lost_stream", "stream", Stream, Null),
        column("lost_topic", "topic", Name, Empty),
        column("lost_partition", "partition", Int32, Null),
        column("lost_from", "from", UInt64, Null),
        column("lost_to", "to", UInt64, Null),
        column("lost_count", "count", UInt64, Null),
        column("time_from", "time_from", Time, Null),
        column("time_to", "time_to", Time, Null),
        column("noticed", "noticed", Time, Refused),
    ],
    time: "noticed",
    identity: &[],
    revision: None,
};

/// Alerts; stream, stream_partition and number are those of the reading that made it.
pub(super) static ALERTS: Table = Table {
    name: "weir_alerts",
    columns: &[
        column("stream", "weir.stream", Stream, Refused),
        column("stream_partition", "weir.partition", Int32, Refused),
        column("number", "weir.number", UInt64, Refused),
        column("edge", "weir.edge", Name, Empty),
        column("rules", "weir.rules", UInt64, Empty),
        column("versions", "weir.versions", Object, Empty),
        column("rule", "rule", Name, Refused),
        column("rule_version", "rule_version", UInt64, Refused),
        column("kind", "kind", Name, Refused),
        column("repeat", "repeat", UInt64, Empty),
        column("severity", "severity", Name, Empty),
        column("key", "key", Text, Refused),
        column("device", "device", Name, Empty),
        column("episode_stream", "episode.stream", Stream, Refused),
        column("episode_partition", "episode.partition", Int32, Refused),
        column("episode_number", "episode.number", UInt64, Refused),
        column("since", "since", Time, Refused),
        column("time", "time", Time, Refused),
        column("received", "received", Time, Refused),
        column("value", "value", Float64, Null),
        column("limit", "limit", Float64, Null),
        column("message", "message", Text, Empty),
        column("values", "values", Object, Empty),
        column("tags", "tags", Object, Empty),
        column("dims", "dims", Object, Empty),
    ],
    time: "time",
    identity: &[
        "rule",
        "rule_version",
        "key",
        "episode_stream",
        "episode_partition",
        "episode_number",
        "kind",
        "repeat",
    ],
    revision: None,
};
