-- Tables of the MySQL / MariaDB sink, made by `weir-cloud init`. Statements end with a semicolon at the end of a line.
-- Append-only: rows come with plain INSERT, exactly once, in one transaction with weir_progress.

-- One row per reading. Its identity is (stream, stream_partition, number). Times are UTC.
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
  PRIMARY KEY (id),
  KEY device_time (device, time)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

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

-- How far the sink is, per Kafka partition: changed in the same transaction as the rows, and only by the connection
-- that holds the claim (owner_epoch). topic_id stays empty until the client library can ask for it.
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
