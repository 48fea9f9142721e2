-- The peer's job into MySQL, in Flink SQL. {…} is filled in by the benchmark.
-- An object whose column is a STRING comes as its JSON: nothing has to be written anew. Times
-- are texts because the driver of MySQL cuts off the milliseconds for MariaDB, which it takes for MySQL 5.5.

CREATE TABLE enriched (
  weir ROW<`stream` STRING, `partition` INT, number BIGINT, edge STRING, joined BOOLEAN, versions STRING, rules BIGINT>,
  dims STRING,
  device STRING,
  `time` BIGINT,
  `values` STRING,
  tags STRING,
  received BIGINT,
  `clock` STRING
) WITH (
  'connector' = 'kafka',
  'topic' = '{input}',
  'properties.bootstrap.servers' = '{brokers}',
  'properties.isolation.level' = 'read_committed',
  'properties.group.id' = 'flink',
  'scan.startup.mode' = 'specific-offsets',
  'scan.startup.specific-offsets' = '{offsets}',
  'format' = 'json'
);

CREATE TABLE stored (
  `stream` STRING,
  stream_partition INT,
  number BIGINT,
  edge STRING,
  device STRING,
  `time` STRING,
  received STRING,
  `clock` STRING,
  `values` STRING,
  tags STRING,
  dims STRING,
  versions STRING,
  joined BOOLEAN,
  rules BIGINT,
  PRIMARY KEY (`stream`, stream_partition, number) NOT ENFORCED
) WITH (
  'connector' = 'jdbc',
  'url' = '{jdbc}',
  'driver' = '{driver}',
  'username' = '{user}',
  'password' = '{password}',
  'table-name' = '{table}',
  'sink.buffer-flush.max-rows' = '5000',
  'sink.buffer-flush.interval' = '1 s'
);

INSERT INTO stored
SELECT
  e.weir.`stream`, e.weir.`partition`, e.weir.number, e.weir.edge, e.device,
  CAST(TO_TIMESTAMP_LTZ(e.`time`, 3) AS STRING), CAST(TO_TIMESTAMP_LTZ(e.received, 3) AS STRING),
  e.`clock`, e.`values`, e.tags, e.dims, e.weir.versions, e.weir.joined, e.weir.rules
FROM enriched AS e;
