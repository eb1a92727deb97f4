//! The command line: asks the daemon and says what it said.
//!
//! One file per subcommand and one line in the table below. A command gets a
//! `Context`, writes data to `out` and talk to `talk`, and returns an exit
//! code or the [`Trouble`] that it had; only `run` turns trouble into words and
//! a code, so every command fails in the same way. With `--json` the bytes of
//! the API are printed as they came.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Parser;

use crate::client::{Client, ClientError, Reply, STATUS_PATIENCE};

mod bench;
mod chat;
mod complete;
mod completions;
mod config;
mod doctor;
mod events;
mod exec;
mod generate;
mod hint;
mod image;
mod man;
mod models;
mod out;
mod place;
mod say;
mod schema;
mod servers;
mod service;
mod stats;
mod status;
mod table;
mod why;

pub use complete::complete;
pub use out::{Color, Out};

/// Makes the table of subcommands: its help, its name, its file.
macro_rules! commands {
    ($($(#[doc = $help:literal])* $name:ident($file:ident),)*) => {
        #[derive(Debug, clap::Subcommand)]
        enum Command {
            $($(#[doc = $help])* $name($file::Args),)*
        }

        impl Command {
            async fn run(self, context: &mut Context) -> Result<Exit, Trouble> {
                match self {
                    $(Self::$name(args) => $file::run(args, context).await,)*
                }
            }
        }
    };
}

commands! {
    /// Show the health of the daemon, its servers, models and traffic
    Status(status),
    /// List the servers found, and say what you think of them
    Servers(servers),
    /// List the models across all servers, or show one in full
    Models(models),
    /// Ask a model, and stream its answer to stdout
    Generate(generate),
    /// Talk with a model in the terminal
    Chat(chat),
    /// Run a program with its base URLs and keys set to a bridge to the daemon
    Exec(exec),
    /// Show how requests went: success, time and tokens
    Stats(stats),
    /// Show how a request was decided: servers, ranks, attempts, faults, times
    Why(why),
    /// Measure how soon and how fast the models of this machine answer
    Bench(bench),
    /// Follow what changes, one line each
    Events(events),
    /// Show, check or edit the settings
    Config(config),
    /// Check everything that commonly goes wrong, and name what mends it
    Doctor(doctor),
    /// Have the daemon started with your session, and again when it dies
    Service(service),
    /// Print what a shell needs to complete commands, models and servers
    Completions(completions),
    /// Print a manual page, or write all of them
    Man(man),
}

impl Command {
    /// Whether an interrupt is the command's own business, rather than its end.
    fn minds_interrupts(&self) -> bool {
        matches!(self, Self::Chat(_) | Self::Exec(_) | Self::Bench(_))
    }
}

/// Talk to lovabled, which answers for all model servers of this machine
#[derive(Debug, Parser)]
#[command(name = "lovablectl", version)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Ask the daemon at this socket [env: LOVABLE_SOCKET]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Everywhere")]
    socket: Option<PathBuf>,
    /// Print exactly what the API said; where it streams, one object a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "auto|always|never",
        hide_possible_values = true,
        default_value = "auto",
        help_heading = "Everywhere"
    )]
    color: Color,
    /// Give up after this long, such as 500ms, 5s or 2m
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, help_heading = "Everywhere")]
    timeout: Option<Duration>,
}

/// What a command works with.
struct Context {
    client: Client,
    /// Where the daemon was looked for, in order.
    looked: Vec<PathBuf>,
    socket: Option<PathBuf>,
    json: bool,
    out: Out,
    talk: Out,
}

impl Context {
    /// How many servers are known, where the daemon says so without delay.
    async fn servers_known(&self) -> Option<usize> {
        let asked = tokio::time::timeout(STATUS_PATIENCE, self.client.servers()).await;
        Some(asked.ok()?.ok()?.read().ok()?.servers.len())
    }

    /// Prints a reply as the API said it, or as `page` draws what it means.
    fn show<T: serde::de::DeserializeOwned>(
        &mut self,
        reply: &Reply<T>,
        page: impl FnOnce(&T, out::Look) -> String,
    ) -> Result<(), Trouble> {
        if self.json {
            return self.out.json(reply.raw());
        }
        let page = page(&reply.read()?, self.out.look);
        self.out.page(&page)
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Fine.
    Fine,
    /// The request failed.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// The daemon cannot be reached.
    Unreachable,
    /// The daemon runs, but there is no usable server or model.
    Unusable,
    /// Interrupted.
    Interrupted,
    /// As the program that was run has ended.
    Program(u8),
}

impl Exit {
    /// The code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Unusable => 4,
            Self::Interrupted => 130,
            Self::Program(code) => code,
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The daemon did not, or would not.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was asked in a way that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something else did not work.
    #[error("{0}")]
    Failed(String),
    /// Nobody takes our output.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl Trouble {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => match error {
                ClientError::Unreachable { .. } | ClientError::Silent { .. } | ClientError::HungUp { .. } => {
                    Exit::Unreachable
                }
                ClientError::Api { code, .. } if code == "no_server" => Exit::Unusable,
                ClientError::Api { .. } | ClientError::BrokenOff { .. } | ClientError::Unreadable(_) => {
                    Exit::Failed
                }
            },
            Self::Usage(_) => Exit::Usage,
            Self::Failed(_) => Exit::Failed,
            // Whoever reads has enough: that is no trouble of ours.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
            Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command line `args`, the program's own name first.
pub async fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, complaints to stderr; if neither can be written, the code still says it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Fine };
        }
    };
    let Global { socket, json, color, timeout } = cli.global;
    let (out, mut talk) = (Out::stdout(color), Out::stderr(color));
    let looked = match place::candidates(socket.as_deref()) {
        Ok(looked) => looked,
        Err(problem) => {
            let _ = talk.line(format!("lovablectl: {problem}"));
            return Exit::Usage;
        }
    };
    let client = Client::new(&place::choose(&looked).await);
    let client = match timeout {
        Some(timeout) => client.with_patience(timeout),
        None => client,
    };
    let mut context = Context { client, looked, socket, json, out, talk };
    let outcome = if cli.command.minds_interrupts() {
        cli.command.run(&mut context).await
    } else {
        tokio::select! {
            // A command that is through has ended as it did, even when the key came meanwhile.
            biased;
            ended = cli.command.run(&mut context) => ended,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    };
    match outcome {
        Ok(exit) => exit,
        Err(trouble) => {
            explain(&trouble, &mut context).await;
            trouble.exit()
        }
    }
}

/// Says what went wrong and what helps. If even that cannot be written, the exit code remains.
async fn explain(trouble: &Trouble, context: &mut Context) {
    if let Trouble::Output(error) = trouble
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return;
    }
    if let Trouble::Client(ClientError::Api { raw, .. } | ClientError::BrokenOff { raw, .. }) = trouble
        && context.json
        && !raw.is_empty()
    {
        let _ = context.out.json_line(raw);
    }
    let name = context.talk.look.paint(out::Ink::Bad, "lovablectl:");
    let _ = context.talk.line(format!("{name} {}", say::clean_lines(&trouble.to_string())));
    if let Some(hint) = hint::after(trouble, &context.looked) {
        let _ = context.talk.text(&hint);
    }
    if trouble.exit() == Exit::Unusable {
        let none = matches!(context.servers_known().await, Some(0));
        let seen = "`lovablectl servers` shows the servers that are known, and what hinders them.\n";
        let _ = context.talk.text(&if none { hint::no_server() } else { seen.to_owned() });
    }
}

/// A duration with its unit, as it is written everywhere.
fn duration(text: &str) -> Result<Duration, String> {
    // It is added to a clock; a century is more than anybody waits and less than what overflows.
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    let duration = crate::config::parse_duration(text);
    duration
        .filter(|it| *it <= CENTURY)
        .ok_or_else(|| "write it with its unit: 500ms, 5s, 2m, 24h or 7d".to_owned())
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
