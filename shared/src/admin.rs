//! The admin port: metrics, health, the status page, and changes by those who may.
//!
//! | path | who | |
//! |---|---|---|
//! | `GET /live`, `/ready` | everybody | 200 while the threads get on, while the program does its job; else 503 with reasons |
//! | `GET /` | everybody | the status page ([`PAGE`]); holds no data |
//! | `GET /metrics`, `/api/status`, `/api/events` | viewer | Prometheus' text; JSON; events ([`mod@status`]) |
//! | `POST /api/<action>` | as the [`Action`] says | a JSON object comes in, the answer is JSON |
//!
//! Comes in: the section `admin`, the checks and the actions of the program. Goes out: HTTP or HTTPS, on loopback by default.
//! Guarantees: a change is in the audit log before it is made, and so is what became of it; refusals are counted, and audited
//! at most once in ten seconds for each reason. On failure: an address in use ends the process at start; a change that
//! cannot be audited is not made.

pub mod access;
mod config;
mod health;
mod listener;
mod refusals;
pub mod status;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::audit::{Audit, Entry};
use crate::clock;
use crate::log;
use crate::machine::Machine;
use crate::supervise::{Error, Stop};
use access::{Caller, Refusal, Role};
pub use config::AdminConfig;
pub use health::Health;
use listener::{Listener, Peer};
use refusals::Refusals;
pub use status::Feed;

/// The status page: where it is, what it is, its text.
const PAGE: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("admin/page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("admin/page/style.css")),
    ("/figures.js", "text/javascript; charset=utf-8", include_str!("admin/page/figures.js")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("admin/page/page.js")),
];
/// The page may ask only its own port, and be in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What a change may be told, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// And how long that may take.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// What the page shows is at most so old.
const FRESH: Duration = Duration::from_millis(900);
/// Between two rounds of making the metrics small.
const METRICS_SECONDS: u64 = 5;
/// Work that is under way may take this much longer after the wish to stop.
const LAST_WORK: Duration = Duration::from_secs(2);
/// Who may follow the events at a time.
const READERS_MAX: usize = 16;

/// What an action did.
pub struct Done {
    /// What was.
    pub before: Value,
    /// What is.
    pub after: Value,
}

/// Does an action: who asks, and what they say.
pub type Run = dyn Fn(&Caller, &Map<String, Value>) -> Result<Done, String> + Send + Sync;

/// Something that can be changed through the port.
#[derive(Clone)]
pub struct Action {
    /// Its path below `/api/`, which is also its name in the audit log, with dots for slashes.
    pub path: &'static str,
    /// Who may.
    pub role: Role,
    /// Does it, on a thread that may block: who asks, and what they say. An error is a sentence.
    pub run: Arc<Run>,
}

/// What the admin port shows and does.
#[derive(Clone)]
pub struct Admin {
    /// `weir-edge` or `weir-cloud`.
    pub program: &'static str,
    /// Of this process among its like.
    pub name: String,
    /// Renders the metrics page.
    pub metrics: PrometheusHandle,
    /// Reasons against `/live`.
    pub live: Health,
    /// Reasons against `/ready`.
    pub ready: Health,
    /// The newest alerts.
    pub feed: Feed,
    /// Where changes are written down.
    pub audit: Audit,
    /// What can be changed, besides the log's filter.
    pub actions: Vec<Action>,
}

/// A status, and when it was made.
type Made = (std::time::Instant, Arc<str>);

/// What every request needs.
#[derive(Clone)]
struct Port {
    admin: Arc<Admin>,
    config: Arc<AdminConfig>,
    refusals: Arc<Refusals>,
    machine: Machine,
    readers: Arc<Semaphore>,
    started: std::time::Instant,
    /// The status as it was made last: made once, however many look.
    made: Arc<Mutex<Option<Made>>>,
}

/// Serves until told to stop.
///
/// # Errors
/// When the address cannot be bound, or the certificate not be used.
pub fn serve(config: AdminConfig, mut admin: Admin, stop: &Stop) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let upkeep = upkeep(admin.metrics.clone(), admin.ready.clone(), admin.audit.clone());
    admin.actions.push(log_filter());
    let served = runtime.block_on(async {
        let Some(address) = config.listen else {
            tokio::select! {
                () = upkeep => {}
                () = stop.wait() => {}
            }
            return Ok(());
        };
        let (listener, accepting) = Listener::bind(address, config.tls.as_ref()).await?;
        let port = Port {
            refusals: Arc::new(Refusals::new(admin.audit.clone())),
            admin: Arc::new(admin),
            config: Arc::new(config),
            machine: Machine::default(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            started: clock::instant(),
            made: Arc::default(),
        };
        let router = router(port).into_make_service_with_connect_info::<Peer>();
        tokio::select! {
            served = async { axum::serve(listener, router).await } => served.map_err(Error::from),
            ended = accepting => Err(format!("admin port: nothing is accepted any more: {ended:?}").into()),
            () = upkeep => Ok(()),
            () = stop.wait() => Ok(()),
        }
    });
    runtime.shutdown_timeout(LAST_WORK);
    served
}

/// What is to be done whoever asks: the metrics are made small, and servers that refuse the program are written down.
async fn upkeep(metrics: PrometheusHandle, ready: Health, audit: Audit) {
    for second in 1_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if second.is_multiple_of(METRICS_SECONDS) {
            metrics.run_upkeep();
        }
        audit.note_logins(&ready.reasons());
    }
}

fn router(port: Port) -> Router {
    let parts = PAGE.map(|(path, kind, text)| (path, get(async move || page(kind, text))));
    let page = parts.into_iter().fold(Router::new(), |router, (path, answer)| router.route(path, answer));
    page.route("/live", get(|State(port): State<Port>| async move { port.admin.live.answer() }))
        .route("/ready", get(|State(port): State<Port>| async move { port.admin.ready.answer() }))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/api/{*action}", post(act))
        .with_state(port)
}

impl Port {
    /// Who asks, or the answer that refuses it.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the answer; both are made once for each request"
    )]
    fn caller(&self, headers: &HeaderMap, peer: Peer, what: &str, needs: Role) -> Result<Caller, Response> {
        self.asked(headers, needs).map_err(|refusal: Refusal| {
            self.refusals.note(&refusal, peer.0, what);
            let mut answer = (refusal.status(), format!("{refusal}\n")).into_response();
            if refusal.status() == StatusCode::UNAUTHORIZED {
                let scheme = header::HeaderValue::from_static("Bearer");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            answer
        })
    }

    /// While everybody may look, a name that leads here is not enough: a page of somebody else may have brought it about.
    fn asked(&self, headers: &HeaderMap, needs: Role) -> Result<Caller, Refusal> {
        let is_local = self.config.listen.is_some_and(|listen| listen.ip().is_loopback());
        if self.config.access.0.is_empty() && is_local && !access::names_an_address(headers) {
            return Err(Refusal::Host);
        }
        self.config.access.caller(headers, needs)
    }

    fn metrics(&self) -> String {
        self.machine.collect(&self.admin.live, &self.admin.ready);
        self.admin.metrics.render()
    }

    fn status(&self) -> Arc<str> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, status)) = made.as_ref().filter(|(at, _)| clock::since(*at) < FRESH) {
            return Arc::clone(status);
        }
        let status: Arc<str> =
            status::json_of(&self.admin, &self.metrics(), clock::since(self.started)).to_string().into();
        *made = Some((clock::instant(), Arc::clone(&status)));
        status
    }
}

fn page(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

type Asked = (State<Port>, ConnectInfo<Peer>, HeaderMap);

async fn metrics((State(port), ConnectInfo(peer), headers): Asked) -> Response {
    match port.caller(&headers, peer, "metrics", Role::Viewer) {
        Ok(_) => port.metrics().into_response(),
        Err(refused) => refused,
    }
}

async fn status((State(port), ConnectInfo(peer), headers): Asked) -> Response {
    match port.caller(&headers, peer, "status", Role::Viewer) {
        Ok(_) => ([(header::CONTENT_TYPE, "application/json")], port.status().to_string()).into_response(),
        Err(refused) => refused,
    }
}

async fn events((State(port), ConnectInfo(peer), headers): Asked) -> Response {
    if let Err(refused) = port.caller(&headers, peer, "events", Role::Viewer) {
        return refused;
    }
    let Ok(reads) = Arc::clone(&port.readers).try_acquire_owned() else {
        let why = format!("{READERS_MAX} others follow the events already; close one of them\n");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let feed = port.admin.feed.clone();
    let status = move || {
        let _reads = &reads;
        port.status()
    };
    Sse::new(status::events(feed, status)).keep_alive(KeepAlive::default()).into_response()
}

/// A change: allowed, written down, made, and written down again with what became of it. Nothing is read of who may not.
async fn act(
    (State(port), ConnectInfo(peer), headers): Asked,
    Path(path): Path<String>,
    body: Body,
) -> Response {
    let found = port.admin.actions.iter().find(|action| action.path == path).cloned();
    let needs = found.as_ref().map_or(Role::Viewer, |action| action.role);
    let caller = match port.caller(&headers, peer, &path.chars().take(100).collect::<String>(), needs) {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    let Some(action) = found else {
        let known: Vec<&str> = port.admin.actions.iter().map(|action| action.path).collect();
        let near = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, &path));
        let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        let why = format!("there is no change {path:?}{near}\nthere are: {}\n", known.join(", "));
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let body = match tokio::time::timeout(BODY_WAIT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")).into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not come\n").into_response(),
    };
    let said = match serde_json::from_slice(if body.is_empty() { b"{}" } else { &body }) {
        Ok(Value::Object(said)) => said,
        Ok(_) => return (StatusCode::BAD_REQUEST, "must be a JSON object\n").into_response(),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("not JSON: {error}\n")).into_response(),
    };
    let audit = port.admin.audit.clone();
    let made = tokio::task::spawn_blocking(move || make(&action, &caller, peer, said, &audit)).await;
    match made {
        Ok(Ok(done)) => Json(json!({"before": done.before, "after": done.after})).into_response(),
        Ok(Err((status, why))) => (status, format!("{why}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn make(
    action: &Action,
    caller: &Caller,
    peer: Peer,
    said: Map<String, Value>,
    audit: &Audit,
) -> Result<Done, (StatusCode, String)> {
    let name = action.path.replace('/', ".");
    let (subject, asked) = (format!("from {}", peer.0.ip()), Value::Object(said));
    let entry = |before: Value, after: Value, result: &str| {
        let (who, role) = (caller.name.as_str(), caller.role.name());
        audit.record(&Entry { who, role, action: &name, subject: &subject, before, after, result })
    };
    entry(Value::Null, asked.clone(), "begun").map_err(|why| {
        (StatusCode::SERVICE_UNAVAILABLE, format!("nothing was changed, as it cannot be audited: {why}"))
    })?;
    let done = (action.run)(caller, asked.as_object().expect("made of one"));
    // What was done stays done: that this could not be written is in the log and a metric.
    let _logged = match &done {
        Ok(done) => entry(done.before.clone(), done.after.clone(), "done"),
        Err(why) => entry(Value::Null, asked, &format!("failed: {why}")),
    };
    done.map_err(|why| (StatusCode::UNPROCESSABLE_ENTITY, why))
}

/// `POST /api/log {"filter": "info,weir_cloud=debug"}`.
fn log_filter() -> Action {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        filter: String,
    }
    let run = |_: &Caller, said: &Map<String, Value>| {
        let Wanted { filter } = serde_json::from_value(Value::Object(said.clone())).map_err(|error| {
            format!(
                "{error}: say {{\"filter\": \"…\"}}, for example \"info\" or \"info,rdkafka=debug\"; the words are off, error, \
                 warn, info, debug, trace"
            )
        })?;
        let before = log::set(&filter)?;
        Ok(Done { before: json!(before), after: json!(filter) })
    };
    Action { path: "log", role: Role::Operator, run: Arc::new(run) }
}
