//! Takes connections, and lets in whom the contract lets in.

use std::{future::Future, io, os::unix::net::UnixListener as StdUnixListener, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
};

use crate::{
    api::{self, Door, Peer},
    config::Scope,
    service::{socket, tcp as tcp_peer},
};

/// When the process has no more files: until a connection ends there is nothing to do but wait.
const NO_FILES: Duration = Duration::from_millis(50);

/// What every way in needs.
#[derive(Clone)]
pub(super) struct Doorway {
    pub(super) door: Arc<Door>,
    pub(super) scope: Scope,
    pub(super) stopping: watch::Receiver<bool>,
    /// Held by each connection while it lives.
    pub(super) alive: mpsc::Sender<()>,
}

impl Doorway {
    /// Accepts until told to stop.
    async fn accept<T, A>(mut self, mut next: A)
    where
        A: AsyncFnMut(&Self) -> io::Result<Option<T>>,
        T: Connection,
    {
        loop {
            let accepted = tokio::select! {
                accepted = next(&self) => accepted,
                // An error means that the daemon is gone, which is the same.
                _ = wait_for(&mut self.stopping.clone()) => return,
            };
            match accepted {
                Ok(Some(connection)) => connection.spawn(&self),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(NO_FILES).await;
                }
            }
        }
    }
}
