//! What a server of OpenAI's Responses answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lovable_fuzz::read("responses", data));
