-- The peer's job into Elasticsearch, in Flink SQL. {…} is filled in by the benchmark.

CREATE TABLE enriched (
  weir ROW<`stream` STRING, `partition` INT, number BIGINT, edge STRING, joined BOOLEAN, versions ROW<devices BIGINT>>,
  dims ROW<devices ROW<site STRING, line INT, area_m2 DOUBLE, commissioned STRING>>,
  device STRING,
  `time` BIGINT,
  `values` ROW<t DOUBLE, p DOUBLE, rpm INT, `on` BOOLEAN>,
  tags ROW<line STRING, plant STRING>,
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
  `partition` INT,
  number BIGINT,
  weir ROW<edge STRING, joined BOOLEAN, versions ROW<devices BIGINT>>,
  dims ROW<devices ROW<site STRING, line INT, area_m2 DOUBLE, commissioned STRING>>,
  device STRING,
  `time` BIGINT,
  `values` ROW<t DOUBLE, p DOUBLE, rpm INT, `on` BOOLEAN>,
  tags ROW<line STRING, plant STRING>,
  received BIGINT,
  `clock` STRING,
  PRIMARY KEY (`stream`, `partition`, number) NOT ENFORCED
) WITH (
  'connector' = 'elasticsearch-7',
  'hosts' = '{hosts}',
  'index' = '{index}',
  'sink.bulk-flush.max-actions' = '5000',
  'sink.bulk-flush.max-size' = '8mb',
  'sink.bulk-flush.interval' = '1 s',
  'format' = 'json'
);

INSERT INTO stored
SELECT
  e.weir.`stream`, e.weir.`partition`, e.weir.number, ROW(e.weir.edge, e.weir.joined, e.weir.versions), e.dims,
  e.device, e.`time`, e.`values`, e.tags, e.received, e.`clock`
FROM enriched AS e;
