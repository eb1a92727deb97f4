//! The daemon's command line: flags in, exit code out. What they do is in
//! `service::launch`; what runs then is in `daemon`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use lovable::{
    config::Surroundings,
    daemon,
    service::{
        args::Args,
        launch::{self, LaunchError, Launched},
    },
};

fn main() -> ExitCode {
    let args = Args::parse();
    let around = Surroundings::of_process();
    let outcome = if args.check_config {
        launch::check(&args.flags(), &around).map(|loaded| {
            for warning in &loaded.warnings {
                say(&format!("warning: {warning}"));
            }
            match &loaded.file {
                Some(file) => say(&format!("{} is fine", file.display())),
                None => say(&format!("no {}: the defaults hold", loaded.paths.config.path.display())),
            }
        })
    } else {
        launch::launch(args.wishes(), &around, daemon::run).map(|launched| match launched {
            Launched::Stopped => {}
            Launched::Answers { socket } => say(&format!("lovabled answers on {}", socket.display())),
        })
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn complain(error: &LaunchError) {
    for line in error.to_string().lines() {
        say(&format!("lovabled: {line}"));
    }
}

/// Tells the person. Nobody is left to hear that stderr is closed.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
