//! Events as a server sends them, one after the other.

use super::*;
use crate::process::join::rows::Kind;

const AT: Position = Position { file: 1, offset: 100 };

/// Table `weir.t (k VARCHAR(20), n INT)`, key `k`.
fn tail() -> Tail {
    let schema = Schema {
        database: "weir".into(),
        table: "t".into(),
        columns: Vec::new(),
        meanings: vec![Meaning::Utf8, Meaning::Integer { unsigned: false }],
    };
    let names = ["k".to_owned(), "n".to_owned()];
    let layout = Layout::new(&[0], &[1], &names, &[Kind::Text, Kind::Integer]);
    Tail::new(vec![Followed::new(schema, vec![(0, layout)])], AT)
}

fn map(id: u8, table: &[u8], types: &[u8], meta: &[u8]) -> Vec<u8> {
    let mut data = vec![id, 0, 0, 0, 0, 0, 1, 0, 4];
    data.extend_from_slice(b"weir\0");
    data.push(u8::try_from(table.len()).unwrap());
    data.extend_from_slice(table);
    data.extend_from_slice(&[0, u8::try_from(types.len()).unwrap()]);
    data.extend_from_slice(types);
    data.push(u8::try_from(meta.len()).unwrap());
    data.extend_from_slice(meta);
    data.push(0);
    data
}

fn ours() -> Vec<u8> {
    map(9, b"t", &[15, 3], &[20, 0])
}

fn image(key: &str, n: i32) -> Vec<u8> {
    let mut image = vec![0, u8::try_from(key.len()).unwrap()];
    image.extend_from_slice(key.as_bytes());
    image.extend_from_slice(&n.to_le_bytes());
    image
}

fn rows(id: u8, bitmaps: &[u8], images: &[Vec<u8>]) -> Vec<u8> {
    let mut data = vec![id, 0, 0, 0, 0, 0, 1, 0, 2];
    data.extend_from_slice(bitmaps);
    data.extend(images.concat());
    data
}

fn query(text: &str) -> Vec<u8> {
    [&[0; 8], &[4, 0, 0, 0, 0][..], b"weir\0", text.as_bytes()].concat()
}

/// Reads events: kind and data; each ends 10 bytes behind the one before.
fn read(tail: &mut Tail, events: &[(u8, Vec<u8>)]) -> Result<(), Reload> {
    for (kind, data) in events {
        let end = u32::try_from(tail.position().offset).unwrap() + 10;
        tail.read(Event { kind: *kind, flags: 0, end, data })?;
    }
    Ok(())
}

fn taken(tail: &mut Tail) -> Vec<String> {
    let shown = tail.take().map(|(_, change)| match change {
        Change::Put(row) => format!("{} {}", text(row.key()), text(row.json())),
        Change::Remove(key) => format!("-{}", text(&key)),
    });
    shown.collect()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn changes_come_with_the_end_of_their_transaction() {
    let mut tail = tail();
    let begin = (2, query("BEGIN"));
    let update = rows(9, &[3, 3], &[image("a", 1), image("b", 2)]);
    read(&mut tail, &[begin.clone(), (19, ours()), (23, rows(9, &[3], &[image("a", 1)])), (24, update)])
        .unwrap();
    assert!(!tail.has_changes());
    assert_eq!(tail.complete(), AT, "a version between two transactions");
    read(&mut tail, &[(16, vec![0; 8])]).unwrap();
    assert_eq!(taken(&mut tail), ["a {\"n\":1}", "-a", "b {\"n\":2}"]);
    assert_eq!(tail.complete(), Position { offset: 150, ..AT });
    // Taken back, and a table that nobody follows.
    let delete = rows(9, &[3], &[image("b", 2)]);
    read(&mut tail, &[begin.clone(), (19, ours()), (25, delete.clone()), (2, query("ROLLBACK"))]).unwrap();
    let other = map(5, b"other", &[200], &[]);
    read(
        &mut tail,
        &[begin.clone(), (19, other), (23, vec![5, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1]), (16, vec![0; 8])],
    )
    .unwrap();
    assert!(!tail.has_changes());
    read(&mut tail, &[begin, (19, ours()), (25, delete), (2, query("COMMIT"))]).unwrap();
    assert_eq!(taken(&mut tail), ["-b"]);
    assert_eq!(tail.take_events().count(), 4);
}

#[test]
fn fails_closed() {
    let transaction = |map: Vec<u8>, kind, rows: Vec<u8>| vec![(2, query("BEGIN")), (19, map), (kind, rows)];
    let insert = || rows(9, &[3], &[image("a", 1)]);
    let changed = [ours(), map(9, b"t", &[15, 8], &[20, 0])];
    for (events, reason) in [
        (vec![(26, vec![])], "unknown_event"),
        (vec![(200, vec![])], "unknown_event"),
        (vec![(40, vec![])], "unknown_event"),
        (vec![(165, vec![])], "unknown_event"),
        (vec![(18, vec![])], "unknown_event"),
        (vec![(2, query("ALTER TABLE t ADD x INT"))], "ddl"),
        (vec![(2, query("DELETE FROM other"))], "statement"),
        (vec![(2, vec![0; 5])], "broken_event"),
        (vec![(23, insert())], "unknown_table"),
        (transaction(map(9, b"t", &[15, 3, 3], &[20, 0]), 23, insert()), "schema"),
        (transaction(map(9, b"t", &[3, 3], &[]), 23, insert()), "schema"),
        (transaction(map(9, b"t", &[15, 140], &[20, 0]), 23, insert()), "schema"),
        (changed.into_iter().map(|map| (19, map)).collect(), "schema"),
        (transaction(ours(), 166, insert()), "unknown_event"),
        (transaction(ours(), 39, insert()), "unknown_event"),
        (transaction(ours(), 20, insert()), "unknown_event"),
        (transaction(ours(), 23, rows(9, &[1], &[image("a", 1)])), "row_image"),
        (vec![(4, [&[4; 8], &b"bin.000000"[..]].concat())], "binlog_reset"),
    ] {
        assert_eq!(read(&mut tail(), &events), Err(reason), "{events:?}");
    }
    // Cut anywhere, it is no row and no panic.
    let whole = insert();
    for cut in 0..whole.len() {
        let events = transaction(ours(), 23, whole[..cut].to_vec());
        let mut tail = tail();
        assert!(read(&mut tail, &events).is_err() || cut == 10, "cut at {cut}");
        assert!(!tail.has_changes());
    }
    for cut in 0..ours().len() - 1 {
        assert!(read(&mut tail(), &[(19, ours()[..cut].to_vec())]).is_err(), "cut at {cut}");
    }
}

#[test]
fn harmless_events_move_the_position_only() {
    let mut tail = tail();
    for kind in [3, 15, 27, 28, 29, 35, 41, 160, 161, 163] {
        read(&mut tail, &[(kind, vec![0; 20])]).unwrap();
    }
    assert_eq!(tail.complete(), Position { offset: 200, ..AT });
    read(&mut tail, &[(4, [&[4, 0, 0, 0, 0, 0, 0, 0], &b"bin.000002"[..]].concat())]).unwrap();
    assert_eq!(tail.complete(), Position { file: 2, offset: 4 });
    assert!(tail.complete().version() > AT.version());
    // MariaDB's GTID of a single statement, then of a transaction.
    let gtid = |flags| (162, [&[0; 12][..], &[flags; 1], &[0; 6]].concat());
    read(&mut tail, &[gtid(1), (2, query("GRANT SELECT ON x.y TO u"))]).unwrap();
    assert_eq!(tail.complete().offset, 24);
    read(&mut tail, &[gtid(0), (19, ours())]).unwrap();
    assert_eq!(tail.complete().offset, 24);
}

#[test]
fn a_row_that_keeps_its_key_is_not_removed() {
    let mut tail = tail();
    let update = rows(9, &[3, 3], &[image("a", 1), image("a", 2), image("a", 2), image("b", 3)]);
    read(&mut tail, &[(2, query("BEGIN")), (19, ours()), (24, update), (16, vec![0; 8])]).unwrap();
    assert_eq!(taken(&mut tail), ["a {\"n\":2}", "-a", "b {\"n\":3}"]);
}

#[test]
fn a_tagged_gtid_of_mysql_announces_what_follows() {
    let mut tail = tail();
    let insert = rows(9, &[3], &[image("a", 1)]);
    read(&mut tail, &[(2, query("BEGIN")), (19, ours()), (23, insert)]).unwrap();
    // What had no end is given up.
    read(&mut tail, &[(42, vec![0; 40]), (2, query("GRANT SELECT ON x.y TO u"))]).unwrap();
    assert!(!tail.has_changes());
    assert_eq!(tail.complete(), tail.position());
}

#[test]
fn places_beyond_4_gib_go_on() {
    assert_eq!(unwrap_offset(100, 200), 200);
    assert_eq!(unwrap_offset(0xffff_ff00, 0x10), 0x1_0000_0010);
    assert_eq!(unwrap_offset(0x1_0000_0010, 0x20), 0x1_0000_0020);
    assert_eq!(Position::new("mysql-bin.000012", 4711).map(Position::version), Some(120_000_004_711));
    assert_eq!(Position::new("nothing", 4), None);
}
