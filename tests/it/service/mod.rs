//! The daemon among the services of a machine: its units and the manager that runs them,
//! what installs and examines it, and what a package brings along.
//!
//! Where the tests run there is rarely a systemd, so its part is played by
//! [`supervisor`], which reads the same units and speaks the same protocol.

mod doctor;
mod install;
mod packages;
mod planted;
mod supervisor;
mod systemd;
mod unit;
mod units;
mod words;
