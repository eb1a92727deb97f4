//! The binaries as people use them: on a temporary socket, against simulated
//! and real model servers.

#![expect(clippy::unwrap_used, reason = "a failed test should stop at the value")]
#![expect(clippy::print_stderr, reason = "a test that is left out says so")]

mod bad_input;
mod bench;
mod budget;
mod caller;
mod clients;
mod cloud;
mod context;
mod crash;
mod crowd;
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
mod fleet;
mod generate;
mod http;
mod kinds;
mod language;
mod layering;
mod ledger;
mod lifecycle;
mod live;
mod load;
mod matrix;
mod monitoring;
mod namespace;
mod network;
mod patience;
mod pressure;
mod privacy;
mod process;
mod proof;
mod real;
mod real_cut;
mod real_storm;
mod relay;
mod resume;
mod scripted;
mod service;
mod sold;
mod stand_in;
mod storm;
mod talk;
mod terminal;
mod translation;
mod trust;
mod witness;
