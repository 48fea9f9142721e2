-- Rights of the user that MYSQL_USER makes, and the dimension table.
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'weir'@'%';
CREATE TABLE IF NOT EXISTS weir.devices (
    device VARCHAR(190) NOT NULL PRIMARY KEY,
    name VARCHAR(200),
    site VARCHAR(200)
);
INSERT IGNORE INTO weir.devices VALUES ('pump-1', 'Pump 1', 'Graz');
