//! Keeps the service manager informed: ready when the socket answers and the
//! first look around is over, alive for as long as requests are answered, and
//! a line for people whenever servers or models change.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use crate::{
    housekeeping::Housekeeping,
    registry::Snapshot,
    service::{pulse, readiness::Readiness},
    wire::{ModelCounts, ServerCounts},
};

/// Between two questions whether we answer, before we do.
const AGAIN: Duration = Duration::from_millis(50);
/// Before the manager counts on us, an answer may take this long.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// Between two lines for people: servers that come and go would fill the manager's log, and each
/// line walks over all of them.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// Who tells the manager, and of what.
pub(super) struct Manager {
    pub(super) readiness: Readiness,
    pub(super) house: Arc<Housekeeping>,
    pub(super) socket: PathBuf,
    /// Whether the socket is the manager's, so that a restart would not make it anew.
    pub(super) inherited: bool,
}

impl Manager {
    /// Informs the manager until the daemon is told to stop.
    pub(super) async fn inform(self, mut stopping: watch::Receiver<bool>) {
        if !self.readiness.is_asked_for() {
            return;
        }
        let informing = async {
            self.until_ready().await;
            let mut news = self.house.news();
            let said = headline(&self.house.snapshot());
            self.readiness.ready(&said);
            tokio::join!(self.follow(&mut news, said), self.live());
        };
        tokio::select! {
            () = informing => {}
            // An error means that the daemon itself is gone, which is the same.
            _ = stopping.wait_for(|it| *it) => {}
        }
    }

    async fn until_ready(&self) {
        self.readiness.status("looking for model servers");
        self.house.looked_around().await;
        while pulse::answers(&self.socket, FIRST_ANSWER).await.is_err() {
            sleep(AGAIN).await;
        }
    }

    async fn follow(&self, news: &mut watch::Receiver<()>, mut said: String) {
        // The house is ours, so its news do not end.
        while news.changed().await.is_ok() {
            let line = headline(&self.house.snapshot());
            if line != said {
                self.readiness.status(&line);
                said = line;
            }
            sleep(BETWEEN_LINES).await;
        }
    }

    /// Gives a sign of life whenever a request over the socket was answered. One that comes
    /// from a timer alone would also come from a daemon that takes no connections.
    async fn live(&self) {
        let Some(limit) = self.readiness.watchdog() else { return };
        let mut told = false;
        loop {
            let pause = match pulse::answers(&self.socket, limit / 4).await {
                Ok(()) => {
                    self.readiness.alive();
                    limit / 2
                }
                // The manager would start us again with the same socket, and mend nothing.
                Err(error) if self.inherited && is_lost(&error) => {
                    self.readiness.alive();
                    if !std::mem::replace(&mut told, true) {
                        let path = self.socket.display();
                        tracing::error!(
                            "somebody removed {path}: nobody can reach us until the socket unit is restarted"
                        );
                    }
                    limit / 2
                }
                Err(error) => {
                    tracing::warn!(%error, "our own socket does not answer");
                    limit / 8
                }
            };
            sleep(pause).await;
        }
    }
}

/// Whether the file of the socket is gone, or not the socket's any more.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// What there is, in a line.
fn headline(snapshot: &Snapshot) -> String {
    let (servers, models) = (ServerCounts::of(snapshot), ModelCounts::of(snapshot));
    let plural = |count: u32, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let usable = servers.up + servers.suspect;
    let mut line = if usable == 0 {
        "no model server to send requests to".to_owned()
    } else {
        format!("{} on {}", plural(models.available, "model"), plural(usable, "server"))
    };
    for (count, what) in
        [(servers.down, "down"), (servers.untrusted, "untrusted"), (servers.draining, "draining")]
    {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line
}

/// What is left to do before we leave.
pub(super) fn farewell(running: usize) -> String {
    match running {
        0 => "stopping".to_owned(),
        1 => "stopping once 1 answer has ended".to_owned(),
        more => format!("stopping once {more} answers have ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_found_is_said_in_words() {
        assert_eq!(headline(&Snapshot::default()), "no model server to send requests to");
    }

    #[test]
    fn a_farewell_says_what_is_waited_for() {
        let said = [0, 1, 2].map(farewell);
        let expected = ["stopping", "stopping once 1 answer has ended", "stopping once 2 answers have ended"];
        assert_eq!(said, expected);
    }
}
