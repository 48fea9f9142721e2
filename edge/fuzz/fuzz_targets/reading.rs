//! The JSON of `weir.readings`, as the engines read it.

#![no_main]

#[path = "../reading.rs"]
mod reading;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reading::reading(bytes));
