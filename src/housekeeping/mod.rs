//! The one owner of what is known: registry, statistics, recent requests.
//!
//! Everyone reports here what happened and reads snapshots from here; nobody
//! else holds a registry. What changes goes to the feed and to the store, both
//! without waiting: the request path never waits for a disk, but where it costs
//! money (`purse`). Decisions are the
//! pure rooms' own; this room only keeps them under a lock for a few lines.

mod clock;
mod feed;
mod gauge;
mod history;
mod home;
mod keep;
#[cfg(test)]
mod keep_tests;
mod line;
mod purse;
mod running;
mod traffic;
mod unsent;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::Instant,
};

pub use self::{
    feed::{Event, Follow},
    history::{Export, Span},
    keep::{Figures, restore},
    purse::{Bought, Spending, Spent, Stored},
    running::{Run, Started},
    traffic::{InFlight, Limited, Look, QueueFull, Ticket, Traffic},
    unsent::Unsent,
};
use self::{home::Homes, keep::DISK, purse::Purse, running::Running};
use crate::{
    failover::Paces,
    fault::{Blame, Fault},
    generate::Outcome,
    otlp::Outbox,
    registry::{Admission, Change, Hint, Lookup, Now, Registry, Said, Server, Snapshot, Work},
    scan::{Stands, Watch},
    server::{Endpoint, KindId, ModelName, Pin, ServerId, Source, Zone},
    stats::{Query, Stats},
    store::Store,
    upstream::Key,
};

/// How many finished requests are kept in memory; older ones are read from the disk.
const RECENT: usize = 1_000;
/// Changes that a slow follower of the feed may lag behind before it is given the whole state again.
const FEED_LAG: usize = 256;

/// Servers that there are answer at once; a stranger that takes a connection and says nothing
/// is not waited for longer.
const FIRST_ROUND: Duration = Duration::from_secs(3);

/// The registry is not told more often than that that it is used.
const WANTED_AGAIN_MS: u64 = 5_000;

/// Everything that is known, under its locks.
pub struct Housekeeping {
    registry: Mutex<Registry>,
    snapshot: ArcSwap<Snapshot>,
    figures: Mutex<Figures>,
    /// The last outcomes with their numbers.
    recent: Mutex<VecDeque<(u64, Arc<Outcome>)>>,
    traffic: Traffic,
    homes: Mutex<Homes>,
    paces: Mutex<Paces>,
    purse: Purse,
    instance: String,
    settings: ArcSwap<Kept>,
    ours: Trusts,
    owner_of: OwnerOf,
    feed: broadcast::Sender<Arc<Event>>,
    store: Store,
    due: Notify,
    woken: Notify,
    clocks: Mutex<clock::Clocks>,
    wanted_ms: AtomicU64,
    unsaved: Notify,
    kept: watch::Sender<u64>,
    news: watch::Sender<()>,
    looked: watch::Sender<bool>,
    /// How lookups in DNS stand.
    lookups: Mutex<BTreeMap<Lookup, Stands>>,
    hardware: gauge::Seen,
    running: Running,
    /// Where what is over is left for a collector, if there is one.
    outbox: ArcSwapOption<Outbox>,
}

/// What housekeeping is told at the start.
pub struct Furnishing {
    /// Servers as they were stored, or an empty registry.
    pub registry: Registry,
    /// Statistics as they were stored.
    pub figures: Figures,
    /// Where both are kept.
    pub store: Store,
    /// What was spent in the cloud, as it was stored.
    pub spent: Stored,
    /// What this daemon calls itself among others of its kind.
    pub instance: String,
    /// Who is trusted by the owner of the socket there.
    pub ours: Trusts,
    /// Whose the listener at an address of this machine is.
    pub owner_of: OwnerOf,
    /// What the person says.
    pub settings: Settings,
}

/// What housekeeping is told by the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What is said about servers.
    pub said: Said,
    /// Keys of servers.
    pub keys: BTreeMap<Endpoint, Key>,
    /// Kinds that the person switched off.
    pub kinds_off: BTreeSet<KindId>,
    /// What may be spent in the cloud; `None` while it is not enabled.
    pub spending: Option<Spending>,
    /// Whether outcomes may be stored.
    pub tracking: bool,
    /// How many requests may wait for a server.
    pub queue: usize,
}

/// What is looked up of the settings; the rest is with whom it concerns.
#[derive(Default)]
struct Kept {
    keys: BTreeMap<Endpoint, Key>,
    kinds_off: BTreeSet<KindId>,
    tracking: bool,
}

/// Says whether an address is trusted.
pub type Trusts = Box<dyn Fn(&Endpoint) -> bool + Send + Sync>;

/// Says which user listens at an address of this machine, where that can be read.
pub type OwnerOf = Box<dyn Fn(&Endpoint) -> Option<u32> + Send + Sync>;

impl Housekeeping {
    /// Takes over what was stored and what the person says.
    pub fn new(it: Furnishing) -> Arc<Self> {
        let unsaved = Notify::new();
        if !it.figures.touched.is_empty() && it.settings.tracking {
            unsaved.notify_one();
        }
        let kept = watch::channel(it.figures.number).0;
        let house = Arc::new(Self {
            snapshot: ArcSwap::new(it.registry.snapshot()),
            registry: Mutex::new(it.registry),
            figures: Mutex::new(it.figures),
            recent: Mutex::new(VecDeque::new()),
            traffic: Traffic::new(it.settings.queue),
            homes: Mutex::default(),
            paces: Mutex::default(),
            purse: Purse::new(it.spent),
            instance: it.instance,
            settings: ArcSwap::default(),
            ours: it.ours,
            owner_of: it.owner_of,
            feed: broadcast::channel(FEED_LAG).0,
            store: it.store,
            due: Notify::new(),
            woken: Notify::new(),
            clocks: Mutex::new(clock::Clocks::as_of(now())),
            wanted_ms: AtomicU64::new(0),
            unsaved,
            kept,
            news: watch::channel(()).0,
            looked: watch::channel(true).0,
            lookups: Mutex::default(),
            hardware: gauge::Seen::default(),
            running: Running::default(),
            outbox: ArcSwapOption::empty(),
        });
        house.configure(it.settings);
        house
    }

    /// Takes over what the person says now. What they do not say any more holds no longer when
    /// this returns.
    pub fn configure(&self, settings: Settings) {
        let Settings { said, keys, kinds_off, spending, tracking, queue } = settings;
        self.settings.store(Arc::new(Kept { keys, kinds_off, tracking }));
        self.traffic.resize(queue);
        self.purse.set(spending);
        self.change(|registry, now| registry.on_said(said, now));
    }

    /// Whether a prompt may be sent to a server in this zone that was chosen a moment ago: the
    /// person may have said something else since.
    pub fn may_send(&self, server: &Server, zone: Zone) -> bool {
        let at = |it: &Server| it.endpoint == server.endpoint || it.also_at.contains(&server.endpoint);
        let is_open = |it: &Server| {
            matches!(it.admission, Admission::Open | Admission::Draining)
                && (zone.max(it.zone) != Zone::Cloud || self.cloud_is_open())
        };
        self.snapshot.load().servers.iter().any(|it| at(it) && is_open(it))
    }

    /// All servers as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Requests in flight, by server, and those that wait.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Which server answered a conversation last, if it did so lately.
    pub fn home_of(&self, conversation: u64) -> Option<ServerId> {
        lock(&self.homes).of(conversation, Instant::now().into_std()).cloned()
    }

    /// A conversation is answered by this server.
    pub fn settle(&self, conversation: u64, server: &ServerId) {
        lock(&self.homes).settle(conversation, server, Instant::now().into_std());
    }

    /// What is known of how soon servers begin to answer.
    pub fn with_paces<T>(&self, look: impl FnOnce(&mut Paces) -> T) -> T {
        look(&mut lock(&self.paces))
    }

    /// How lookups in DNS stand.
    pub fn lookups(&self) -> BTreeMap<Lookup, Stands> {
        lock(&self.lookups).clone()
    }

    /// The store, for its state of health.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What this daemon calls itself among others of its kind.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether outcomes are stored.
    pub fn tracking(&self) -> bool {
        self.settings.load().tracking
    }

    /// Looks at the statistics.
    pub fn with_stats<T>(&self, look: impl FnOnce(&Stats) -> T) -> T {
        look(&lock(&self.figures).stats)
    }

    /// Rows of the statistics.
    pub fn report(&self, query: &Query) -> Vec<crate::stats::Row> {
        lock(&self.figures).stats.report(query)
    }

    /// The last requests of this run that are over, newest first.
    pub fn recent(&self, limit: usize) -> Vec<Arc<Outcome>> {
        lock(&self.recent).iter().rev().take(limit).map(|(_, it)| it.clone()).collect()
    }

    /// Does something to the registry, and tells everyone what that changed.
    pub fn change<T: Changes>(&self, act: impl FnOnce(&mut Registry, Now) -> T) -> T {
        let (result, changed) = {
            let mut registry = lock(&self.registry);
            let before = registry.poll_timeout();
            let result = act(&mut registry, now());
            if !result.changes().is_empty() {
                self.snapshot.store(registry.snapshot());
                self.news.send_replace(());
            }
            // Under the lock, so that the feed and the store see changes in their order.
            for change in result.changes() {
                self.publish(change);
            }
            (result, registry.poll_timeout() != before)
        };
        if changed {
            self.due.notify_one();
        }
        result
    }

    fn publish(&self, change: &Change) {
        self.keep(change);
        self.tell(|| Event::Change(change.clone()));
    }

    /// Tells whoever follows the feed; for nobody nothing is made.
    fn tell(&self, event: impl FnOnce() -> Event) {
        if self.is_followed() {
            // An error says that the last one has just left.
            let _ = self.feed.send(Arc::new(event()));
        }
    }

    fn is_followed(&self) -> bool {
        self.feed.receiver_count() > 0
    }

    /// Tells when servers have changed.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Somebody asks for an answer, or looks at what is known: that is kept fresh for a while.
    pub fn on_wanted(&self) {
        let now = wall_ms();
        let since = now.abs_diff(self.wanted_ms.load(Ordering::Relaxed));
        if since >= WANTED_AGAIN_MS {
            self.wanted_ms.store(now, Ordering::Relaxed);
            self.change(Registry::on_wanted);
        }
    }

    /// Somebody begins to look for servers: until `looked_around`, what is known is not all.
    pub fn begin_to_look(&self) {
        self.looked.send_replace(false);
    }

    /// Whether all that was there at the start has been asked once what it is.
    pub fn has_looked(&self) -> bool {
        *self.looked.borrow()
    }

    /// Waits for that, though not for those who take a connection and say nothing: a first
    /// request may have started the daemon, and is not to hear that there is no server.
    pub async fn looked_around(&self) {
        let mut looked = self.looked.subscribe();
        if tokio::time::timeout(FIRST_ROUND, looked.wait_for(|it| *it)).await.is_err() {
            tracing::debug!("something that listens here takes its time to say what it is");
            self.looked.send_replace(true);
        }
    }

    /// Follows the feed from now on.
    pub fn follow(&self) -> Follow {
        let follow = Follow::new(self.feed.subscribe());
        self.hardware.call.notify_one();
        follow
    }

    /// The key of the server at an endpoint.
    pub fn key(&self, endpoint: &Endpoint) -> Option<Key> {
        self.settings.load().keys.get(endpoint).cloned()
    }

    /// A live request was answered well by this server.
    pub fn attempt_succeeded(&self, server: &ServerId) {
        self.change(|registry, now| registry.on_success(server, now));
    }

    /// A live request found a fault with this server.
    pub fn attempt_failed(&self, server: &ServerId, fault: &Fault) {
        let jitter = fastrand::f64();
        self.change(|registry, now| registry.on_fault(server, fault, now, jitter));
    }

    /// A live request found that this server lacks something.
    pub fn lacked(&self, server: &ServerId, model: &ModelName, work: Work, fault: &Fault) {
        if fault.blame() == Blame::Misfit {
            self.change(|registry, now| registry.on_lack(server, model, work, fault, now));
        }
    }

    /// One request broke all these servers in the same way: its prompt is suspected, not they.
    pub fn poisoned(&self, servers: &[ServerId]) {
        self.change(|registry, now| registry.take_back_strikes(servers, now));
    }

    /// Whether nobody may connect to an address, because it is in the cloud.
    pub fn bars(&self, endpoint: &Endpoint) -> bool {
        lock(&self.registry).bars(endpoint)
    }

    /// Makes an address known. Whether it is trusted others say: the owner of
    /// its listening socket, or the configuration.
    pub fn add(&self, endpoint: Endpoint) {
        Watch::hint(self, Hint { trusted: false, endpoint, source: Source::Added, settings: None });
    }

    /// Waits until something at this address is recognised as a server.
    pub async fn recognised(&self, endpoint: &Endpoint, limit: Duration) -> Option<Arc<Server>> {
        let mut news = self.news();
        let there = || {
            let snapshot = self.snapshot();
            let at = |it: &&Arc<Server>| it.endpoint == *endpoint || it.also_at.contains(endpoint);
            snapshot.servers.iter().find(at).cloned()
        };
        tokio::time::timeout(limit, async {
            loop {
                if let Some(server) = there() {
                    return server;
                }
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await
        .ok()
    }

    /// A person trusts a server, as what it is now. `None`: no such server.
    pub fn trust(&self, id: &str, pin: Option<Pin>) -> Option<Vec<Change>> {
        let endpoint = self.snapshot().server(id)?.endpoint.clone();
        let owner = endpoint.is_local().then(|| (self.owner_of)(&endpoint)).flatten();
        self.change(|registry, now| registry.trust(id, pin, owner, now))
    }

    /// A person wants a server to get nothing. `None`: no such server.
    pub fn distrust(&self, id: &str) -> Option<Vec<Change>> {
        self.change(|registry, now| registry.distrust(id, now))
    }

    /// Has every known address asked again now; says how many there are.
    pub fn probe_all(&self) -> usize {
        self.change(|registry, now| {
            registry.probe_all(now);
            Vec::new()
        });
        self.due.notify_one();
        self.snapshot().servers.len()
    }

    /// The models of servers of this kind have changed on the disk of this machine.
    pub fn models_changed(&self, kind: &str) {
        self.change(|registry, now| {
            registry.on_models(kind, now);
            Vec::new()
        });
    }
}

/// Something that changes of a registry can be found in.
pub trait Changes {
    /// The changes, in order.
    fn changes(&self) -> &[Change];
}

impl Changes for Vec<Change> {
    fn changes(&self) -> &[Change] {
        self
    }
}

impl Changes for Option<Vec<Change>> {
    fn changes(&self) -> &[Change] {
        self.as_deref().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held is logged where it happened; what is known is still the best there is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both clocks, now.
pub fn now() -> Now {
    Now { at: Instant::now().into_std(), wall_ms: wall_ms() }
}

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}
