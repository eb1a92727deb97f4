//! What a client of OpenAI's Responses asks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lovable_fuzz::understand("responses", data));
