//! The configuration as users get it wrong: every problem, once, at its place.

use super::*;

#[test]
fn the_reference_with_a_name_is_right() {
    let config = check("x", "name = 'gw'").unwrap();
    assert_eq!(config.mqtt.client_id, "weir-edge-gw");
    assert_eq!(config.kafka.options, vec![]);
}

#[test]
fn problems_across_sections_come_at_once() {
    let text = "[mqtt]\ntopics = ['a/#/b']\n[decode]\ndevice_field = ''\nraw_bytes_max = 900000\n[kafka]\noptions = ['x']\n[journal]\ncommit_ms = -1\n";
    let shown = check("e.toml", text).unwrap_err().to_string();
    for wanted in [
        "e.toml:1:1: name: must be set",
        "e.toml:2:10: mqtt.topics: must be valid topic filters",
        "e.toml:4:16: decode.device_field: or device_topic_level",
        "e.toml:5:17: decode.raw_bytes_max: three quarters",
        "e.toml:7:11: kafka.options: number 1 must be",
        "e.toml:9:13: journal.commit_ms: must be an integer from 0 to 1000",
        "6 problems in e.toml",
    ] {
        assert!(shown.contains(wanted), "{wanted}\n{shown}");
    }
}

#[test]
fn options_may_not_undo_a_guarantee_and_must_exist() {
    let text = |options| format!("name = 'gw'\n[kafka]\noptions = {options}\n");
    assert!(check("e", &text("['socket.timeout.ms=5000']")).is_ok());
    for options in ["['acks=0']", "['enable.idempotence=false']", "['bogus.option=1']"] {
        let shown = check("e", &text(options)).unwrap_err().to_string();
        assert!(shown.starts_with("e:3:11: kafka.options: "), "{shown}");
    }
}

/// What is shown for this text, with a name and brokers that are right.
fn shown(text: &str) -> String {
    check("e", &format!("name = 'gw'\n{text}")).unwrap_err().to_string()
}

#[test]
fn a_problem_is_shown_once() {
    for text in ["[mqtt]\ntopics = 5", "[mqtt]\ntopcis = []", "mqtt = 5", "[kafka]\nrecord_bytes_max = 1"] {
        assert!(shown(text).ends_with("1 problem in e"), "{}", shown(text));
    }
    for text in ["[[file]]\npath = '/a'\ndevice = 5", "[[file]]\npath = 5", "[[window]]\nname = 5"] {
        assert!(shown(text).ends_with("1 problem in e"), "{}", shown(text));
    }
    assert!(shown("[[window]]\nname = 'w'\nsize = 5").ends_with("1 problem in e"));
    let twice = "[[window]]\n[[window]]\n[[flow]]\ntopics = ['a']\n[[flow]]\ntopics = ['b']";
    assert!(
        shown(twice).ends_with("4 problems in e"),
        "without a name, not also with the same: {}",
        shown(twice)
    );
    let unnamed = check("e", "name = 5").unwrap_err().to_string();
    assert_eq!(unnamed, "e:1:8: name: must be a string\n1 problem in e");
}

#[test]
fn all_problems_of_a_window_come_at_once() {
    let shown = shown(
        "[[window]]\nkind = 'sliding'\nsize = '1s'\nslide = '2s'\nzone = 'Europe/Viena'\nfilter = 'values.t >'\n\
         key = ['a', 'a']\nfields = ['*', 'x']\naggregates = ['mean', 'mean']\ndelay = '5'\n",
    );
    for wanted in [
        "window[0].name: must be set",
        "e:3:8: window[0].kind: 0 < slide",
        "e:6:8: window[0].zone: Europe/Viena is no IANA time zone",
        "e:7:10: window[0].filter: ",
        "e:8:7: window[0].key: \"a\" is empty or stands twice",
        "e:9:10: window[0].fields: names, or only *",
        "e:10:14: window[0].aggregates: one stands twice",
        "e:11:9: window[0].delay: must be a duration",
        "8 problems in e",
    ] {
        assert!(shown.contains(wanted), "{wanted}\n{shown}");
    }
}

#[test]
fn aggregates_say_what_is_wrong_with_them() {
    let of = |list: &str| shown(&format!("[[window]]\nname = 'w'\naggregates = {list}"));
    let unknown = of("['median', 'avg']");
    assert!(unknown.contains("median is none of") && unknown.contains("avg is none of"), "{unknown}");
    assert!(unknown.ends_with("2 problems in e"), "{unknown}");
    assert!(of("[]").contains("aggregates: at least one, for example \"mean\""), "{}", of("[]"));
    let many: Vec<_> = (1..=65).map(|i| format!("'p{i}'")).collect();
    let many = of(&format!("[{}]", many.join(",")));
    assert!(many.contains("aggregates: at most 64, these are 65"), "{many}");
}

#[test]
fn brokers_are_hosts_with_ports() {
    for right in ["a:9092", "a:1, b:65535", "[::1]:9092,k-1.example.org:9092"] {
        let config = check("e", &format!("name = 'gw'\n[kafka]\nbrokers = '{right}'")).unwrap();
        assert_eq!(config.kafka.brokers, right.replace(' ', ""));
    }
    for wrong in
        [",,", "http://a:9092", "a", "a:", ":9092", "a:0", "a:65536", "a:9092,", "a b:1", "::1:9092", "a:+1"]
    {
        let shown = shown(&format!("[kafka]\nbrokers = '{wrong}'"));
        assert!(shown.starts_with("e:3:11: kafka.brokers: must be host:port"), "{wrong}: {shown}");
        assert!(shown.ends_with("1 problem in e"), "{shown}");
    }
}

#[test]
fn names_are_fit_for_one_line_and_not_reserved() {
    for (text, wanted) in [
        ("name = \"gw\\n1\"", "e:1:8: name: must be without line breaks"),
        ("name = \"gw\\u0007\"", "e:1:8: name: must be without line breaks"),
        ("name = 'gw'\n[[window]]\nname = \"a\\tb\"", "e:3:8: window[0].name: must be without line breaks"),
        ("name = 'gw'\n[[window]]\nname = 'roll_up'", "e:3:8: window[0].name: \"roll_up\" is reserved"),
    ] {
        let shown = check("e", text).unwrap_err().to_string();
        assert!(shown.starts_with(wanted) && shown.ends_with("1 problem in e"), "{wanted}\n{shown}");
    }
}

#[test]
fn a_session_is_as_long_as_it_goes_on_unless_a_size_says_otherwise() {
    use weir_shared::window::{Kind, Span};
    let of = |keys: &str| check("e", &format!("name = 'gw'\n[[window]]\nname = 'w'\n{keys}"));
    let kind = |keys: &str| of(keys).unwrap().rules[0].rule.kind;
    assert_eq!(kind(""), Kind::Tumbling { size: Span::Ms(10_000) });
    let ten_years = 316_224_000_000;
    assert_eq!(kind("kind = 'session'"), Kind::Session { gap_ms: 30_000, length_ms_max: ten_years });
    let sized = kind("kind = 'session'\nsize = '1m'\ngap = '1s'");
    assert_eq!(sized, Kind::Session { gap_ms: 1000, length_ms_max: 60_000 });
    let shown = of("kind = 'session'\nsize = '10s'").unwrap_err().to_string();
    assert!(
        shown.starts_with("e:5:8: window[0].size: a session's longest, at least its gap of 30000 ms"),
        "{shown}"
    );
}

#[test]
fn a_file_that_is_no_utf8_is_said_with_its_place() {
    assert_eq!(text("e", b"name = '\xc3\xa9'"), Ok("name = '\u{e9}'"));
    let why = text("e", b"# a\nname = '\xc3\xa9\xe9'\n").unwrap_err();
    assert_eq!(why, "e:2:10: not UTF-8: byte 14 is 0xe9; save the file as UTF-8\n1 problem in e");
}
