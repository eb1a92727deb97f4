//! What an Anthropic-like server answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lovable_fuzz::read("anthropic", data));
