//! ClickHouse: a plan, inserts under tokens, and asking what arrived.
//!
//! Comes in: guards and troubles ([`model`]). Goes out: what each guard is good for ([`tests`]).
//! Guarantees: follows `cloud/src/sinks/clickhouse.rs` step by step ([`worker`]) against a [`server`] that may take an
//! insert late or in part, while workers die and are taken for dead ([`troubles`]).
//! Left out: more than one partition in a batch, dead letters (their transaction is in the model of Elasticsearch),
//! other columns than planned, the five seconds between two tries.

mod model;
mod server;
mod tests;
mod troubles;
mod worker;
