//! The binaries as people use them: on a temporary socket, against simulated
//! and real model servers.

#![expect(clippy::unwrap_used, reason = "a failed test should stop at the value")]
#![expect(clippy::print_stderr, reason = "a test that is left out says so")]

mod bad_input;
mod caller;
mod clients;
mod cloud;
mod context;
mod crash;
mod daemon;
mod dialect;
mod dialect_always;
mod dialect_example;
mod dialect_failure;
mod dialect_table;
mod discovery;
mod doors;
mod exec;
mod fault_table;
mod generate;
mod http;
mod layering;
mod lifecycle;
mod load;
mod namespace;
mod pressure;
mod privacy;
mod proof;
mod real;
mod real_cut;
mod relay;
mod resume;
mod scripted;
mod sold;
mod stand_in;
mod talk;
mod terminal;
mod translation;
