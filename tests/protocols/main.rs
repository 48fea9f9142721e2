//! The protocols by which the sinks write exactly once, explored in every order of events, before any real server.
//!
//! Comes in: a model of each protocol (`cloud/src/sinks/` is what they follow). Goes out: what can go wrong, with the
//! shortest way there.
//! Guarantees: every interleaving of two workers, their crashes, lost answers, late requests and takeovers is tried,
//! up to a small number of faults over a log of a few records. As the code is, no row is doubled, lost or replaced by
//! an older one, and work comes to its end once the faults stop; what remains possible all the same, on which servers,
//! stands in tests of its own. A guard that is taken out must show the harm it guards against; where none shows, the
//! name of the test says that it is not needed for safety. A worker that is frozen and goes on later (a zombie) needs
//! no event of its own: it is one that takes no step for a while.
//! On failure: the test prints the shortest way to each harm, event by event; `--nocapture` always does.

mod clickhouse;
mod elasticsearch;
mod explorer;
mod group;
mod mysql;
