//! The daemon's command line. It is here and not with the program so that its
//! manual page is written from the same definition.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

use super::launch::{Background, Wishes};
use crate::config::{Flags, PathFlags};

/// Find the model servers on this machine and answer for all of them
///
/// Without flags it runs in the foreground, logs to stderr and says where its socket is.
/// Everything has a default; no configuration is needed.
#[derive(Debug, Parser)]
#[command(name = "lovabled", version, after_help = EXIT_CODES)]
pub struct Args {
    /// Read this configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on this Unix socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Keep servers and statistics in this directory
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Listen on this loopback address and port as well
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Go to the background, and return when requests are answered
    #[arg(long)]
    daemonize: bool,
    /// Write the number of the process to this file
    #[arg(long, value_name = "FILE", requires = "daemonize")]
    pid_file: Option<PathBuf>,
    /// Append the log to this file; SIGUSR1 opens it again
    #[arg(long, value_name = "FILE", requires = "daemonize")]
    log_file: Option<PathBuf>,
    /// Write the log for people or for machines
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Log more; twice for everything
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log less; twice for errors only
    #[arg(short, long, action = ArgAction::Count)]
    quiet: u8,
    /// Check the configuration and leave
    #[arg(long)]
    pub check_config: bool,
    /// Start three simulated servers to try everything with; nothing is kept
    #[arg(long, conflicts_with = "state_dir")]
    demo: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or configuration, \
                          5 already running.";

impl Args {
    /// What belongs to the configuration.
    pub fn flags(&self) -> Flags {
        // More than a few of either mean the same as a few.
        let count = |it: u8| i8::try_from(it).unwrap_or(i8::MAX);
        Flags {
            paths: PathFlags {
                config: self.config.clone(),
                socket: self.socket.clone(),
                state_dir: self.state_dir.clone(),
                demo: None,
            },
            listen: self.listen.clone(),
            log_format: self.log_format.clone(),
            verbosity: count(self.verbose) - count(self.quiet),
        }
    }

    /// What a launch is to do.
    pub fn wishes(self) -> Wishes {
        let flags = self.flags();
        let background = Background { pid_file: self.pid_file, log_file: self.log_file };
        Wishes { flags, background: self.daemonize.then_some(background), demo: self.demo }
    }
}
