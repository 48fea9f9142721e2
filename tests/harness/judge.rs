//! An oracle of its own for the fault suite: it believes nothing that the product says of itself.
//!
//! Comes in: what was published and acknowledged ([`run`]), and every record that Kafka holds since ([`tape`]). Goes
//! out: a [`Verdict`].
//! Guarantees: repeats are dropped by the cloud's rule ([`marks`]), and by nothing else; then every acknowledged reading
//! must be there once, say what it said, and stand behind its device's earlier ones; what is missing must be what the
//! edge announced, to the number. [`windows`] must have counted every reading. What the processor made of its input is
//! judged by [`processed`]. Pure, but for what reads Kafka.

pub mod enriched;
pub mod marks;
pub mod processed;
pub mod run;
pub mod tape;
mod verdict;
pub mod windows;

#[cfg(test)]
mod tests;

pub use verdict::{Verdict, judge};
