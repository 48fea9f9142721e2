//! Statements have as many marks as columns, and rows that are refused are found in few steps.

use super::super::super::batch::Part;
use super::super::super::own::tests::tables;
use super::statement::{MARKS_MAX, READINGS, SHAPES};
use super::*;

#[test]
fn any_number_of_rows_is_few_statements() {
    let insert = Insert::new(Target::Fixed(Topic::Alerts));
    let mut sizes = Vec::new();
    let mut left = 5_000;
    while left > 0 {
        sizes.push(insert.shape(left));
        left -= insert.shape(left);
    }
    assert_eq!(sizes.iter().sum::<usize>(), 5_000);
    assert_eq!(&sizes[..5], &[2048, 2048, 512, 128, 128]);
    assert!(sizes.len() < 20);
    assert!(Topic::ALL.into_iter().all(|topic| SHAPES[0] * columns(Target::Fixed(topic)).len() < MARKS_MAX));
    let mut wide = Insert::new(Target::Fixed(Topic::Alerts));
    wide.columns = vec!["a"; 503];
    assert_eq!((wide.shape(5_000), wide.shape(100)), (128, 32));
    // A refused chunk is split evenly, down to single rows.
    for rows in SHAPES.into_iter().filter(|s| *s > 1) {
        let part = insert.shape(rows - 1);
        assert!(rows % part == 0 && rows / part <= 8, "{rows}");
    }
}

#[test]
fn statements_have_as_many_marks_as_columns() {
    for topic in Topic::ALL {
        let (insert, columns) = (Insert::new(Target::Fixed(topic)), columns(Target::Fixed(topic)));
        assert_eq!(insert.statement(8).matches('?').count(), 8 * columns.len());
        assert_eq!(insert.statement(3).matches("),(").count(), 2);
    }
}

#[test]
fn columns_are_those_of_the_shipped_tables() {
    let sql = include_str!("../../../../../deploy/sql/mysql.sql");
    for topic in Topic::ALL {
        let (name, columns) = (Target::Fixed(topic).name(), columns(Target::Fixed(topic)));
        let (_, text) = sql.split_once(&format!("EXISTS {name} (")).unwrap();
        let (text, _) = text.split_once("PRIMARY KEY").unwrap();
        let shipped: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(|name| name.trim_matches('`'))
            .collect();
        // Tables of which no row replaces another have a number of their own.
        let own = usize::from(!columns.contains(&ID));
        assert_eq!(shipped[own..], columns, "{name}");
    }
}

#[test]
fn a_window_result_is_replaced_by_a_higher_revision_only() {
    let tail = Insert::new(Target::Fixed(Topic::Aggregates)).tail;
    assert!(tail.starts_with(
        " ON DUPLICATE KEY UPDATE `stream` = IF(VALUES(`revision`) > `revision`, VALUES(`stream`), `stream`)"
    ));
    assert!(
        tail.ends_with(", `revision` = IF(VALUES(`revision`) > `revision`, VALUES(`revision`), `revision`)")
    );
    assert!(!tail.contains("`id`"));
    for topic in [Topic::Enriched, Topic::Rejected, Topic::Losses, Topic::Alerts] {
        assert_eq!(Insert::new(Target::Fixed(topic)).tail, "");
    }
}

#[test]
fn a_record_for_other_stores_is_no_row() {
    let json = |stores: &str| {
        format!(
            r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17{stores}}},"device":"d",
            "time":5,"values":{{}}}}"#
        )
    };
    let mut values = Vec::new();
    let mut taken = |stores: &str| row_values(Topic::Enriched, json(stores).as_bytes(), &mut values);
    assert_eq!(taken(r#","stores":["clickhouse","elasticsearch"]"#), Ok(None));
    assert_eq!(taken(r#","stores":[]"#), Ok(None));
    assert_eq!(taken(r#","stores":["mysql"],"rules":4"#), Ok(Some(Times::at(5))));
    assert_eq!(taken(r#","stores":"mysql""#).unwrap_err().reason, "row_malformed");
    assert_eq!((values.len(), &values[13]), (READINGS.len(), &Value::UInt(4)));
}

#[test]
fn only_what_is_in_the_rows_makes_dead_letters() {
    let error = |code, state: &str| ServerError { code, message: String::new(), state: state.to_owned() };
    assert!(is_about_rows(&error(1406, "22001")));
    assert!(is_about_rows(&error(4025, "23000")));
    for (code, state) in [(1213, "40001"), (1205, "HY000"), (1142, "42000"), (1114, "HY000"), (1146, "42S02")]
    {
        assert!(!is_about_rows(&error(code, state)), "{code}");
    }
}

#[test]
fn what_is_loaded_has_bytes_only_in_columns_that_are_said_to_have_them() {
    let stream = r#""stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17"#;
    let json = format!(
        r#"{{"weir":{{{stream}}},"device":"d","time":5,"values":{{"power":2500.0}},"tags":{{"note":"\u00fc"}}}}"#
    );
    let mut batch = Batch::default();
    batch.push(Part { topic: Topic::Enriched, partition: 3 }, 42, 0, json.as_bytes());
    let fixed = Target::Fixed(Topic::Enriched);
    let own = tables().of(Topic::Enriched, SinkName::Mysql).map(Target::Own).find(|own| !own.is_latest());
    for (target, wanted) in [(fixed, vec!["stream"]), (own.unwrap(), Vec::new())] {
        let mut pending = Pending::new(target, 1, tables());
        let record = batch.records()[0];
        pending.maker.row(&record, json.as_bytes(), &mut pending.values).unwrap().unwrap();
        assert_eq!(pending.values.len(), pending.insert.columns.len());
        let is_bytes = |value: &Value| *value == Value::Bytes((0..16).collect());
        let bytes = pending.insert.columns.iter().zip(&pending.values).filter(|(_, value)| is_bytes(value));
        assert_eq!(bytes.map(|(name, _)| *name).collect::<Vec<_>>(), wanted);
        assert_eq!(
            pending.insert.binary.iter().filter(|name| **name != ID).collect::<Vec<_>>(),
            wanted.iter().collect::<Vec<_>>()
        );
        assert!(pending.may_load(load::ROWS_MIN));
    }
    let latest = tables().of(Topic::Enriched, SinkName::Mysql).map(Target::Own).find(|own| own.is_latest());
    let pending = Pending::new(latest.unwrap(), 1, tables());
    assert!(!pending.may_load(load::ROWS_MIN), "LOAD DATA replaces no row by its version");
}
