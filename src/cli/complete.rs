//! What a shell's completion asks us: names come from the running daemon, and
//! soon or not at all, for somebody waits with a finger on the key.

use std::{future::Future, time::Duration};

use clap::CommandFactory;
use clap_complete::{CompleteEnv, engine::CompletionCandidate};

use super::{Cli, place, say};
use crate::client::Client;

/// A daemon that lives answers in a millisecond.
const PATIENCE: Duration = Duration::from_millis(300);

/// The variable by which the script of `completions` asks.
pub(super) const VARIABLE: &str = "LOVABLECTL_COMPLETE";

/// Answers a shell's question for completions and ends the process, if it is one.
pub fn complete() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Models that can be asked for, with their aliases.
pub(super) fn models() -> Vec<CompletionCandidate> {
    names(async |client| {
        let models = client.models().await.ok()?.read().ok()?.models;
        Some(models.into_iter().flat_map(|it| [vec![it.name.to_string()], it.aliases].concat()).collect())
    })
}

/// Ids of servers.
pub(super) fn servers() -> Vec<CompletionCandidate> {
    names(async |client| {
        let servers = client.servers().await.ok()?.read().ok()?.servers;
        Some(servers.into_iter().map(|it| it.id.to_string()).collect())
    })
}

fn names(ask: impl AsyncFnOnce(&Client) -> Option<Vec<String>>) -> Vec<CompletionCandidate> {
    let asked = async {
        let client = Client::new(&place::choose(&place::candidates(None).ok()?).await);
        ask(&client).await
    };
    let names = within(PATIENCE, asked).unwrap_or_default();
    // A shell would print what a name does to a terminal.
    names.into_iter().filter(|it| say::clean(it) == *it).map(CompletionCandidate::new).collect()
}

fn within<T>(patience: Duration, asked: impl Future<Output = Option<T>>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(patience, asked).await.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_daemon_that_hangs() {
        assert_eq!(within(Duration::from_millis(1), std::future::pending::<Option<()>>()), None);
        assert_eq!(within(Duration::from_secs(1), std::future::ready(Some(7))), Some(7));
    }
}
