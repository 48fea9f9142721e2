-- Tables of the ClickHouse sink, made by `weir-cloud init` in the configured database.
-- Rows are written once: the sink plans each insert before it sends it, and asks what arrived when in doubt.
-- Needed for that: _weir_topic, _weir_partition, _weir_offset (where the row stood in Kafka) and a deduplication window.
-- On a server before 21.12 `init` takes older types of the same bytes (`weir-cloud init --dry-run` prints the statements).
-- fsync_after_insert: Kafka forgets a record only after its row is on the disk.

-- One row per reading. Its identity is (stream, stream_partition, number); hex(stream) is its text form.
-- Values by type: integers holds only those that a Float64 cannot hold exactly. dims and versions are JSON.
-- rules: the rule set that was in force, or 0.
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
  `rules` UInt64,
  `_weir_topic` LowCardinality(String),
  `_weir_partition` Int32,
  `_weir_offset` Int64,
  INDEX weir_position (_weir_partition, _weir_offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (device, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- For tables that were made before there were rules.
ALTER TABLE weir_readings ADD COLUMN IF NOT EXISTS `rules` UInt64 AFTER `joined`;

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

-- One row per revision of a window result; weir_aggregates_latest shows the highest of each. key, values, dims and versions
-- are JSON.
CREATE TABLE IF NOT EXISTS weir_aggregates (
  `stream` FixedString(16),
  `stream_partition` Int32,
  `number` UInt64,
  `edge` LowCardinality(String),
  `rule` LowCardinality(String),
  `part` Nullable(UInt64),
  `key` String,
  `device` LowCardinality(String),
  `start` DateTime64(3, 'UTC'),
  `end` DateTime64(3, 'UTC'),
  `revision` UInt64,
  `count` UInt64,
  `values` String,
  `completeness` Nullable(Float64),
  `incomplete` LowCardinality(String),
  `dims` String,
  `versions` String,
  `joined` Bool,
  `_weir_topic` LowCardinality(String),
  `_weir_partition` Int32,
  `_weir_offset` Int64,
  INDEX weir_position (_weir_partition, _weir_offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (rule, device, start)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Of each window result the highest revision; any of equal ones. A tuple, because argMax of a column
-- alone passes over NULL.
CREATE VIEW IF NOT EXISTS weir_aggregates_latest AS
SELECT
  `edge`, `rule`, `key`, `start`, `end`, `part`,
  tupleElement(latest, 1) AS `stream`,
  tupleElement(latest, 2) AS `stream_partition`,
  tupleElement(latest, 3) AS `number`,
  tupleElement(latest, 4) AS `device`,
  tupleElement(latest, 5) AS `revision`,
  tupleElement(latest, 6) AS `count`,
  tupleElement(latest, 7) AS `values`,
  tupleElement(latest, 8) AS `completeness`,
  tupleElement(latest, 9) AS `incomplete`,
  tupleElement(latest, 10) AS `dims`,
  tupleElement(latest, 11) AS `versions`,
  tupleElement(latest, 12) AS `joined`
FROM (
  SELECT
    `edge`, `rule`, `key`, `start`, `end`, `part`,
    argMax(
      tuple(`stream`, `stream_partition`, `number`, `device`, `revision`, `count`, `values`,
        `completeness`, `incomplete`, `dims`, `versions`, `joined`),
      tuple(`revision`, -`_weir_offset`)
    ) AS latest
  FROM weir_aggregates
  GROUP BY `edge`, `rule`, `key`, `start`, `end`, `part`
);

-- One row per loss: numbers that will not come. lost_…: which, where that is known. stream and number are those of the
-- edge's record; NULL when the cloud found it, then origin, stream_partition and origin_offset say at which record.
CREATE TABLE IF NOT EXISTS weir_losses (
  `stream` Nullable(FixedString(16)),
  `stream_partition` Nullable(Int32),
  `number` Nullable(UInt64),
  `edge` LowCardinality(String),
  `origin` LowCardinality(String),
  `origin_offset` Nullable(Int64),
  `reason` LowCardinality(String),
  `lost_stream` Nullable(FixedString(16)),
  `lost_topic` LowCardinality(String),
  `lost_partition` Nullable(Int32),
  `lost_from` Nullable(UInt64),
  `lost_to` Nullable(UInt64),
  `lost_count` Nullable(UInt64),
  `time_from` Nullable(DateTime64(3, 'UTC')),
  `time_to` Nullable(DateTime64(3, 'UTC')),
  `noticed` DateTime64(3, 'UTC'),
  `_weir_topic` LowCardinality(String),
  `_weir_partition` Int32,
  `_weir_offset` Int64,
  INDEX weir_position (_weir_partition, _weir_offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(noticed)
ORDER BY (edge, noticed)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row per alert. What it is: rule, rule_version, key, episode_…, kind and repeat. stream, stream_partition and
-- number are those of the reading that made it, episode_… of the one that began the episode.
CREATE TABLE IF NOT EXISTS weir_alerts (
  `stream` FixedString(16),
  `stream_partition` Int32,
  `number` UInt64,
  `edge` LowCardinality(String),
  `rules` UInt64,
  `versions` String,
  `rule` LowCardinality(String),
  `rule_version` UInt64,
  `kind` LowCardinality(String),
  `repeat` UInt64,
  `severity` LowCardinality(String),
  `key` String,
  `device` LowCardinality(String),
  `episode_stream` FixedString(16),
  `episode_partition` Int32,
  `episode_number` UInt64,
  `since` DateTime64(3, 'UTC'),
  `time` DateTime64(3, 'UTC'),
  `received` DateTime64(3, 'UTC'),
  `value` Nullable(Float64),
  `limit` Nullable(Float64),
  `message` String,
  `values` String,
  `tags` String,
  `dims` String,
  `_weir_topic` LowCardinality(String),
  `_weir_partition` Int32,
  `_weir_offset` Int64,
  INDEX weir_position (_weir_partition, _weir_offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (rule, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
