//! What an Anthropic client asks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lovable_fuzz::understand("anthropic", data));
