//! End to end, on real servers: from MQTT to all three stores, judged by the oracle; and the oracle judged itself.
//!
//! All tests share one stack (`test`: its own ports and folder) and one run of the simulated devices, with a kill -9
//! of each program in mid-stream; the first test that needs the run makes it. What they read afterwards does not
//! change any more, except in [`damage`], which waits for the others: they only look at what the run left behind; [`dlq`] then
//! brings records of its own.
//! A server or program that is missing fails the tests; nothing is skipped, nothing is tried again.

mod books;
mod damage;
mod dlq;
mod first_light;
mod outputs;
mod rules;
