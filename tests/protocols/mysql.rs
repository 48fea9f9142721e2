//! MySQL: rows and progress in one transaction, claims by epoch.
//!
//! Comes in: guards and troubles ([`model`]). Goes out: what each guard is good for ([`tests`]).
//! Guarantees: follows `cloud/src/sinks/mysql.rs` and `mysql/claim.rs` statement by statement ([`worker`]) against a
//! [`database`] with row locks, while workers die and are taken for dead, and sessions whose client is gone say their
//! last words ([`troubles`]).
//! Left out: more than one partition in a transaction (so deadlocks are only rollbacks), dead letters, window results
//! of higher revisions, a session that is kept over a revoke, and the moment between asking who claimed and the KILL.

mod database;
mod model;
mod tests;
mod troubles;
mod worker;
