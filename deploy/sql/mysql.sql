-- Tables of the MySQL / MariaDB sink, made by `weir-cloud init`. Statements end with a semicolon at the end of a line.
-- Rows come exactly once, in one transaction with weir_progress: with plain INSERT, so that a double would be seen; only
-- in weir_aggregates does a higher revision replace a lower one.

-- One row per reading. Its identity is (stream, stream_partition, number). Times are UTC.
-- rules: the rule set that was in force.
CREATE TABLE IF NOT EXISTS weir_readings (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  stream BINARY(16) NOT NULL,
  stream_partition INT NOT NULL,
  number BIGINT UNSIGNED NOT NULL,
  edge VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  device VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  time DATETIME(3) NOT NULL,
  received DATETIME(3) NOT NULL,
  clock VARCHAR(16) CHARACTER SET utf8mb4 NOT NULL,
  `values` JSON NOT NULL,
  tags JSON NOT NULL,
  dims JSON NOT NULL,
  versions JSON NOT NULL,
  joined BOOLEAN NOT NULL,
  rules BIGINT UNSIGNED NULL,
  PRIMARY KEY (id),
  KEY device_time (device, time)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- For tables that were made before there were rules; where the column is there, `init` leaves it out.
ALTER TABLE weir_readings ADD COLUMN rules BIGINT UNSIGNED NULL;

-- One row per dead letter. stream, stream_partition and number are NULL when the record was too broken to have them.
-- origin is the Kafka topic in which it stood, source_topic the one at its source (MQTT); raw may be cut short.
CREATE TABLE IF NOT EXISTS weir_rejected (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  stream BINARY(16) NULL,
  stream_partition INT NULL,
  number BIGINT UNSIGNED NULL,
  edge VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  origin VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  origin_offset BIGINT NULL,
  stage VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  reason VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  detail TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  source VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  source_topic TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  received DATETIME(3) NOT NULL,
  bytes BIGINT UNSIGNED NOT NULL,
  raw MEDIUMBLOB NOT NULL,
  PRIMARY KEY (id),
  KEY received (received)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- One row per window result: the highest revision that came. id is a hash of what it is (edge, rule, key, start, end and
-- part); edge, stream and number are those of the record that carried this revision. `key`, `values`, dims are JSON.
CREATE TABLE IF NOT EXISTS weir_aggregates (
  id BINARY(16) NOT NULL,
  stream BINARY(16) NOT NULL,
  stream_partition INT NOT NULL,
  number BIGINT UNSIGNED NOT NULL,
  edge VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  rule VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  part BIGINT UNSIGNED NULL,
  `key` JSON NOT NULL,
  device VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `start` DATETIME(3) NOT NULL,
  `end` DATETIME(3) NOT NULL,
  revision BIGINT UNSIGNED NOT NULL,
  `count` BIGINT UNSIGNED NOT NULL,
  `values` JSON NOT NULL,
  completeness DOUBLE NULL,
  incomplete VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  dims JSON NOT NULL,
  versions JSON NOT NULL,
  joined BOOLEAN NOT NULL,
  PRIMARY KEY (`start`, id),
  KEY rule_device_start (rule(100), device(100), `start`)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- One row per loss: numbers that will not come. lost_…: which, where that is known. stream and number are those of the
-- edge's record; NULL when the cloud found it, then origin, stream_partition and origin_offset say at which record.
CREATE TABLE IF NOT EXISTS weir_losses (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  stream BINARY(16) NULL,
  stream_partition INT NULL,
  number BIGINT UNSIGNED NULL,
  edge VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  origin VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  origin_offset BIGINT NULL,
  reason VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  lost_stream BINARY(16) NULL,
  lost_topic VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  lost_partition INT NULL,
  lost_from BIGINT UNSIGNED NULL,
  lost_to BIGINT UNSIGNED NULL,
  lost_count BIGINT UNSIGNED NULL,
  time_from DATETIME(3) NULL,
  time_to DATETIME(3) NULL,
  noticed DATETIME(3) NOT NULL,
  PRIMARY KEY (id),
  KEY noticed (noticed)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- One row per alert. What it is: rule, rule_version, `key`, episode_…, kind and `repeat`. stream, stream_partition and
-- number are those of the reading that made it, episode_… of the one that began the episode.
CREATE TABLE IF NOT EXISTS weir_alerts (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  stream BINARY(16) NOT NULL,
  stream_partition INT NOT NULL,
  number BIGINT UNSIGNED NOT NULL,
  edge VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  rules BIGINT UNSIGNED NOT NULL,
  versions JSON NOT NULL,
  rule VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  rule_version BIGINT UNSIGNED NOT NULL,
  kind VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `repeat` BIGINT UNSIGNED NOT NULL,
  severity VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `key` TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  device VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  episode_stream BINARY(16) NOT NULL,
  episode_partition INT NOT NULL,
  episode_number BIGINT UNSIGNED NOT NULL,
  since DATETIME(3) NOT NULL,
  time DATETIME(3) NOT NULL,
  received DATETIME(3) NOT NULL,
  value DOUBLE NULL,
  `limit` DOUBLE NULL,
  message TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `values` JSON NOT NULL,
  tags JSON NOT NULL,
  dims JSON NOT NULL,
  PRIMARY KEY (id),
  KEY rule_time (rule, time),
  KEY device_time (device, time)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- How far the sink is, per Kafka partition: changed in the same transaction as the rows, and only by the connection
-- that holds the claim (owner_epoch). topic_id: a topic that was deleted and made again has another, and is refused.
CREATE TABLE IF NOT EXISTS weir_progress (
  sink VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  topic VARCHAR(249) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  topic_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  `partition` INT NOT NULL,
  next_offset BIGINT NOT NULL,
  owner_epoch BIGINT NOT NULL,
  connection_id BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (sink, topic, `partition`)
) ENGINE=InnoDB;
