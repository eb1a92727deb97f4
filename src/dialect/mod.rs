//! The table of dialects: one wire language per file, from both sides.
//!
//! Facing the caller a dialect peeks at requests, refuses, breaks off and
//! lists; facing a server it readdresses the caller's bytes and judges what
//! comes back. All of it is pure: byte slices in, verdicts and bytes out. A
//! dialect knows no server, no socket and no failover. Adding one is one file
//! and one line.

pub mod frames;
mod json;
pub mod openai;
pub mod own;
