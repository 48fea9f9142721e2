CREATE VIEW accepted AS
SELECT * FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY stream_id, stream_partition, number ORDER BY seen ASC) AS n
  FROM (
    SELECT *, CAST(headers['stream'] AS STRING) AS stream_id, CAST(CAST(headers['number'] AS STRING) AS BIGINT) AS number
    FROM readings
  )
) WHERE n = 1;

