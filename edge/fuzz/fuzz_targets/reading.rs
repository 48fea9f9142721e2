//! The JSON of `weir.readings`, as the engines read it.

#![no_main]

#[path = "../engines.rs"]
mod engines;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engines::reading(bytes));
