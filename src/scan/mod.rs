//! Finds servers on this machine and in its networks: watches who listens, hears
//! who is announced, asks what is due, reports what was said.
//!
//! Four loops. One, on a small thread of its own, compares the table of listening
//! sockets with what it was half a second ago, hints at what is new or gone, and
//! reaches for servers of the network; two do the same with
//! what multicast DNS says (`mdns`), and with what ordinary DNS lists under names
//! that the person gave (`dns`); the last asks the endpoints that the
//! registry calls due, and only tells `mdns` whom it missed. What an answer
//! means is the kinds' knowledge, what follows from it the registry's; both are
//! behind `Watch`.
//!
//! Asking does no harm. Ports and programs that would take it badly are left
//! alone (`skip`), until a server is recognised there are only GETs, and every
//! conversation has its limits in time and bytes (`probe`).
//!
//! The table exists on Linux. Where it shall not tell of servers it is still
//! read for the usual ports: whether somebody listens there, whose program that
//! is, and whether it is one that a connection would harm. Where there is none
//! the usual ports are hinted at once and for all, and the registry has them
//! asked every few seconds; then nobody can tell whose a listener is, so it
//! counts as another user's.

mod dns;
mod mdns;
mod near;
mod owner;
mod place;
mod probe;
mod process;
pub mod skip;
mod table;

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

pub use crate::scan::{
    dns::{Fleet, Stands},
    mdns::Announcement,
    owner::{Owners, owner_of},
};
use crate::{
    fault::Fault,
    kind,
    registry::{Hint, Listings, Lookup},
    scan::{
        place::{Difference, Places},
        table::Table,
    },
    server::{Bounds, Endpoint, KindId, Sighting, Source},
    upstream::{Key, Upstream},
};

/// How often the table is read. A new server should be usable within a second:
/// half of it is for noticing, the other half for the conversation.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A cable's other end takes a connection within that; who takes longer is waited for elsewhere.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Addresses that did not answer and of which the network was not asked yet. When there are
/// more, these are the same ones again.
const MISSED: usize = 64;

/// What scanning needs from whoever keeps the registry.
pub trait Watch: Send + Sync + 'static {
    /// Somebody listens there.
    fn hint(&self, hint: Hint);
    /// Nobody listens there any more.
    fn hint_gone(&self, endpoint: &Endpoint, source: Source);
    /// What listens there is a program that is known to be something else.
    fn other_program(&self, endpoint: &Endpoint);
    /// A service of this name was announced in the network.
    fn announced(&self, endpoint: Endpoint, name: &str);
    /// A lookup in DNS lists these addresses, and no others.
    fn listed(&self, _lookup: &Lookup, _all: &Listings) {}
    /// How a lookup in DNS stands; `None`: it is made no more.
    fn lookup_stands(&self, _lookup: &Lookup, _stands: Option<Stands>) {}
    /// Whether a server was recognised there.
    fn is_server(&self, endpoint: &Endpoint) -> bool;
    /// Called at each look, twice a second: for what nobody tells and is seen by looking.
    fn on_look(&self) {}
    /// Resolves when the machine has slept.
    fn woken(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
    /// The endpoints to ask now; each is reported on exactly once.
    fn due(&self) -> Vec<Endpoint>;
    /// The servers of the network to be reached now, whatever they answer; each is
    /// reported on with `reached`.
    fn beats(&self) -> Vec<Endpoint>;
    /// It took a connection, or did not.
    fn reached(&self, endpoint: &Endpoint, result: Result<(), Fault>);
    /// When the next endpoint becomes due, or a server is to be reached.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Resolves when something may have become due earlier than `poll_timeout`
    /// last said. What changed since the last call must not be missed.
    fn changed(&self) -> impl Future<Output = ()> + Send;
    /// The kind that the configuration says a cloud server there is of. Nobody else is believed.
    fn claimed(&self, _endpoint: &Endpoint) -> Option<KindId> {
        None
    }
    /// The key that is set for exactly this endpoint.
    fn key(&self, endpoint: &Endpoint) -> Option<Key>;
    /// How far a question may go, and who has to answer it.
    fn bounds(&self, endpoint: &Endpoint) -> Bounds;
    /// It was recognised.
    fn seen(&self, endpoint: &Endpoint, sighting: Sighting);
    /// It did not answer, or cannot be told yet.
    fn silent(&self, endpoint: &Endpoint, fault: Fault);
    /// It is conclusively something else.
    fn foreign(&self, endpoint: &Endpoint);
    /// All that was there at the first look has been asked once.
    fn first_round_is_over(&self) {}
}

/// Where to look, and where not. What may change while we look is the first three, and what
/// there is to do with the network; the rest holds from the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Ports that are asked besides the usual ones, also where a built-in
    /// reason says not to.
    pub ports: Vec<u16>,
    /// Ports that are never asked.
    pub skip_ports: Vec<u16>,
    /// Whether the table of listening sockets tells of servers on any port.
    pub socket_table: bool,
    /// Addresses where this daemon itself listens.
    pub own: Vec<SocketAddr>,
    /// Whose listeners are trusted.
    pub owners: Owners,
    /// Where the kernel shows processes and sockets.
    pub proc_root: PathBuf,
    /// Whether servers are found that announce themselves in the network.
    pub mdns: bool,
    /// The fleets that are looked up in DNS.
    pub fleets: Vec<Fleet>,
    /// What is announced of this daemon, if anything.
    pub announce: Option<Announcement>,
    /// What this daemon calls itself, so that it does not find itself.
    pub instance: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            skip_ports: Vec::new(),
            socket_table: true,
            own: Vec::new(),
            owners: Owners::read(rustix::process::getuid().as_raw(), Path::new("/etc")),
            proc_root: "/proc".into(),
            mdns: false,
            fleets: Vec::new(),
            announce: None,
            instance: String::new(),
        }
    }
}

impl Settings {
    /// Takes over what may change.
    fn update(&mut self, new: Self) {
        self.ports = new.ports;
        self.skip_ports = new.skip_ports;
        self.socket_table = new.socket_table;
    }

    fn usual_ports(&self) -> Vec<u16> {
        let mut ports = kind::usual_ports();
        ports.extend(self.ports.iter().filter(|it| !kind::usual_ports().contains(it)));
        ports.retain(|it| self.may_ask(*it));
        ports
    }

    fn may_ask(&self, port: u16) -> bool {
        !self.skip_ports.contains(&port) && (self.ports.contains(&port) || skip::may_ask_port(port))
    }
}

/// Looks for servers until `stop` says `true` or its sender is gone.
pub async fn run<W: Watch>(
    settings: tokio::sync::watch::Receiver<Settings>,
    upstream: Arc<Upstream>,
    watch: Arc<W>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    // What was known before we started may meanwhile be a program that a
    // connection would harm: nothing is asked before the first look.
    let (looked, first_look) = oneshot::channel();
    let (missing, missed) = mpsc::channel(MISSED);
    let (far, slow) = mpsc::channel(MISSED);
    let instance = settings.borrow().instance.clone();
    let hearing = mdns::run(settings.clone(), watch.clone(), missed, stop.clone());
    let listing = dns::run(settings.clone(), watch.clone(), stop.clone());
    let (stop_looking, told_to_stop) = channel();
    let scan = Scan::new(settings, watch.clone(), far);
    let eyes = thread::Builder::new().name("look".to_owned()).spawn(move || scan.run(looked, &told_to_stop));
    if let Err(error) = &eyes {
        tracing::error!(%error, "nobody looks for servers: there is no thread for it");
    }
    let asking = async {
        // An error means that nobody looks, and then there is nothing to ask.
        if first_look.await.is_ok() {
            probe::run(upstream, watch.clone(), slow, missing, &instance).await;
        }
        std::future::pending().await
    };
    let until_told = async {
        tokio::select! {
            () = asking => {}
            () = is_told(&mut stop) => {}
        }
        // It ends within milliseconds.
        drop(stop_looking);
    };
    // Who listens to the network says goodbye to it.
    tokio::join!(hearing, listing, until_told);
}

/// Ready once there are other settings.
async fn news(told: &mut tokio::sync::watch::Receiver<Settings>) {
    if told.changed().await.is_err() {
        // Nothing is changed any more.
        std::future::pending().await
    }
}

/// Ready once the daemon is told to stop, or is gone.
async fn is_told(stop: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = stop.wait_for(|it| *it).await;
}

/// Ready at a time, or never.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The loop that watches who listens, and who of the network is still there.
struct Scan<W> {
    settings: Settings,
    /// Where new ones come from.
    told: tokio::sync::watch::Receiver<Settings>,
    watch: Arc<W>,
    /// Takes servers of the network that did not answer at once.
    far: mpsc::Sender<Endpoint>,
    /// Likeliest first, which is the order of asking.
    usual_ports: Vec<u16>,
    places: Places,
}

impl<W: Watch> Scan<W> {
    fn new(
        mut told: tokio::sync::watch::Receiver<Settings>,
        watch: Arc<W>,
        far: mpsc::Sender<Endpoint>,
    ) -> Self {
        let settings = told.borrow_and_update().clone();
        Self { usual_ports: settings.usual_ports(), settings, told, watch, far, places: Places::new() }
    }

    /// Looks until told to stop, or whoever could tell is gone.
    fn run(mut self, looked: oneshot::Sender<()>, told_to_stop: &Receiver<()>) {
        let mut table = Table::open(&self.settings.proc_root);
        let is_blind = table.is_none();
        if is_blind {
            self.guess(&[]);
        }
        let mut looked = Some(looked);
        let mut listeners = Vec::new();
        loop {
            self.watch.on_look();
            if self.told.has_changed().unwrap_or(false) {
                let before = self.usual_ports.clone();
                self.update();
                if is_blind {
                    self.guess(&before);
                }
            }
            // A read that failed may have left half an answer behind: the next
            // one begins anew, and until then nothing has changed.
            let read = table.as_mut().map(|it| it.read(&mut listeners));
            match read {
                Some(Ok(())) => self.compare(&listeners),
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot read the table of listening sockets");
                    table = None;
                }
                None if is_blind => {}
                None => table = Table::open(&self.settings.proc_root),
            }
            self.reach();
            if let Some(looked) = looked.take() {
                let _ = looked.send(());
            }
            if told_to_stop.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Reaches for the servers of the network whose turn it is. All that an idle daemon does
    /// again and again is done here: on a thread of its own that touches little else, because
    /// what costs after a sleep is code that is cold.
    fn reach(&self) {
        for endpoint in self.watch.beats() {
            match Upstream::reach_at_once(&endpoint, AT_ONCE) {
                Some(result) => self.watch.reached(&endpoint, result),
                // When nobody takes it, its turn comes again.
                None => drop(self.far.try_send(endpoint)),
            }
        }
    }

    /// Looks with other settings from now on.
    fn update(&mut self) {
        let new = self.told.borrow_and_update().clone();
        let watched = std::mem::replace(&mut self.settings.socket_table, new.socket_table);
        let ports = std::mem::take(&mut self.usual_ports);
        self.settings.update(new);
        self.usual_ports = self.settings.usual_ports();
        // Who is to be told of in a new way counts as new: it may be a program that is not asked.
        // Whoever told of it until now is not taken back while it listens: that would mean that
        // it is gone.
        let turned_on = self.settings.socket_table && !watched;
        let is_new = |port: &u16| turned_on || (self.usual_ports.contains(port) && !ports.contains(port));
        self.places.retain(|_, place| !is_new(&place.port));
    }

    /// Without a table the usual ports are all there is to go by.
    fn guess(&self, before: &[u16]) {
        let at = |port: &u16| Endpoint::tcp(IpAddr::from(Ipv4Addr::LOCALHOST), *port);
        for port in before.iter().filter(|it| !self.usual_ports.contains(it)) {
            self.watch.hint_gone(&at(port), Source::Port);
        }
        for port in self.usual_ports.iter().filter(|it| !before.contains(it)) {
            self.hint(at(port), Source::Port, self.settings.owners.trust(None));
        }
    }

    fn compare(&mut self, listeners: &[table::Listener]) {
        let now = place::places(listeners, &self.settings.own, |port| {
            self.settings.may_ask(port) && (self.settings.socket_table || self.usual_ports.contains(&port))
        });
        let Difference { gone, mut new } = place::difference(&self.places, &now);
        self.places = now;
        for endpoint in &gone {
            self.watch.hint_gone(endpoint, Source::SocketTable);
            self.watch.hint_gone(endpoint, Source::Port);
        }
        if new.is_empty() {
            return;
        }
        let others = self.other_programs(&new);
        new.retain(|it| !others.contains(it));
        for endpoint in &others {
            self.watch.other_program(endpoint);
        }
        let rank = |port: u16| self.usual_ports.iter().position(|it| *it == port);
        new.sort_by_key(|it| {
            let rank = self.places.get(it).and_then(|it| rank(it.port));
            (rank.is_none(), rank)
        });
        for endpoint in new {
            let Some(place) = self.places.get(&endpoint) else { continue };
            // A socket outlives the address that it is bound to: on the next
            // network a machine's old address is somebody else's.
            let trusted = endpoint.is_local() && self.settings.owners.trust(Some(place.uid));
            if self.settings.socket_table {
                self.hint(endpoint.clone(), Source::SocketTable, trusted);
            }
            if rank(place.port).is_some() {
                self.hint(endpoint, Source::Port, trusted);
            }
        }
    }

    /// Those of these endpoints behind which a program is known to be something else.
    fn other_programs(&self, endpoints: &[Endpoint]) -> BTreeSet<Endpoint> {
        let places = || endpoints.iter().filter_map(|it| Some((it, self.places.get(it)?)));
        let inodes: BTreeSet<u64> = places().flat_map(|(_, it)| it.inodes.iter().copied()).collect();
        let programs = process::programs(&self.settings.proc_root, &inodes);
        let is_other = |inode: &u64| programs.get(inode).is_some_and(|it| skip::is_other_program(it));
        let others = places().filter(|(_, place)| place.inodes.iter().any(is_other));
        others.map(|(endpoint, _)| endpoint.clone()).collect()
    }

    fn hint(&self, endpoint: Endpoint, source: Source, trusted: bool) {
        self.watch.hint(Hint { endpoint, source, trusted, settings: None });
    }
}

#[cfg(test)]
mod tests;
