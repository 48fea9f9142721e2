-- Tables of the rules, made by `weir-cloud init`. Statements end with a semicolon at the end of a line.
-- MariaDB 10.2 and MySQL 5.7.8 or later; a MySQL without the type JSON gets LONGTEXT in its place.
-- effective_at is UTC; all other times are TIMESTAMP, so that they are right whatever the time zone of who writes.

-- Every version of every rule, for ever: rows are added, never changed. A change is a new version.
-- effective_at NULL: as soon as it is made active.
CREATE TABLE IF NOT EXISTS weir_rules (
  id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  version INT UNSIGNED NOT NULL,
  kind VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  spec JSON NOT NULL,
  priority INT NOT NULL DEFAULT 0,
  author VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  note VARCHAR(1000) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  effective_at DATETIME(3) NULL,
  created_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id, version)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- Which version of a rule is wanted; NULL: off. Taking a change back is one UPDATE here.
-- A rule that a process has tripped comes back when its row changes (set changed_at anew, or another version).
CREATE TABLE IF NOT EXISTS weir_rules_active (
  id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  version INT UNSIGNED NULL,
  author VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  note VARCHAR(1000) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  changed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- What `weir-cloud rules` did, in order. Rows are only added.
CREATE TABLE IF NOT EXISTS weir_rules_changes (
  number BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  action VARCHAR(16) CHARACTER SET utf8mb4 NOT NULL,
  id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  version_before INT UNSIGNED NULL,
  version_after INT UNSIGNED NULL,
  author VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL,
  note VARCHAR(1000) CHARACTER SET utf8mb4 NOT NULL DEFAULT '',
  at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (number),
  KEY id (id, number)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- What was in force, and is: written by the processes. `number` stands in every output as "rules". `rules` is
-- [["id",version],…] in the order of ids; `hash` that of their content; `wanted` that of what was asked for when it
-- was decided. Each row names the one before it, so that of many processes only one can add the next.
CREATE TABLE IF NOT EXISTS weir_rules_sets (
  number BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  rules JSON NOT NULL,
  hash CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  wanted CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  previous BIGINT UNSIGNED NOT NULL,
  slot VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  created_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (number),
  UNIQUE KEY previous (previous)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- What each process says of each wanted version: active, waiting (effective_at is to come), refused, tripped.
CREATE TABLE IF NOT EXISTS weir_rules_status (
  id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  slot VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  version INT UNSIGNED NOT NULL,
  state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  reason TEXT CHARACTER SET utf8mb4 NOT NULL,
  since TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id, slot, version),
  KEY slot (slot)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;

-- The processes that follow the rules, with the set each has in force. What a process that was not seen for a
-- while says in weir_rules_status is old.
CREATE TABLE IF NOT EXISTS weir_rules_processes (
  slot VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  number BIGINT UNSIGNED NOT NULL,
  seen_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (slot)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4;
