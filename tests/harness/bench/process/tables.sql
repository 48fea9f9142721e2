-- Tables of the peer, in Flink SQL. {…} is filled in by the benchmark.

CREATE TABLE readings (
  device STRING,
  `time` BIGINT,
  `values` ROW<t DOUBLE, p DOUBLE, rpm INT>,
  tags ROW<line STRING>,
  received BIGINT,
  `clock` STRING,
  stream_partition INT METADATA FROM 'partition' VIRTUAL,
  record_offset BIGINT METADATA FROM 'offset' VIRTUAL,
{headers}  seen AS PROCTIME()
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

CREATE TABLE devices (
  device STRING,
  site STRING,
  line INT,
  area_m2 DECIMAL(8, 2),
  commissioned DATE,
  PRIMARY KEY (device) NOT ENFORCED
) WITH (
  'connector' = 'jdbc',
  'url' = '{jdbc}',
  'driver' = 'org.mariadb.jdbc.Driver',
  'username' = '{user}',
  'password' = '{password}',
  'table-name' = '{table}',
  'lookup.cache' = 'PARTIAL',
  'lookup.partial-cache.max-rows' = '20000'
);

CREATE TABLE enriched (
  weir ROW<`partition` INT, number BIGINT, joined BOOLEAN>,
  dims ROW<devices ROW<site STRING, line INT, area_m2 DECIMAL(8, 2), commissioned DATE>>,
  device STRING,
  `time` BIGINT,
  `values` ROW<t DOUBLE, p DOUBLE, rpm INT>,
  tags ROW<line STRING>,
  received BIGINT,
  `clock` STRING{columns}
) WITH (
  'connector' = 'kafka',
  'topic' = '{output}',
  'properties.bootstrap.servers' = '{brokers}',
  'properties.compression.type' = 'lz4',
  'properties.batch.size' = '524288',
  'properties.linger.ms' = '5',
  'properties.buffer.memory' = '134217728',
  'properties.transaction.timeout.ms' = '600000',
  'key.fields' = 'device',
  'key.format' = 'raw',
  'format' = 'json',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '{output}'
);

