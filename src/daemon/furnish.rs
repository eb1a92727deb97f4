//! Builds the rooms, each from its own settings and from what was stored.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::sync::watch;

use super::settings::{self, Rooms};
use crate::{
    api::{self, Door},
    config::Loaded,
    housekeeping::{self, Housekeeping, Stored, now},
    postgres::Sharing,
    registry::{self, Hint},
    relay::Relay,
    scan::{self, Watch},
    server::Source,
    service::launch::RunError,
    simulate::{self, Simulated},
    store::{self, Store, StoreError},
    upstream::Upstream,
};

/// Everything that serves.
pub(super) struct House {
    pub(super) rooms: Rooms,
    /// Alive for as long as the daemon is.
    pub(super) demo: Vec<Simulated>,
}

/// Builds the house. Nothing is asked of any server yet.
pub(super) async fn furnish(
    loaded: &Loaded,
    socket: PathBuf,
    listen: Option<SocketAddr>,
    demo: bool,
    stopping: watch::Receiver<bool>,
) -> Result<House, RunError> {
    let config = &loaded.config;
    let started = Instant::now();
    let (store, stored) = open_store(&loaded.paths.state.path, config.stats.max_size.0)?;
    let settings = settings::of_housekeeping(config);
    let said = settings.said.clone();
    let known = registry::Settings { cloud: said.cloud, trust: said.trust, ..registry::Settings::default() };
    let (registry, figures) = housekeeping::restore(&store, &stored, known, now());
    let instance = format!("{:016x}", fastrand::u64(..));
    let house = Housekeeping::new(housekeeping::Furnishing {
        instance: instance.clone(),
        registry,
        figures,
        spent: spent(&store, &stored),
        store,
        ours: ours(),
        owner_of: owner_of(),
        settings,
    });
    let sharing = Sharing::new(house.clone(), settings::of_sharing(config));
    let upstream = Upstream::new(settings::of_upstream(config))
        .map_err(|fault| RunError::Failed(format!("cannot prepare connections: {fault}")))?;
    let upstream = Arc::new(upstream);
    let relay = Relay::new(house.clone(), upstream.clone(), settings::of_relay(config), fastrand::u64(..));
    let door = Door::new(
        api::Furnishing {
            house: house.clone(),
            sharing: sharing.clone(),
            relay: relay.clone(),
            socket,
            listen,
            instance: instance.clone(),
            stopping,
            settings: settings::of_door(loaded, loaded, None),
        },
        started,
        fastrand::u64(..),
    );
    let looking = watch::channel(settings::of_scan(config, listen, &instance)).0;
    let collecting = watch::channel(settings::of_otlp(config)).0;
    let demo = if demo { start_demo(&house).await? } else { Vec::new() };
    let rooms = Rooms { house, sharing, upstream, relay, door, looking, collecting, listen };
    Ok(House { rooms, demo })
}

/// What was spent in the cloud. Without a store nothing is bought, and so nothing is lost.
fn spent(store: &Store, stored: &store::Loaded) -> Stored {
    match &stored.spending {
        Some(days) => Stored::Days(days.clone()),
        None if store.is_ok() => Stored::Lost,
        None => Stored::Days(store::Records::new()),
    }
}

fn open_store(dir: &Path, most_rows: u64) -> Result<(Store, store::Loaded), RunError> {
    // Without tracking no row comes, and no directory for rows is made.
    let opened = Store::open_with_rows(dir, most_rows);
    opened.map_err(|error| match error {
        StoreError::Held { .. } => RunError::AlreadyRunning(error.to_string()),
        StoreError::Future { .. } => RunError::Failed(error.to_string()),
    })
}

/// What belongs to somebody trusted, by its socket.
fn ours() -> housekeeping::Trusts {
    let scan::Settings { owners, proc_root, .. } = scan::Settings::default();
    Box::new(move |endpoint| owners.trust_listener(endpoint, &proc_root))
}

fn owner_of() -> housekeeping::OwnerOf {
    let scan::Settings { proc_root, .. } = scan::Settings::default();
    Box::new(move |endpoint| scan::owner_of(endpoint, &proc_root))
}

async fn start_demo(house: &Housekeeping) -> Result<Vec<Simulated>, RunError> {
    let servers = simulate::demo()
        .await
        .map_err(|error| RunError::Failed(format!("cannot start the simulated servers: {error}")))?;
    for server in &servers {
        let hint = Hint { endpoint: server.endpoint(), source: Source::Added, trusted: true, settings: None };
        house.hint(hint);
    }
    Ok(servers)
}
