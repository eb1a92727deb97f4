//! From the configuration to what each room is told of it, at the start and after each edit.
//!
//! Every room keeps its own settings and takes others as a whole; a request that is under way
//! goes on with those that it began with. What no room can change while it runs is named.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use crate::{
    api::{self, Door},
    config::{self, Config, Loaded},
    housekeeping::{self, Housekeeping, Spending},
    otlp::Collector,
    postgres::{Database, Sharing},
    relay::{self, Relay},
    scan,
    upstream::{self, Upstream},
    wire::{ConfigView, Setting, SettingSource},
};

/// Settings that hold until a restart, and how they are told of.
const UNTIL_RESTART: [(&str, &str); 3] = [
    ("listen.address", "[listen] address"),
    ("log.format", "[log] format"),
    ("stats.max_size", "[stats] max_size"),
];

/// The rooms that have settings.
#[derive(Clone)]
pub(super) struct Rooms {
    pub(super) house: Arc<Housekeeping>,
    pub(super) sharing: Arc<Sharing>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) relay: Arc<Relay>,
    pub(super) door: Arc<Door>,
    /// Where the scan hears of them.
    pub(super) looking: watch::Sender<scan::Settings>,
    /// Where whoever tells a collector hears which one.
    pub(super) collecting: watch::Sender<Option<Collector>>,
    pub(super) listen: Option<SocketAddr>,
}

impl Rooms {
    /// Hands every room what it is told now. `started` is what holds until a restart.
    pub(super) fn apply(&self, started: &Loaded, now: &Loaded) {
        let config = &now.config;
        // Who vouches for a server, and its key, before anybody is sent there; where nobody
        // may be sent any more is known when this returns.
        self.authorities(now);
        self.house.configure(of_housekeeping(config));
        self.sharing.configure(of_sharing(config));
        self.relay.configure(of_relay(config));
        // Whoever listens to the network, or sends to a collector, begins anew with other settings.
        tell_if_new(&self.looking, of_scan(config, self.listen, self.house.instance()));
        tell_if_new(&self.collecting, of_otlp(config));
        self.tell(started, now, None);
    }

    /// Has who vouches for servers read anew.
    pub(super) fn authorities(&self, now: &Loaded) {
        self.upstream.configure(of_upstream(&now.config));
    }

    /// Tells people what holds, and what is wrong with what they wrote.
    pub(super) fn tell(&self, started: &Loaded, now: &Loaded, broken: Option<String>) {
        self.door.configure(of_door(started, now, broken));
    }
}

pub(super) fn of_housekeeping(config: &Config) -> housekeeping::Settings {
    let spending = Spending { prices: config.cloud.prices.clone(), daily: config.cloud.daily };
    housekeeping::Settings {
        said: config.said(),
        keys: config.keys(),
        kinds_off: config.disabled_kinds.clone(),
        spending: config.cloud.enabled.then_some(spending),
        tracking: config.stats.tracking,
        queue: config.queue.size,
    }
}

fn tell_if_new<T: PartialEq>(to: &watch::Sender<T>, new: T) {
    to.send_if_modified(|it| {
        let is_new = *it != new;
        *it = new;
        is_new
    });
}

/// Who wants nothing to be written down wants nothing to be sent either.
pub(super) fn of_sharing(config: &Config) -> Option<Database> {
    config.stats.postgres.clone().filter(|_| config.stats.tracking)
}

pub(super) fn of_upstream(config: &Config) -> upstream::Settings {
    let ca = config.servers.iter().filter_map(|it| Some((it.endpoint.clone(), it.ca.clone()?)));
    upstream::Settings { ca: ca.collect() }
}

pub(super) fn of_relay(config: &Config) -> relay::Settings {
    relay::Settings {
        patience: config.patience,
        aliases: config.aliases.clone(),
        chains: config.fallback.chains.clone(),
        fallback: config.fallback.default,
        limit: config.fallback.limit,
        held: config.limits.held.as_usize(),
        gpu_memory: config.limits.gpu_memory.map(|it| it.0),
    }
}

/// Whoever keeps nothing of what happens tells nobody of it either.
pub(super) fn of_otlp(config: &Config) -> Option<Collector> {
    config.stats.otlp.clone().filter(|_| config.stats.tracking)
}

pub(super) fn of_scan(config: &Config, listen: Option<SocketAddr>, instance: &str) -> scan::Settings {
    let discovery = &config.discovery;
    let announce = discovery.advertise.then(|| scan::Announcement::of(listen, instance)).flatten();
    if discovery.advertise && announce.is_none() {
        tracing::warn!(
            "nothing is announced ([discovery] advertise): no address is listened on that others can reach"
        );
    }
    scan::Settings {
        ports: discovery.ports.clone(),
        skip_ports: discovery.skip_ports.iter().copied().chain(config.cloud_ports()).collect(),
        socket_table: discovery.socket_table,
        own: listen.into_iter().collect(),
        mdns: discovery.mdns,
        fleets: discovery.fleets.clone(),
        announce,
        instance: instance.to_owned(),
        ..scan::Settings::default()
    }
}

pub(super) fn of_door(started: &Loaded, now: &Loaded, broken: Option<String>) -> api::Settings {
    let config = &now.config;
    let notes = broken.into_iter().chain(pending(started, now)).chain(now.warnings.iter().cloned());
    api::Settings {
        view: view(started, now),
        aliases: config.aliases.clone(),
        body_limit: config.limits.body.0,
        hosts: config.listen.hosts.clone(),
        origins: config.listen.origins.clone(),
        control_on_tcp: config.listen.control,
        token: config.listen.token.clone(),
        allow_remote: config.listen.allow_remote,
        notes: notes.collect(),
    }
}

/// What was changed and does not hold yet, in words.
pub(super) fn pending(started: &Loaded, now: &Loaded) -> Vec<String> {
    let value = |loaded: &Loaded, key: &str| {
        loaded.settings.iter().find(|it| it.key == key).map(|it| it.value.to_string())
    };
    let changed = UNTIL_RESTART.iter().filter(|(key, _)| value(started, key) != value(now, key));
    changed
        .map(|(key, name)| {
            let value = value(now, key).filter(|it| it != "null");
            format!("takes effect after a restart: {name} = {}", value.as_deref().unwrap_or("not set"))
        })
        .collect()
}

/// All settings in force.
fn view(started: &Loaded, now: &Loaded) -> ConfigView {
    let in_force = |it: &config::Setting| {
        let waits = UNTIL_RESTART.iter().any(|(key, _)| it.key == *key);
        let first = started.settings.iter().find(|first| waits && first.key == it.key);
        shown(first.unwrap_or(it))
    };
    ConfigView {
        file: now.file.as_ref().map(|it| it.display().to_string()),
        warnings: pending(started, now).into_iter().chain(now.warnings.iter().cloned()).collect(),
        settings: now.settings.iter().map(in_force).collect(),
    }
}

fn shown(setting: &config::Setting) -> Setting {
    Setting {
        key: setting.key.clone(),
        value: setting.value.clone(),
        from: match setting.from {
            config::Origin::Flag => SettingSource::Flag,
            config::Origin::Environment => SettingSource::Environment,
            config::Origin::File => SettingSource::File,
            config::Origin::Default => SettingSource::Default,
        },
        at: setting.at.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, PathFlags, Surroundings, System, load};

    fn loaded(text: &str) -> Loaded {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let env = |_: &str| None;
        let around =
            Surroundings { system: System::Linux, uid: 1000, home: Some("/nowhere".into()), env: &env };
        let paths = PathFlags { config: Some(path), ..PathFlags::default() };
        load(&Flags { paths, ..Flags::default() }, &around, None).unwrap()
    }

    #[test]
    fn what_waits_for_a_restart_is_named_and_not_shown_as_in_force() {
        let started = loaded("[listen]\naddress = \"127.0.0.1:1\"\n");
        let now = loaded("[log]\nformat = \"json\"\nlevel = \"debug\"\n");
        assert!(pending(&started, &started).is_empty());
        assert_eq!(
            pending(&started, &now),
            [
                "takes effect after a restart: [listen] address = not set",
                "takes effect after a restart: [log] format = \"json\""
            ]
        );
        let view = view(&started, &now);
        let shown = |key: &str| view.settings.iter().find(|it| it.key == key).unwrap().value.clone();
        assert_eq!(shown("listen.address"), "127.0.0.1:1");
        assert_eq!((shown("log.format"), shown("log.level")), ("text".into(), "debug".into()));
        assert_eq!(of_door(&started, &now, Some("broken".to_owned())).notes.len(), 3);
    }
}
