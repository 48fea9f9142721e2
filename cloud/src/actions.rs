//! What can be changed through the admin port of `weir-cloud`.
//!
//! | `POST /api/…` | who | body | |
//! |---|---|---|---|
//! | `rules/enable`, `rules/disable` | admin | `{"id", "note"}` | as `weir-cloud rules enable`, `disable` |
//! | `rules/rollback` | admin | `{"id", "to", "note"}` | as `weir-cloud rules rollback`; `to` may be missing |
//! | `sinks/pause`, `sinks/resume` | operator | `{"sink"}` | a sink of this process rests, until it is resumed or restarted |
//!
//! Guarantees: a rule's author is the name of the token; the body is refused when it says anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use weir_shared::admin::access::{Caller, Role};
use weir_shared::admin::{Action, Done};

use crate::rules::cli::{self, Dims, Direction};
use crate::rules::store::config::RulesConfig;
use crate::sinks::SinkName;

/// Which sinks of this process rest. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<[AtomicBool; SinkName::ALL.len()]>);

impl Pauses {
    /// Whether this one rests.
    pub(crate) fn is_paused(&self, sink: SinkName) -> bool {
        self.0[sink as usize].load(Ordering::Relaxed)
    }

    fn set(&self, sink: SinkName, pause: bool) -> bool {
        self.0[sink as usize].swap(pause, Ordering::Relaxed)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleBody {
    id: String,
    to: Option<u32>,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SinkBody {
    sink: String,
}

/// All of them; the sinks are those that run here.
pub(crate) fn all(
    rules: &RulesConfig,
    dims: impl Fn() -> Dims + Send + Sync + 'static,
    sinks: &[SinkName],
    pauses: &Pauses,
) -> Vec<Action> {
    let (rules, dims) = (rules.clone(), Arc::new(dims));
    let rule = |path, direction| {
        let (rules, dims) = (rules.clone(), Arc::clone(&dims));
        let run = move |caller: &Caller, said: &Map<String, Value>| {
            let body: RuleBody = body(said)?;
            if body.to.is_some() && direction != Direction::Rollback {
                return Err("\"to\" belongs to rules/rollback".to_owned());
            }
            let of = |version| json!({body.id.as_str(): version});
            let change = cli::Change {
                direction,
                id: body.id.clone(),
                to: body.to,
                author: caller.name.clone(),
                note: body.note,
            };
            let (before, after) =
                cli::change(&rules, if direction == Direction::Disable { none() } else { dims() }, &change)
                    .map_err(|e| e.to_string())?;
            Ok(Done { before: of(before), after: of(after) })
        };
        Action { path, role: Role::Admin, run: Arc::new(run) }
    };
    let sink = |path, pause| {
        let (pauses, here) = (pauses.clone(), sinks.to_vec());
        let run = move |_: &Caller, said: &Map<String, Value>| {
            let SinkBody { sink } = body(said)?;
            let sink = SinkName::parse(&sink).map_err(|why| format!("sink: {why}"))?;
            if !here.contains(&sink) {
                let here: Vec<&str> = here.iter().map(|sink| sink.name()).collect();
                return Err(format!(
                    "sink {} does not run here; there are: {}",
                    sink.name(),
                    here.join(", ")
                ));
            }
            let words = |paused| json!({sink.name(): if paused { "paused" } else { "running" }});
            Ok(Done { before: words(pauses.set(sink, pause)), after: words(pause) })
        };
        Action { path, role: Role::Operator, run: Arc::new(run) }
    };
    let mut all = vec![
        rule("rules/enable", Direction::Enable),
        rule("rules/disable", Direction::Disable),
        rule("rules/rollback", Direction::Rollback),
    ];
    if !sinks.is_empty() {
        all.extend([sink("sinks/pause", true), sink("sinks/resume", false)]);
    }
    all
}

/// Who switches a rule off needs to know nothing of the tables.
fn none() -> Dims {
    Dims { known: Vec::new(), open: Vec::new() }
}

fn body<T: for<'d> Deserialize<'d>>(said: &Map<String, Value>) -> Result<T, String> {
    T::deserialize(said).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sink_that_runs_here_rests() {
        let pauses = Pauses::default();
        let actions = all(&RulesConfig::default(), none, &[SinkName::Mysql], &pauses);
        let caller = Caller { name: "otto".into(), role: Role::Operator };
        let ask = |path: &str, said: Value| {
            let action = actions.iter().find(|action| action.path == path).unwrap();
            (action.run)(&caller, said.as_object().unwrap()).map(|done| (done.before, done.after))
        };
        let both = ask("sinks/pause", json!({"sink": "mysql"})).unwrap();
        assert_eq!(both, (json!({"mysql": "running"}), json!({"mysql": "paused"})));
        assert!(pauses.is_paused(SinkName::Mysql) && !pauses.is_paused(SinkName::Clickhouse));
        let why = ask("sinks/pause", json!({"sink": "clickhouse"})).unwrap_err();
        assert_eq!(why, "sink clickhouse does not run here; there are: mysql");
        assert!(ask("sinks/pause", json!({"sink": "mysqll"})).unwrap_err().contains("must be one of mysql"));
        assert!(
            ask("sinks/resume", json!({"sink": "mysql", "x": 1})).unwrap_err().contains("unknown field `x`")
        );
        ask("sinks/resume", json!({"sink": "mysql"})).unwrap();
        assert!(!pauses.is_paused(SinkName::Mysql));
        assert!(ask("rules/enable", json!({"id": "a", "to": 3})).unwrap_err().contains("rules/rollback"));
        assert!(ask("rules/enable", json!({"id": "a"})).unwrap_err().contains("set rules.url"));
    }
}
