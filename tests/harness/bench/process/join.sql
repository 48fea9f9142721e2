INSERT INTO enriched
SELECT
  ROW(r.stream_partition, r.number, d.device IS NOT NULL),
  ROW(ROW(d.site, d.line, d.area_m2, d.commissioned)),
  r.device, r.`time`, r.`values`, r.tags, r.received, r.`clock`{derived}
FROM accepted AS r
LEFT JOIN devices FOR SYSTEM_TIME AS OF r.seen AS d ON r.device = d.device{kept};
