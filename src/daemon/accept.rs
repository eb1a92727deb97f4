//! Takes connections, and lets in whom the contract lets in.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
};

use crate::{
    api::{self, Door, Peer, Who},
    config::Scope,
    service::{socket, tcp as tcp_door},
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

/// Ready once the daemon is told to stop.
async fn told(mut stopping: watch::Receiver<bool>) {
    // An error means that the daemon itself is gone, which is the same.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Accepts over the Unix socket until told to stop.
pub(super) async fn socket(doorway: Doorway, listener: UnixListener) {
    let own = rustix::process::getuid().as_raw();
    let take = || async {
        let (stream, _) = listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        if !socket::peer_allowed(peer, own, doorway.scope) {
            tracing::warn!(peer, "a user who may not use the socket was turned away");
            return Ok(());
        }
        let may_change = match doorway.scope {
            Scope::User => true,
            Scope::System => peer == 0 || peer == own,
        };
        let Doorway { door, stopping, alive, .. } = doorway.clone();
        tokio::spawn(async move {
            api::serve(door, stream, Peer::Socket { may_change, uid: Some(peer) }, told(stopping)).await;
            drop(alive);
        });
        Ok(())
    };
    accept(&doorway, take).await;
}

/// Accepts over TCP until told to stop.
pub(super) async fn tcp(doorway: Doorway, listener: TcpListener) {
    let own = rustix::process::getuid().as_raw();
    let take = || async {
        let (stream, peer) = listener.accept().await?;
        let local = stream.local_addr()?;
        let who = if !peer.ip().to_canonical().is_loopback() {
            Who::Outside
        } else if tcp_door::peer_allowed(peer, local, own, doorway.scope) {
            Who::User
        } else {
            Who::Stranger
        };
        let peer = Peer::Tcp { who, local: local.ip(), shared: doorway.scope == Scope::System };
        // Streams are many small writes, each of which somebody waits for.
        let _ = stream.set_nodelay(true);
        let Doorway { door, stopping, alive, .. } = doorway.clone();
        tokio::spawn(async move {
            api::serve(door, stream, peer, told(stopping)).await;
            drop(alive);
        });
        Ok(())
    };
    accept(&doorway, take).await;
}

async fn accept<T: Future<Output = io::Result<()>>>(doorway: &Doorway, take: impl Fn() -> T) {
    let mut stop = std::pin::pin!(told(doorway.stopping.clone()));
    loop {
        let taken = tokio::select! {
            taken = take() => taken,
            () = &mut stop => return,
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "cannot take a connection");
            tokio::time::sleep(NO_FILES).await;
        }
    }
}
