//! One local daemon that finds the model servers on this machine and answers
//! for all of them, with failover. `ARCHITECTURE.md` is the map of the rooms.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod dialect;
pub mod failover;
pub mod fault;
pub mod folder;
pub mod generate;
pub mod hardware;
pub mod housekeeping;
pub mod kind;
pub mod ledger;
pub mod metrics;
pub mod otlp;
pub mod postgres;
pub mod queue;
pub mod registry;
pub mod relay;
pub mod resume;
pub mod route;
pub mod scan;
pub mod server;
pub mod service;
pub mod simulate;
pub mod spending;
pub mod stats;
pub mod store;
pub mod upstream;
pub mod wire;
