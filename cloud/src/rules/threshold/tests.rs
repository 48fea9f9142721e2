//! Thresholds: sequences as tables, the format of states, and a naive model.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    above: true,
    limit: 80.0,
    clear: Some(75.0),
    for_ms: 0,
    clear_for_ms: 0,
    repeat_every_ms: 0,
    quiet_ms: 0,
};

fn id(number: usize) -> Identity {
    Identity { stream: StreamId([0xab; 16]), partition: 3, number: number as u64 }
}

/// Runs (time, value) pairs; each gives a word: what was told, `late`, `quiet`, or nothing.
fn run(limits: &Limits, readings: &[(i64, f64)]) -> (Vec<String>, Option<ThresholdState>) {
    let mut state = None;
    let mut words = Vec::new();
    for (number, (time, value)) in readings.iter().enumerate() {
        let step = limits.step(state, *time, *value, id(number));
        state = step.state;
        // What is kept is what was: a state goes through its JSON at every step.
        state = state.map(|s| serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap());
        let mut word = match step.told {
            None => String::new(),
            Some((AlertKind::First, since, begun)) => format!("first since {since} by {}", begun.number),
            Some((AlertKind::Repeat(n), since, begun)) => {
                format!("repeat {n} since {since} by {}", begun.number)
            }
            Some((AlertKind::Recovered, since, begun)) => {
                format!("recovered since {since} by {}", begun.number)
            }
        };
        if step.left_out {
            word.push_str("late");
        }
        if step.suppressed {
            word.push_str("quiet");
        }
        words.push(word);
    }
    (words, state)
}

fn told(limits: &Limits, readings: &[(i64, f64)], want: &[&str]) {
    assert_eq!(run(limits, readings).0, want, "{limits:?}\n{readings:?}");
}

#[test]
fn hysteresis() {
    told(
        &LIMITS,
        &[(0, 80.0), (1, 80.1), (2, 90.0), (3, 78.0), (4, 75.0), (5, 74.9), (6, 79.0), (7, 81.0)],
        &["", "first since 1 by 1", "", "", "", "recovered since 1 by 1", "", "first since 7 by 7"],
    );
    told(
        &Limits { clear: None, ..LIMITS },
        &[(0, 81.0), (1, 80.0), (2, 81.0)],
        &["first since 0 by 0", "recovered since 0 by 0", "first since 2 by 2"],
    );
    told(
        &Limits { above: false, limit: 2.0, clear: Some(3.0), ..LIMITS },
        &[(0, 2.0), (1, 1.9), (2, 2.5), (3, 3.0), (4, 3.1)],
        &["", "first since 1 by 1", "", "", "recovered since 1 by 1"],
    );
}

#[test]
fn durations_are_of_event_time_and_continuous() {
    told(
        &Limits { for_ms: 60, ..LIMITS },
        &[(0, 81.0), (59, 81.0), (60, 81.0), (61, 81.0)],
        &["", "", "first since 0 by 0", ""],
    );
    told(
        &Limits { for_ms: 60, ..LIMITS },
        &[(0, 81.0), (50, 80.0), (60, 81.0), (119, 81.0), (120, 81.0)],
        &["", "", "", "", "first since 60 by 2"],
    );
    told(
        &Limits { clear_for_ms: 10, ..LIMITS },
        &[(0, 81.0), (1, 70.0), (10, 76.0), (11, 70.0), (20, 70.0), (21, 70.0)],
        &["first since 0 by 0", "", "", "", "", "recovered since 0 by 0"],
    );
}

#[test]
fn repeats_and_quiet() {
    told(
        &Limits { repeat_every_ms: 10, ..LIMITS },
        &[(0, 81.0), (9, 81.0), (10, 81.0), (19, 81.0), (45, 76.0), (54, 81.0), (55, 81.0), (56, 70.0)],
        &[
            "first since 0 by 0",
            "",
            "repeat 1 since 0 by 0",
            "",
            "repeat 2 since 0 by 0",
            "",
            "repeat 3 since 0 by 0",
            "recovered since 0 by 0",
        ],
    );
    told(
        &Limits { quiet_ms: 100, ..LIMITS },
        &[(0, 81.0), (10, 70.0), (20, 81.0), (30, 82.0), (40, 70.0), (50, 81.0), (109, 81.0), (110, 81.0)],
        &[
            "first since 0 by 0",
            "recovered since 0 by 0",
            "quiet",
            "",
            "",
            "quiet",
            "",
            "first since 50 by 5",
        ],
    );
}

#[test]
fn late_readings_are_left_out() {
    told(
        &LIMITS,
        &[(10, 81.0), (9, 70.0), (20, 70.0), (15, 90.0), (20, 90.0)],
        &["first since 10 by 0", "late", "recovered since 10 by 0", "late", "first since 20 by 4"],
    );
    let (_, state) = run(&LIMITS, &[(10, 81.0), (20, 70.0), (CALM_KEPT_MS + 19, 70.0)]);
    assert_eq!(state, Some(ThresholdState::Calm { last: 20 }));
    let (_, state) = run(&LIMITS, &[(10, 81.0), (20, 70.0), (CALM_KEPT_MS + 20, 70.0)]);
    assert_eq!(state, None, "all is well for long");
}

/// These bytes stand in changelogs: they are read for ever.
#[test]
fn the_format_of_states_is_kept() {
    let begun = id(12);
    for (state, want) in [
        (ThresholdState::Calm { last: 5 }, r#"{"at":"calm","last":5}"#),
        (
            ThresholdState::Pending { last: 9, since: 7, begun, recovered: Some(5), suppressed: true },
            r#"{"at":"pending","last":9,"since":7,"begun":["abababababababababababababababab",3,12],"recovered":5,"suppressed":true}"#,
        ),
        (
            ThresholdState::Active { last: 9, since: 7, begun, told: 8, repeat: 2, clearing: None },
            r#"{"at":"active","last":9,"since":7,"begun":["abababababababababababababababab",3,12],"told":8,"repeat":2,"clearing":null}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&state).unwrap(), want);
        assert_eq!(serde_json::from_str::<ThresholdState>(want).unwrap(), state);
        for cut in 0..want.len() {
            assert!(serde_json::from_str::<ThresholdState>(&want[..cut]).is_err());
        }
    }
}

/// The document's words over the whole history at each reading, without a state. Readings are in order.
fn model(limits: &Limits, readings: &[(i64, f64)]) -> Vec<String> {
    let exceeds = |v: f64| if limits.above { v > limits.limit } else { v < limits.limit };
    let clears = |v: f64| match limits.clear {
        Some(clear) => {
            if limits.above {
                v < clear
            } else {
                v > clear
            }
        }
        None => !exceeds(v),
    };
    let mut words = vec![String::new(); readings.len()];
    let mut recovered: Option<i64> = None;
    let mut at = 0;
    while at < readings.len() {
        if !exceeds(readings[at].1) {
            at += 1;
            continue;
        }
        // An episode: all readings beyond the limit from here on.
        let run = readings[at..].iter().take_while(|r| exceeds(r.1)).count();
        let since = readings[at].0;
        let quiet = |t: i64| recovered.is_some_and(|r| t - r < limits.quiet_ms);
        let due = (at..at + run).find(|i| readings[*i].0 - since >= limits.for_ms);
        let first = due.and_then(|due| (due..at + run).find(|i| !quiet(readings[*i].0)));
        if let Some(due) = due
            && first != Some(due)
        {
            words[due] = "quiet".to_owned();
        }
        let Some(first) = first else {
            at += run;
            continue;
        };
        words[first] = format!("first since {since} by {at}");
        let (mut told, mut repeat, mut next) = (readings[first].0, 0, first + 1);
        while next < readings.len() {
            let (time, value) = readings[next];
            if clears(value) {
                let begin = (first + 1..=next).rev().take_while(|i| clears(readings[*i].1)).last().unwrap();
                if time - readings[begin].0 >= limits.clear_for_ms {
                    words[next] = format!("recovered since {since} by {at}");
                    recovered = Some(time);
                    break;
                }
            } else if limits.repeat_every_ms > 0 && time - told >= limits.repeat_every_ms {
                (told, repeat) = (time, repeat + 1);
                words[next] = format!("repeat {repeat} since {since} by {at}");
            }
            next += 1;
        }
        at = next + 1;
    }
    words
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn equals_the_model(
        above in any::<bool>(),
        clear in prop::option::of(0..3_u8),
        [for_ms, clear_for_ms, repeat_every_ms, quiet_ms] in [0..8_i64, 0..8_i64, 0..8_i64, 0..20_i64],
        steps in prop::collection::vec((0..5_i64, 0..6_u8), 0..60),
    ) {
        let limit = if above { 3.0 } else { 2.0 };
        let clear = clear.map(|c| if above { 3.0 - f64::from(c) } else { 2.0 + f64::from(c) });
        let limits = Limits { above, limit, clear, for_ms, clear_for_ms, repeat_every_ms, quiet_ms };
        let mut time = 0;
        let readings: Vec<(i64, f64)> = steps
            .iter()
            .map(|(dt, v)| {
                time += dt;
                (time, f64::from(*v))
            })
            .collect();
        prop_assert_eq!(run(&limits, &readings).0, model(&limits, &readings), "{:?} {:?}", limits, readings);
    }
}
