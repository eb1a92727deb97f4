//! Listens to the local networks for servers that announce themselves, and announces this
//! daemon where the person wants that.
//!
//! A thread of `mdns-sd` speaks the protocol. What it hears is judged by `record` and kept by
//! `heard`; from there on an address is a hint like any other, and never a trusted one. When
//! somebody floods the network with records, that thread is stopped with all that it keeps,
//! and there is silence for a while.

mod announce;
mod heard;
mod record;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future, stream, stream::SelectAll};
use mdns_sd::{IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, sockopt};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

pub use self::announce::Announcement;
use self::{
    heard::Heard,
    record::{Interface, Record, judge},
};
use crate::{
    scan::{Settings, Watch, is_told, news, until},
    server::{Endpoint, Source},
};

/// The types that servers, and what people put around them, are announced under. Few servers
/// announce themselves; a type that nobody uses costs a question now and then.
const TYPES: &[&str] = &[
    announce::TYPE,
    "_ollama._tcp.local.",
    "_llm._tcp.local.",
    "_openai._tcp.local.",
    "_fleet-manager._tcp.local.",
    "_saturn._tcp.local.",
    "_exo._tcp.local.",
    "_lmstudio._tcp.local.",
    "_vllm._tcp.local.",
    "_llamacpp._tcp.local.",
    "_anthropic._tcp.local.",
    "_tabbyapi._tcp.local.",
];

/// How often interfaces are looked at, in seconds: a network that is joined brings its servers.
/// Whoever is gone with a network is missed by then.
const INTERFACES_EVERY: u32 = 4;

/// How often it is looked at how much the thread keeps, and how many records and timers it
/// may keep: some twenty times what an office has, and a few megabytes.
const WEIGH_EVERY: Duration = Duration::from_secs(5);
const MOST_KEPT: i64 = 20_000;

/// How long there is silence after a flood.
const SILENCE: Duration = Duration::from_secs(30);

/// After listening began anew, who is there has answered by then.
const ANSWERED_BY: Duration = Duration::from_secs(5);

/// How long a service may take to say that it is still there.
const DOUBT: Duration = Duration::from_secs(3);

/// How long leaving may take: one packet in each network.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why listening ended.
enum End {
    /// The daemon stops.
    Told,
    /// There are other settings.
    Changed,
    /// The machine has slept.
    Woke,
    /// There is more than anybody can mean.
    Flood,
}

/// Listens until told to stop. `missed` brings addresses that do not answer.
pub(super) async fn run<W: Watch>(
    mut told: watch::Receiver<Settings>,
    watch: Arc<W>,
    mut missed: mpsc::Receiver<Endpoint>,
    mut stop: watch::Receiver<bool>,
) {
    let settings = told.borrow().clone();
    let mut ears = Ears { settings, watch, heard: Heard::new(Instant::now().into_std()), interfaces: None };
    loop {
        ears.settings.clone_from(&told.borrow_and_update());
        if !ears.settings.mdns {
            ears.forget();
        }
        let wanted = ears.settings.mdns || ears.settings.announce.is_some();
        let Some(voice) = wanted.then(|| Voice::of(&ears.settings)).flatten() else {
            tokio::select! {
                () = news(&mut told) => continue,
                () = is_told(&mut stop) => return,
            }
        };
        ears.heard.begin_anew();
        let end = tokio::select! {
            end = ears.listen(&voice, &mut missed) => end,
            () = news(&mut told) => End::Changed,
            () = is_told(&mut stop) => End::Told,
        };
        match end {
            End::Told => return voice.leave().await,
            End::Changed => voice.leave().await,
            End::Woke => {}
            End::Flood => {
                tracing::warn!(
                    "somebody floods the network with services; it is not listened to for {} s",
                    SILENCE.as_secs()
                );
                drop(voice);
                tokio::select! {
                    () = sleep(SILENCE) => {}
                    () = is_told(&mut stop) => return,
                }
            }
        }
    }
}

/// Whether the port of multicast DNS can be had beside others; the thread would not say.
fn can_listen() -> rustix::io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Where the system does not know it the address alone does.
    let _ = sockopt::set_socket_reuseport(&socket, true);
    let all = std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, mdns_sd::MDNS_PORT);
    rustix::net::bind(&socket, &SocketAddrAny::from(all))
}

/// The thread that speaks the protocol; dropping it stops it.
struct Voice {
    thread: ServiceDaemon,
    events: Vec<Receiver<ServiceEvent>>,
}

impl Voice {
    /// Begins to speak, where that can be; else says why it cannot.
    fn of(settings: &Settings) -> Option<Self> {
        let voice = can_listen().map_err(|it| it.to_string()).and_then(|()| Self::new(settings));
        let said = |error: &String| {
            tracing::info!(
                error,
                "no multicast DNS here; servers of the network are found where they are named"
            );
        };
        voice.inspect_err(said).ok()
    }

    fn new(settings: &Settings) -> Result<Self, String> {
        let text = |error: mdns_sd::Error| error.to_string();
        let thread = ServiceDaemon::new().map_err(text)?;
        let mut voice = Self { thread, events: Vec::new() };
        let thread = &voice.thread;
        thread.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6]).map_err(text)?;
        thread.set_ip_check_interval(INTERFACES_EVERY).map_err(text)?;
        if let Some(announcement) = &settings.announce {
            let machine = rustix::system::uname();
            let service = announcement.service(&machine.nodename().to_string_lossy()).map_err(text)?;
            thread.register(service).map_err(text)?;
        }
        let types = if settings.mdns { TYPES } else { &[] };
        voice.events = types.iter().map(|it| thread.browse(it)).collect::<Result<_, _>>().map_err(text)?;
        Ok(voice)
    }

    /// Everything that is heard; `None` when there was too much at once.
    fn events(&self) -> SelectAll<stream::BoxStream<'static, Option<ServiceEvent>>> {
        let of_type = |it: &Receiver<ServiceEvent>| {
            it.clone().into_stream().map(Some).chain(stream::once(future::ready(None))).boxed()
        };
        stream::select_all(self.events.iter().map(of_type))
    }

    /// How many records and timers are kept.
    async fn weight(&self) -> i64 {
        let Ok(metrics) = self.thread.get_metrics() else { return 0 };
        // A thread that is too busy to answer is weighed the next time.
        let Ok(Ok(metrics)) = timeout(WEIGH_EVERY, metrics.recv_async()).await else { return 0 };
        let kept = |name: &str| name.starts_with("cached-") || name == "timer";
        metrics.into_iter().filter(|(name, _)| kept(name)).map(|(_, count)| count).sum()
    }

    /// Withdraws what was announced.
    async fn leave(self) {
        if let Ok(left) = self.thread.shutdown() {
            // The network forgets us by itself, only later.
            let _ = timeout(GOODBYE, left.recv_async()).await;
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        // It may have been told already.
        let _ = self.thread.shutdown();
    }
}

/// What is heard, on its way to the registry.
struct Ears<W: Watch> {
    settings: Settings,
    watch: Arc<W>,
    heard: Heard,
    interfaces: Option<(Instant, Vec<Interface>)>,
}

impl<W: Watch> Ears<W> {
    async fn listen(&mut self, voice: &Voice, missed: &mut mpsc::Receiver<Endpoint>) -> End {
        let mut events = voice.events();
        let mut weigh_at = Instant::now();
        let mut answered_by = Some(Instant::now() + ANSWERED_BY);
        loop {
            self.tell();
            let told_at = self.heard.next_at().map(Instant::from_std);
            tokio::select! {
                () = self.watch.woken() => return End::Woke,
                Some(event) = events.next() => match event {
                    Some(event) => self.on_event(event),
                    None => return End::Flood,
                },
                Some(endpoint) = missed.recv() => self.on_missed(&endpoint, voice),
                () = sleep_until(weigh_at) => {
                    weigh_at = Instant::now() + WEIGH_EVERY;
                    if voice.weight().await > MOST_KEPT {
                        return End::Flood;
                    }
                }
                () = until(told_at) => {}
                () = until(answered_by) => {
                    answered_by = None;
                    let gone = self.heard.forget_stale();
                    self.withdraw(gone);
                }
            }
        }
    }

    fn on_event(&mut self, event: ServiceEvent) {
        let gone = match event {
            ServiceEvent::ServiceResolved(service) => {
                let record = record_of(&service);
                self.look_at_interfaces();
                let interfaces = self.interfaces.as_ref().map_or(&[][..], |(_, all)| all);
                let endpoints = judge(&record, interfaces, |port| self.settings.may_ask(port));
                if endpoints.is_empty() {
                    // Its name may be anything.
                    tracing::trace!(name = ?record.name, "a service that does not count");
                }
                let watch = self.watch.clone();
                self.heard.on_service(&record.name, endpoints, &|it| watch.is_server(it))
            }
            ServiceEvent::ServiceRemoved(_, name) => self.heard.on_gone(&name),
            _ => Vec::new(),
        };
        self.withdraw(gone);
    }

    fn on_missed(&mut self, endpoint: &Endpoint, voice: &Voice) {
        let (gone, doubted) = self.heard.on_missed(endpoint, Instant::now().into_std());
        for name in doubted {
            // What is not confirmed is taken back, so that its return is news.
            let _ = voice.thread.verify(name, DOUBT);
        }
        self.withdraw(gone);
    }

    fn tell(&mut self) {
        while let Some((endpoint, name)) = self.heard.next(Instant::now().into_std()) {
            tracing::debug!(%endpoint, ?name, "announced");
            self.watch.announced(endpoint, &name);
        }
    }

    fn withdraw(&self, gone: Vec<Endpoint>) {
        for endpoint in gone {
            tracing::debug!(%endpoint, "announced no more");
            self.watch.hint_gone(&endpoint, Source::Mdns);
        }
    }

    /// Takes back all that was told.
    fn forget(&mut self) {
        let told = self.heard.told();
        self.heard = Heard::new(Instant::now().into_std());
        self.withdraw(told.into_iter().collect());
    }

    /// Learns in which networks this machine is, where that was not looked at just now.
    fn look_at_interfaces(&mut self) {
        let now = Instant::now();
        let fresh = |at: Instant| now.duration_since(at) < Duration::from_secs(INTERFACES_EVERY.into());
        if self.interfaces.as_ref().is_none_or(|(at, _)| !fresh(*at)) {
            self.interfaces = Some((now, interfaces()));
        }
    }
}

impl<W: Watch> Drop for Ears<W> {
    fn drop(&mut self) {
        self.forget();
    }
}

fn interfaces() -> Vec<Interface> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let each = all.into_iter().filter_map(|it| {
        let prefix = match &it.addr {
            if_addrs::IfAddr::V4(it) => it.prefixlen,
            if_addrs::IfAddr::V6(it) => it.prefixlen,
        };
        Some(Interface { number: it.index?, ip: it.ip(), prefix })
    });
    each.collect()
}

fn record_of(service: &ResolvedService) -> Record {
    let address = |it: &ScopedIp| match it {
        ScopedIp::V4(it) => ((*it.addr()).into(), it.interface_ids().iter().map(|it| it.index).collect()),
        ScopedIp::V6(it) => ((*it.addr()).into(), vec![it.scope_id().index]),
        // A family that we could not connect to.
        _ => (std::net::Ipv4Addr::UNSPECIFIED.into(), Vec::new()),
    };
    let deployment = service.get_property_val_str("deployment");
    Record {
        name: service.get_fullname().to_owned(),
        port: service.get_port(),
        addresses: service.get_addresses().iter().map(address).collect(),
        tells_of_cloud: deployment.is_some_and(|it| it.trim().eq_ignore_ascii_case("cloud")),
    }
}
