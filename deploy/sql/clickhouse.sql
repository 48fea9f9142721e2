-- Tables of the ClickHouse sink, made by `weir-cloud init` in the configured database.
-- Rows are written once: the sink plans each insert before it sends it, and asks what arrived when in doubt.
-- Needed for that: _weir_topic, _weir_partition, _weir_offset (where the row stood in Kafka) and a deduplication window.
-- fsync_after_insert: Kafka forgets a record only after its row is on the disk.

-- One row per reading. Its identity is (stream, stream_partition, number); hex(stream) is its text form.
-- Values by type: integers holds only those that a Float64 cannot hold exactly. dims and versions are JSON.
CREATE TABLE IF NOT EXISTS weir_readings (
  `stream` FixedString(16),
  `stream_partition` Int32,
  `number` UInt64,
  `edge` LowCardinality(String),
  `device` LowCardinality(String),
  `time` DateTime64(3, 'UTC'),
  `received` DateTime64(3, 'UTC'),
  `clock` LowCardinality(String),
  `numbers` Map(LowCardinality(String), Float64),
  `integers` Map(LowCardinality(String), Int64),
  `flags` Map(LowCardinality(String), Bool),
  `texts` Map(LowCardinality(String), String),
  `tags` Map(LowCardinality(String), String),
  `dims` String,
  `versions` String,
  `joined` Bool,
  `_weir_topic` LowCardinality(String),
  `_weir_partition` Int32,
  `_weir_offset` Int64,
  INDEX weir_position (_weir_partition, _weir_offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (device, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row per dead letter. stream and number are NULL when the record was too broken to have them.
-- origin is the Kafka topic in which it stood, source_topic the one at its source (MQTT); raw may be cut short.
CREATE TABLE IF NOT EXISTS weir_rejected (
  `stream` Nullable(FixedString(16)),
  `stream_partition` Nullable(Int32),
  `number` Nullable(UInt64),
  `edge` LowCardinality(String),
  `origin` LowCardinality(String),
  `origin_offset` Nullable(Int64),
  `stage` LowCardinality(String),
  `reason` LowCardinality(String),
  `detail` String,
  `source` LowCardinality(String),
  `source_topic` String,
  `received` DateTime64(3, 'UTC'),
  `bytes` UInt64,
  `raw` String,
  `_weir_topic` LowCardinality(String),
  `_weir_partition` Int32,
  `_weir_offset` Int64,
  INDEX weir_position (_weir_partition, _weir_offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(received)
ORDER BY (stage, reason, received)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
