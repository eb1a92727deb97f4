//! `exec`: runs a program that knows nothing of sockets, with a bridge of its own.
//!
//! Seen from outside we are the program: its input and output are ours, signals
//! reach it, and it ends as we do. The bridge is part of our process and needs no
//! end of its own.

use std::{ffi::OsString, io, os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

use self::{bridge::Bridge, key::Key};
use super::{Context, Exit, Trouble};

mod admission;
mod bridge;
mod environment;
mod key;
mod signals;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The program finds OPENAI_BASE_URL, OPENAI_API_KEY, ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY, OLLAMA_HOST and \
OLLAMA_API_KEY set to a loopback address that lives as long as the program and admits only its key. \
ANTHROPIC_AUTH_TOKEN, OPENAI_API_BASE and AI_GATEWAY_API_KEY, which would lead it elsewhere, are taken away.

Signals are passed on, and the program's exit code is ours: 128 and the signal when one killed it, 127 when \
there is no such program, 126 when it cannot be run, 3 when lovabled is not running.

Examples:
  lovablectl exec claude
  lovablectl exec -- python3 app.py --verbose")]
pub(super) struct Args {
    /// The program and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// What shells and `env` say of a program that is not there, and of one that will not run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    // A program that starts well and then finds nobody would be a riddle.
    context.client.status().await?;
    let failed = |what: &str, error: io::Error| Trouble::Failed(format!("{what}: {error}"));
    let key = Key::new().map_err(|error| failed("cannot make a key", error))?;
    let bridge = Bridge::open(context.client.clone(), key.clone())
        .await
        .map_err(|error| failed("cannot open a loopback port", error))?;
    let port = bridge.port().map_err(|error| failed("cannot open a loopback port", error))?;
    let signals = signals::catch()?;

    let Some((program, rest)) = args.command.split_first() else { return Ok(Exit::Usage) };
    let mut command = Command::new(program);
    command.args(rest).envs(environment::variables(port, &key, |name| std::env::var(name).ok()));
    for name in environment::REMOVED {
        command.env_remove(name);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
            context.talk.line(format!("lovablectl: cannot run {}: {error}", program.display()))?;
            return Ok(Exit::Program(code));
        }
    };
    let ended = tokio::select! {
        ended = wait(&mut child, signals) => ended,
        never = bridge.carry() => never,
    };
    Ok(Exit::Program(code(ended.map_err(|error| failed("cannot wait for the program", error))?)))
}

/// Waits for the program's end, and passes on meanwhile what is sent to us.
async fn wait(child: &mut Child, mut signals: mpsc::UnboundedReceiver<Signal>) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            biased;
            ended = child.wait() => return ended,
            Some(signal) = signals.recv() => {
                // It may have ended just now; then there is nobody to tell.
                let pid = child.id().and_then(|it| Pid::from_raw(i32::try_from(it).ok()?));
                if let Some(pid) = pid {
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

fn code(ended: ExitStatus) -> u8 {
    let code = ended.code().or_else(|| Some(128 + ended.signal()?));
    code.and_then(|it| u8::try_from(it).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_programs_or_128_and_the_signal() {
        for (status, expected) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (15, 143), (9, 137), (2, 130)] {
            assert_eq!(code(ExitStatus::from_raw(status)), expected);
        }
    }
}
