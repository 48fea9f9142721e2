//! Which rights a MySQL or MariaDB user has, as far as `SHOW GRANTS` shows them. Pure.
//!
//! Comes in: the lines of `SHOW GRANTS`. Goes out: the wanted rights that no line gives; nothing when a line names a role,
//! whose rights are not shown.

/// Which of `wanted` no line gives for a table of `database`; rights of the whole server are asked with `None`.
pub(super) fn missing<'w>(lines: &[String], database: Option<&str>, wanted: &[&'w str]) -> Vec<&'w str> {
    let given: Vec<Given<'_>> = lines.iter().filter_map(|line| read(line)).collect();
    if given.len() < lines.len() {
        return Vec::new();
    }
    let gives = |right: &str| {
        given.iter().any(|given| {
            let everywhere = given.place == "*.*";
            let here = database.is_some_and(|database| is_within(given.place, database));
            let all = given.rights.iter().any(|r| r.starts_with("ALL PRIVILEGES") || r == "ALL");
            (everywhere || here) && (all || given.rights.iter().any(|r| is_same(r, right)))
        })
    };
    wanted.iter().copied().filter(|right| !gives(right)).collect()
}

struct Given<'a> {
    rights: Vec<String>,
    place: &'a str,
}

/// `GRANT SELECT, INSERT ON `weir`.* TO …`; `None` for a role, or what is not understood.
fn read(line: &str) -> Option<Given<'_>> {
    let rest = line.strip_prefix("GRANT ")?;
    let (rights, rest) = rest.split_once(" ON ")?;
    let (place, _) = rest.split_once(" TO ")?;
    // Rights on single columns keep only the word.
    let words =
        rights.split(',').map(|right| right.split('(').next().unwrap_or_default().trim().to_uppercase());
    Some(Given { rights: words.collect(), place })
}

/// `weir`.*, or one of its tables: which one is left to the server. Patterns as in LIKE are taken as fitting.
fn is_within(place: &str, database: &str) -> bool {
    let name = place.split('.').next().unwrap_or_default().trim_matches('`').replace("\\_", "_");
    name == database || name.contains('%')
}

/// MariaDB 10.5 gave one of them another name.
fn is_same(given: &str, wanted: &str) -> bool {
    let name = |right: &str| match right {
        "BINLOG MONITOR" => "REPLICATION CLIENT".to_owned(),
        "REPLICATION REPLICA" => "REPLICATION SLAVE".to_owned(),
        other => other.to_owned(),
    };
    name(given) == name(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [&str; 2] = ["SELECT", "REPLICATION CLIENT"];

    fn of(lines: &[&str], database: Option<&str>) -> Vec<&'static str> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        missing(&lines, database, &WANTED)
    }

    #[test]
    fn rights_count_where_they_hold() {
        let usage = "GRANT USAGE ON *.* TO `weir`@`%` IDENTIFIED BY PASSWORD '*A'";
        assert_eq!(of(&[usage], Some("weir")), WANTED);
        assert_eq!(of(&["GRANT ALL PRIVILEGES ON *.* TO `weir`@`%` WITH GRANT OPTION"], None), [""; 0]);
        assert_eq!(of(&[usage, "GRANT ALL PRIVILEGES ON `weir`.* TO `weir`@`%`"], Some("weir")), [""; 0]);
        assert_eq!(of(&[usage, "GRANT ALL PRIVILEGES ON `weir`.* TO `weir`@`%`"], None), WANTED);
        assert_eq!(of(&[usage, "GRANT ALL PRIVILEGES ON `other`.* TO `weir`@`%`"], Some("weir")), WANTED);
        let some = "GRANT SELECT, BINLOG MONITOR ON *.* TO `weir`@`%`";
        assert_eq!(of(&[some], None), [""; 0]);
        assert_eq!(
            of(&["GRANT SELECT (`a`), INSERT ON `my\\_db`.`t` TO `w`@`%`"], Some("my_db")),
            ["REPLICATION CLIENT"]
        );
    }

    #[test]
    fn a_role_hides_its_rights() {
        assert_eq!(of(&["GRANT `writer` TO `weir`@`%`", "GRANT USAGE ON *.* TO `weir`@`%`"], None), [""; 0]);
    }
}
