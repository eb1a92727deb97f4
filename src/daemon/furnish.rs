//! Builds the rooms, each from its own settings and from what was stored.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::{self, Door},
    config::{self, Config, Loaded, ServerEntry},
    housekeeping::{self, Housekeeping, Purse, now},
    registry::{self, Hint, ServerSettings},
    relay::{self, Relay},
    scan::{self, Watch},
    server::Source,
    service::launch::RunError,
    simulate::{self, Simulated},
    store::{self, Store, StoreError},
    upstream::{self, Upstream},
    wire::{ConfigView, Setting, SettingSource},
};

/// Everything that serves.
pub(super) struct House {
    pub(super) house: Arc<Housekeeping>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) door: Arc<Door>,
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
    let (store, stored) = open_store(&loaded.paths.state.path, &config.stats)?;
    let settings = registry::Settings { cloud: config.zones(), ..registry::Settings::default() };
    let (registry, figures) = housekeeping::restore(&store, &stored, settings, now());
    let house = Housekeeping::new(housekeeping::Furnishing {
        registry,
        figures,
        purse: purse(config, &store, &stored),
        store,
        keys: config.keys(),
        kinds_off: config.disabled_kinds.clone(),
        trusts: trusts(config),
        ours: ours(),
        tracking: config.stats.tracking,
        queue: config.queue.size,
    });
    let ca = config.servers.iter().filter_map(|it| Some((it.endpoint.clone(), it.ca.clone()?))).collect();
    let upstream = Upstream::new(upstream::Settings { ca })
        .map_err(|fault| RunError::Failed(format!("cannot prepare connections: {fault}")))?;
    let upstream = Arc::new(upstream);
    let relay = Relay::new(
        house.clone(),
        upstream.clone(),
        relay::Settings {
            patience: config.patience,
            aliases: config.aliases.clone(),
            chains: config.fallback.chains.clone(),
            fallback: config.fallback.default,
            limit: config.fallback.limit,
            held: config.limits.held.as_usize(),
            gpu_memory: config.limits.gpu_memory.map(|it| it.0),
        },
        fastrand::u64(..),
    );
    let door = Door::new(
        api::Furnishing {
            house: house.clone(),
            relay,
            socket,
            listen,
            instance: format!("{:016x}", fastrand::u64(..)),
            config: view(loaded),
            aliases: config.aliases.clone(),
            body_limit: config.limits.body.0,
            hosts: config.listen.hosts.clone(),
            origins: config.listen.origins.clone(),
            control_on_tcp: config.listen.control,
            stopping,
            notes: loaded.warnings.clone(),
        },
        started,
        fastrand::u64(..),
    );
    // Outside this machine the configuration alone trusts, and that may have changed.
    for server in &house.snapshot().servers {
        if server.found_by.contains(&Source::Added) && !server.endpoint.is_local() {
            house.add(server.endpoint.clone());
        }
    }
    for entry in &config.servers {
        hint(&house, entry);
    }
    let demo = if demo { start_demo(&house).await? } else { Vec::new() };
    Ok(House { house, upstream, door, demo })
}

/// Starts to look for servers.
pub(super) fn look_for_servers(
    loaded: &Loaded,
    house: &Arc<Housekeeping>,
    upstream: Arc<Upstream>,
    listen: Option<SocketAddr>,
    stopping: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    let discovery = &loaded.config.discovery;
    let settings = scan::Settings {
        ports: discovery.ports.clone(),
        skip_ports: discovery.skip_ports.iter().copied().chain(loaded.config.cloud_ports()).collect(),
        socket_table: discovery.socket_table,
        own: listen.into_iter().collect(),
        ..scan::Settings::default()
    };
    tasks.spawn(scan::run(settings, upstream, house.clone(), stopping));
}

/// What may be spent. Without the cloud nothing of it is so much as read.
fn purse(config: &Config, store: &Store, stored: &store::Loaded) -> Purse {
    let nothing = store::Records::new();
    // Without a store nothing is bought, and so nothing is lost.
    let days = if store.is_ok() { stored.spending.as_ref() } else { Some(&nothing) };
    match config.cloud.enabled {
        false => Purse::closed(),
        true => Purse::open(config.cloud.prices.clone(), config.cloud.daily, days),
    }
}

fn open_store(dir: &Path, stats: &config::Stats) -> Result<(Store, store::Loaded), RunError> {
    let opened = match stats.tracking {
        true => Store::open_with_rows(dir, stats.max_size.0),
        false => Store::open(dir),
    };
    opened.map_err(|error| match error {
        StoreError::Held { .. } => RunError::AlreadyRunning(error.to_string()),
        StoreError::Future { .. } => RunError::Failed(error.to_string()),
    })
}

/// What `[discovery] trust` names.
fn trusts(config: &Config) -> housekeeping::Trusts {
    let trust = config.discovery.trust.clone();
    Box::new(move |endpoint| trust.iter().any(|it| it.covers(endpoint)))
}

/// What belongs to somebody trusted, by its socket.
fn ours() -> housekeeping::Trusts {
    let scan::Settings { owners, proc_root, .. } = scan::Settings::default();
    Box::new(move |endpoint| owners.trust_listener(endpoint, &proc_root))
}

fn hint(house: &Housekeeping, entry: &ServerEntry) {
    let settings = ServerSettings {
        name: entry.name.clone(),
        kind: entry.kind.clone(),
        priority: entry.priority,
        limit: entry.limit,
        zone: entry.zone,
        enabled: entry.enabled,
    };
    house.hint(Hint {
        endpoint: entry.endpoint.clone(),
        source: entry.source,
        trusted: true,
        settings: Some(settings),
    });
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

fn view(loaded: &Loaded) -> ConfigView {
    let settings = loaded.settings.iter().map(|it| Setting {
        key: it.key.clone(),
        value: it.value.clone(),
        from: match it.from {
            config::Origin::Flag => SettingSource::Flag,
            config::Origin::Environment => SettingSource::Environment,
            config::Origin::File => SettingSource::File,
            config::Origin::Default => SettingSource::Default,
        },
        at: it.at.clone(),
    });
    ConfigView {
        file: loaded.file.as_ref().map(|it| it.display().to_string()),
        warnings: loaded.warnings.clone(),
        settings: settings.collect(),
    }
}
