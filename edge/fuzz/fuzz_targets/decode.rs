//! Messages as sources hand them over: JSON, CSV, cleaning rules.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_edge::fuzzing::decode(bytes));
