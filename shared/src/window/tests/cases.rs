//! Single cases by hand.

use jiff::Timestamp;

use super::*;

const T: i64 = 1_790_000_000_000;

fn one(rule: Rule) -> Run {
    Run::new(&[rule], Limits::default())
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

/// A reading of one value.
fn single(device: &str, time: i64, value: f64) -> Reading<'_> {
    let values = vec![("t".into(), Value::Float(value))];
    Reading { device: device.into(), time, values, ..Reading::default() }
}

impl Run {
    /// A reading that arrives at its own time.
    fn on_time(&mut self, device: &str, time: i64, value: f64) {
        self.engine.reading(&single(device, time, value), time, &mut self.out);
    }

    fn told(&mut self) -> Vec<String> {
        texts(&mut self.out)
    }

    /// Start, end, revision and count of all results.
    fn windows(&mut self) -> Vec<[i64; 4]> {
        let json = |text: String| serde_json::from_str::<Json>(text.split_once(' ').unwrap().1).unwrap();
        let members = |json: Json| ["start", "end", "revision", "count"].map(|m| json[m].as_i64().unwrap());
        self.told().into_iter().filter(|t| !t.starts_with("late")).map(|t| members(json(t))).collect()
    }
}

fn tumbling(ms: u64) -> Rule {
    Rule::new("avg", Kind::Tumbling { size: Span::Ms(ms) })
}

#[test]
fn an_engine_can_go_to_another_thread() {
    fn goes<T: Send>(_: &T) {}
    goes(&one(tumbling(1)).engine);
}

#[test]
fn a_result_is_the_json_that_is_documented() {
    let mut rule = tumbling(10_000);
    rule.key = vec!["device".to_owned(), "line".to_owned()];
    rule.aggregates =
        [Aggregate::Max, Aggregate::Count, Aggregate::Stddev, Aggregate::Percentile(99_900)].to_vec();
    rule.expected_interval_ms = Some(2_500);
    let mut run = one(rule);
    let reading = |time, values: Vec<(&'static str, Value<'static>)>| Reading {
        device: "pump \"7\"".into(),
        time,
        values: values.into_iter().map(|(n, v)| (n.into(), v)).collect(),
        tags: vec![("line".into(), "3".into())],
        received: 0,
    };
    run.engine.reading(
        &reading(T, vec![("z", Value::Unsigned(2)), ("m", Value::Bool(true))]),
        T,
        &mut run.out,
    );
    run.engine.reading(
        &reading(T + 1, vec![("a", Value::Float(-0.5)), ("z", Value::Unsigned(4))]),
        T,
        &mut run.out,
    );
    run.engine.incomplete("dropped");
    run.engine.reading(&reading(T + 15_000, vec![]), T + 15_000, &mut run.out);
    let found = run.told();
    let wanted = concat!(
        r#"pump "7"/3 {"rule":"avg","key":{"device":"pump \"7\"","line":"3"},"start":1790000000000,"#,
        r#""end":1790000010000,"revision":0,"count":2,"values":{"a":{"max":-0.5,"count":1,"p99.9":-0.501"#,
    );
    assert!(found[0].starts_with(wanted), "{found:?}");
    let wanted = r#"},"z":{"max":4.0,"count":2,"stddev":1.4142135623730951,"p99.9":"#;
    assert!(found[0].contains(wanted), "{found:?}");
    assert!(found[0].ends_with(r#"}},"completeness":0.5,"incomplete":"dropped"}"#), "{found:?}");
}

#[test]
fn local_days_of_23_and_25_hours_are_one_window() {
    for (day, hours) in [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)] {
        let mut rule = Rule::new("day", Kind::Tumbling { size: Span::Days(1) });
        rule.zone = Some("Europe/Vienna".to_owned());
        let mut run = one(rule);
        let noon = at(&format!("{day}T12:00:00Z"));
        (0..4 * 24 * 60).for_each(|minute| run.on_time("d", noon - 129_600_000 + minute * 60_000, 1.0));
        let days = run.windows();
        let wanted = [hours * 3_600_000, hours * 60];
        let day = days.iter().find(|w| (w[0]..w[1]).contains(&noon)).unwrap();
        assert_eq!([day[1] - day[0], day[3]], wanted);
        assert!(days.windows(2).all(|w| w[0][1] == w[1][0]), "days follow one another");
    }
}

#[test]
fn a_wild_device_harms_only_itself_and_makes_no_windows_in_between() {
    let ten_years = 315_360_000_000;
    let mut rule = Rule::new("s", Kind::Sliding { size: Span::Ms(60_000), slide: Span::Ms(10) });
    rule.lateness_ms = 1_000;
    let mut run = one(rule);
    run.on_time("good", T, 1.0);
    run.engine.reading(&single("wild", T, 1.0), T, &mut run.out);
    run.engine.reading(&single("wild", T + ten_years, 1.0), T, &mut run.out);
    assert_eq!(run.windows().len(), 6_000, "its own windows close");
    run.engine.reading(&single("wild", T, 1.0), T, &mut run.out);
    run.engine.reading(&single("wild", -1, 1.0), T, &mut run.out);
    assert_eq!((run.out.counts.late, run.out.counts.times_refused), (1, 1));
    assert_eq!(run.told().len(), 1);
    run.on_time("good", T + 1, 1.0);
    assert!(run.told().is_empty(), "the other one goes on");
}

#[test]
fn a_key_of_many_devices_waits_for_those_that_are_not_idle() {
    let mut rule = tumbling(10_000);
    rule.key = Vec::new();
    rule.idle_ms = 30_000;
    let mut run = one(rule);
    run.on_time("slow", T, 1.0);
    run.on_time("fast", T, 1.0);
    run.on_time("fast", T + 29_000, 1.0);
    assert!(run.told().is_empty(), "slow may still send");
    assert_eq!(run.engine.deadline(), Some(T + 30_000));
    run.engine.tick(T + 30_000, &mut run.out);
    assert_eq!(run.windows(), [[T, T + 10_000, 0, 2]], "slow is idle");
    run.engine.resumed(T + 40_000);
    run.engine.tick(T + 69_999, &mut run.out);
    assert!(run.told().is_empty(), "silence counts from when the source was back");
    run.engine.tick(T + 70_000, &mut run.out);
    assert_eq!(run.windows(), [[T + 20_000, T + 30_000, 0, 1]]);
}

#[test]
fn what_is_due_goes_by_clock_rule_and_key() {
    let mut rules = [tumbling(10_000), tumbling(5_000)];
    rules[1].name = "short".to_owned();
    rules.iter_mut().for_each(|r| r.basis = Basis::Processing);
    let mut run = Run::new(&rules, Limits::default());
    for (device, time) in [("b", 1), ("c", 2), ("a", 6_000)] {
        run.on_time(device, T + time, 1.0);
    }
    run.engine.tick(T + 100_000, &mut run.out);
    let order = |text: String| {
        let json: Json = serde_json::from_str(text.split_once(' ').unwrap().1).unwrap();
        format!(
            "{}{}{}",
            json["end"].as_i64().unwrap() - T,
            json["rule"].as_str().unwrap(),
            text.split_once(' ').unwrap().0
        )
    };
    let found: Vec<String> = run.told().into_iter().map(order).collect();
    assert_eq!(found, ["5000shortb", "5000shortc", "10000avga", "10000avgb", "10000avgc", "10000shorta"]);
}

#[test]
fn a_filtered_reading_moves_the_watermark_and_no_more() {
    let mut rule = tumbling(10_000);
    rule.filter = Some("t > 0".to_owned());
    let compile =
        |_: &str| -> Filter { Box::new(|r| r.value("t").and_then(Value::number).is_some_and(|v| v > 0.0)) };
    let mut engine = Engine::new(vec![rule], Limits::default(), &compile).unwrap();
    let mut out = Outputs::default();
    engine.reading(&single("d", T, -1.0), T, &mut out);
    assert!(engine.is_empty(), "it makes no key");
    engine.reading(&single("d", T, 1.0), T, &mut out);
    engine.reading(&single("d", T + 15_000, -1.0), T, &mut out);
    assert_eq!((out.len(), out.counts.filtered), (1, 2));
    assert!(texts(&mut out)[0].contains(r#""count":1"#));
}

#[test]
fn limits_refuse_and_count() {
    let limits = Limits { keys_max: 2, windows_per_key_max: 3, devices_per_key_max: 1, keep_ms: 1_000 };
    let mut rules = [tumbling(10), tumbling(10)];
    rules[1].name = "by-line".to_owned();
    rules[1].key = vec!["line".to_owned()];
    let mut run = Run::new(&rules, limits);
    for i in 0..5 {
        run.on_time("a", T + i * 10, 1.0);
    }
    for device in ["b", "c"] {
        let mut reading = single(device, T + 50, 1.0);
        reading.tags.push(("line".into(), "1".into()));
        run.engine.reading(&reading, T + 50, &mut run.out);
    }
    let counts = run.out.counts;
    assert_eq!(
        (counts.windows_refused, counts.keys_refused, counts.unkeyed, counts.devices_refused),
        (2, 1, 5, 1)
    );
    run.engine.tick(T + 1_000_000, &mut run.out);
    assert_eq!((run.windows().len(), run.engine.keys()), (5, 0), "and keys without windows are forgotten");
}

#[test]
fn rules_that_change_end_their_windows_and_the_others_go_on() {
    let mut rules = vec![tumbling(10_000), tumbling(60_000)];
    rules[1].name = "minute".to_owned();
    let mut run = Run::new(&rules, Limits::default());
    run.save();
    run.on_time("b", T, 1.0);
    run.on_time("a", T, 1.0);
    rules.swap(0, 1);
    rules[1].delay_ms = 1;
    run.engine.switch(rules.clone(), &no_filter, &mut run.out).unwrap();
    run.rules = rules;
    let told = run.told();
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with("a ") && told[1].starts_with("b "));
    assert!(
        told.iter().all(|t| t.contains(r#""rule":"avg""#) && t.contains(r#""incomplete":"rules_changed""#))
    );
    assert_eq!(run.engine.keys(), 2);
    run.save();
    run.restore();
    run.on_time("a", T + 1, 1.0);
    run.on_time("a", T + 70_000, 1.0);
    let told = run.told();
    assert!(told[1].contains(r#""rule":"minute""#) && told[1].contains(r#""count":2"#), "{told:?}");
    assert!(told[2].contains(r#""rule":"avg""#) && told[2].contains("rules_changed"), "it began in a window");
    run.on_time("a", T + 100_000, 1.0);
    assert!(run.told().iter().all(|t| !t.contains("incomplete")));
    let twice = vec![run.rules[0].clone(), run.rules[0].clone()];
    assert!(run.engine.switch(twice, &no_filter, &mut run.out).unwrap_err().contains("twice"));
}

#[test]
fn after_a_loss_of_state_windows_that_began_before_say_so() {
    let mut run = one(tumbling(10_000));
    run.engine.tick(T + 15_000, &mut run.out);
    run.engine.incomplete("state_lost");
    for time in [12_000, 16_000, 21_000, 40_000] {
        run.on_time("d", T + time, 1.0);
    }
    let told = run.told();
    let marked: Vec<bool> = told.iter().map(|t| t.contains(r#""incomplete":"state_lost""#)).collect();
    assert_eq!(marked, [true, false]);
}

#[test]
fn mean_and_deviation_are_right_where_numbers_are_large_and_near_one_another() {
    let mut rule = Rule::new("s", Kind::Sliding { size: Span::Ms(100_000), slide: Span::Ms(1_000) });
    rule.aggregates = [Aggregate::Mean, Aggregate::Stddev, Aggregate::Sum].to_vec();
    let mut run = one(rule);
    let value = |i: i64| 1e6 + (i * 7_919 % 1_000) as f64 / 1_000.0;
    (0..200_000).for_each(|i| run.on_time("d", T + i, value(i)));
    let texts = run.told();
    assert_eq!(texts.len(), 194);
    for text in texts {
        let json: Json = serde_json::from_str(text.split_once(' ').unwrap().1).unwrap();
        let (start, end) = (json["start"].as_i64().unwrap().max(T), json["end"].as_i64().unwrap());
        let n = (end - start) as f64;
        let sum: f64 = (start - T..end - T).map(|i| value(i) - 1e6).sum();
        let squares: f64 = (start - T..end - T).map(|i| (value(i) - 1e6 - sum / n).powi(2)).sum();
        let wanted = [1e6 + sum / n, (squares / (n - 1.0)).sqrt(), 1e6 * n + sum];
        for (name, wanted) in ["mean", "stddev", "sum"].iter().zip(wanted) {
            let found = json["values"]["t"][name].as_f64().unwrap();
            assert!((found / wanted - 1.0).abs() < 1e-9, "{name} {found} {wanted}");
        }
    }
}

#[test]
fn a_sum_keeps_what_is_small_beside_what_is_large() {
    let mut rule = Rule::new("s", Kind::Sliding { size: Span::Ms(20), slide: Span::Ms(10) });
    rule.aggregates = vec![Aggregate::Sum];
    let mut run = one(rule);
    for (later, value) in [(0, 1e16), (1, 1.0), (11, 1.0), (12, -1e16)] {
        run.on_time("d", T + later, value);
    }
    run.engine.tick(T + 100_000, &mut run.out);
    assert!(run.told()[1].contains(r#"{"sum":2.0}"#));
}

#[test]
fn entries_that_no_engine_wrote_are_refused_and_never_bring_it_down() {
    let rules = [
        Rule { lateness_ms: 50, aggregates: AGGREGATES.to_vec(), ..tumbling(10) },
        Rule {
            key: vec!["line".to_owned()],
            ..Rule::new("s", Kind::Session { gap_ms: 5, length_ms_max: 50 })
        },
        Rule { ..Rule::new("c", Kind::SlidingCount { n: 4, slide: 2 }) },
    ];
    let mut run = Run::new(&rules, Limits::default());
    for i in 0..30 {
        let given = Given { device: 1, tag: Some(1), time: T + i * 3, value: Some(i as f64) };
        run.engine.reading(&reading(given), T + i * 3, &mut run.out);
    }
    let good = run.engine.snapshot();
    let restore = |entries: Vec<_>| Engine::restore(rules.to_vec(), Limits::default(), &no_filter, entries);
    assert!(restore(good.clone()).is_ok());
    assert!(restore(good[1..].to_vec()).is_err(), "the engine's own entry is missing");
    assert!(restore([&good[..], &good[1..2]].concat()).is_err(), "a key stands twice");
    let mut survived = 0;
    for entry in 0..good.len() {
        for at in 0..good[entry].1.len() {
            let mut cut = good.clone();
            cut[entry].1.truncate(at);
            assert!(restore(cut).is_err(), "cut at {at}");
            for flip in [1, 0x80, 0xff] {
                let mut flipped = good.clone();
                flipped[entry].1[at] ^= flip;
                let Ok(mut engine) = restore(flipped) else { continue };
                survived += 1;
                for i in 30..60 {
                    let given = Given { device: 1, tag: Some(1), time: T + i * 3, value: Some(1.0) };
                    engine.reading(&reading(given), T + i * 3, &mut run.out);
                }
                engine.incomplete("lost");
                engine.tick(T + 1_000_000, &mut run.out);
                run.out.clear();
            }
        }
    }
    assert!(survived > 100, "a flipped value is not noticed here: who stores the entries has a checksum");
}

#[test]
fn percentiles_are_within_one_percent_over_many_magnitudes() {
    let mut rule = tumbling(1_000_000);
    let wanted = [1_000, 25_000, 50_000, 90_000, 99_000, 99_900];
    rule.aggregates = wanted.map(Aggregate::Percentile).to_vec();
    let mut run = one(rule);
    let mut values: Vec<f64> =
        (0..20_000_i32).map(|i| (1.0007_f64.powi(i * 7 % 20_000) - 50.0) * 1e-3).collect();
    values.iter().zip(0..).for_each(|(v, i)| run.on_time("d", 1_790_000_000_000 + i, *v));
    run.engine.tick(T + 2_000_000, &mut run.out);
    let text = run.told().remove(0);
    let json: Json = serde_json::from_str(text.split_once(' ').unwrap().1).unwrap();
    values.sort_by(f64::total_cmp);
    for p in wanted {
        let exact = values[19_999 * p as usize / 100_000];
        let found = json["values"]["t"][Aggregate::Percentile(p).to_string()].as_f64().unwrap();
        assert!((found / exact - 1.0).abs() <= 0.010_000_1, "p{p}: {found}, exact {exact}");
    }
}

#[test]
fn no_session_gets_the_start_and_the_end_of_one_that_its_length_cut_short() {
    let mut rule = Rule::new("visit", Kind::Session { gap_ms: 7, length_ms_max: 7 });
    (rule.delay_ms, rule.lateness_ms) = (6, 1);
    let mut run = one(rule);
    run.on_time("d", 1_007, 1.0);
    run.on_time("d", 1_013, 1.0);
    run.on_time("d", 1_022, 1.0);
    assert_eq!(run.windows(), [[1_007, 1_014, 0, 2]]);
    // A session of the first alone would not be over, and the second would belong to it.
    for time in [1_012, 1_007] {
        run.engine.reading(&single("d", time, 1.0), 1_022, &mut run.out);
        assert!(run.told()[0].starts_with("late visit d"), "{time}");
    }
    run.on_time("d", 1_100, 1.0);
    assert_eq!(run.windows(), [[1_022, 1_029, 0, 1]]);
}

#[test]
fn a_session_that_takes_nothing_more_hides_none_that_does() {
    let mut rule = Rule::new("visit", Kind::Session { gap_ms: 7, length_ms_max: 10 });
    (rule.delay_ms, rule.lateness_ms) = (20, 3);
    let mut run = one(rule);
    for time in [1_000, 1_012, 1_007, 1_005] {
        run.engine.reading(&single("d", time, 1.0), 1_012, &mut run.out);
    }
    run.on_time("d", 1_037, 1.0);
    assert_eq!(run.windows(), [[1_000, 1_010, 0, 2], [1_007, 1_017, 0, 2]]);
    run.engine.reading(&single("d", 1_008, 1.0), 1_037, &mut run.out);
    assert_eq!(run.windows(), [[1_007, 1_017, 1, 3]]);
}
