//! Looks up the fleets that a person named in ordinary DNS, for as long as any is named.
//!
//! Each lookup is made again when its records are over, and is told to the registry as a whole:
//! what it does not list any more is in no use from then on. `resolver` asks, `answer` judges what
//! was said, `standing` decides what holds of it when the resolver fails or lies.

mod answer;
mod resolver;
mod standing;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use self::{
    answer::{Found, Trouble, judge},
    standing::{Bounds, Standing},
};
use crate::{
    registry::{Listings, Lookup},
    scan::{Settings, Watch, is_told, news, until},
    server::KindId,
};

/// A fleet whose servers DNS lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// What is looked up.
    pub lookup: Lookup,
    /// What its servers are, where they do not show it themselves.
    pub kind: Option<KindId>,
    /// Whom to ask, instead of the system's resolvers.
    pub resolver: Option<SocketAddr>,
    /// How soon it is looked again, however short-lived the records are.
    pub ttl_min: Duration,
    /// And how soon, however long they live.
    pub ttl_max: Duration,
    /// How long the last good answer holds while there is no other.
    pub keep: Duration,
}

impl Fleet {
    /// A fleet of which only the name is said.
    pub fn named(lookup: Lookup) -> Self {
        Self {
            lookup,
            kind: None,
            resolver: None,
            // A fleet that is scaled down is noticed within seconds, and a resolver asked twelve
            // times a minute does not notice that.
            ttl_min: Duration::from_secs(5),
            // Zones with records that live for a day change all the same.
            ttl_max: Duration::from_secs(60),
            // Long enough to mend a resolver; addresses are given to others in the end.
            keep: Duration::from_secs(3600),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds { least: self.ttl_min, most: self.ttl_max, keep: self.keep }
    }
}

/// How a lookup stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stands {
    /// How many servers it lists.
    pub servers: usize,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
}

/// A fleet with what holds of it.
struct Kept {
    fleet: Fleet,
    standing: Standing,
    said: Option<Stands>,
}

type Made = JoinSet<(Fleet, Result<Found, Trouble>)>;

/// Looks up what the settings name, until told to stop.
pub(super) async fn run<W: Watch>(
    mut told: watch::Receiver<Settings>,
    watch: Arc<W>,
    mut stop: watch::Receiver<bool>,
) {
    let mut all: BTreeMap<Lookup, Kept> = BTreeMap::new();
    let mut made: Made = JoinSet::new();
    loop {
        let settings = told.borrow_and_update().clone();
        take_over(&mut all, &settings.fleets, &*watch);
        loop {
            let next = begin(&mut all, &mut made);
            tokio::select! {
                () = news(&mut told) => break,
                () = is_told(&mut stop) => return,
                Some(Ok((fleet, found))) = made.join_next() => {
                    if let Some(kept) = all.get_mut(&fleet.lookup) {
                        on_found(kept, &fleet, found, &settings, &*watch);
                    }
                }
                () = until(next) => {}
            }
        }
    }
}

/// Keeps what is still named, and takes the rest back.
fn take_over<W: Watch>(all: &mut BTreeMap<Lookup, Kept>, fleets: &[Fleet], watch: &W) {
    let now = Instant::now().into_std();
    all.retain(|lookup, _| {
        let is_named = fleets.iter().any(|it| it.lookup == *lookup);
        if !is_named {
            watch.listed(lookup, &Listings::new());
            watch.lookup_stands(lookup, None);
        }
        is_named
    });
    for fleet in fleets {
        match all.get_mut(&fleet.lookup) {
            Some(kept) if kept.fleet == *fleet => {}
            Some(kept) => {
                kept.standing.configure(fleet.bounds(), now);
                kept.fleet = fleet.clone();
            }
            None => {
                let standing = Standing::new(fleet.bounds(), now);
                all.insert(fleet.lookup.clone(), Kept { fleet: fleet.clone(), standing, said: None });
            }
        }
    }
}

/// Begins those that are due; says when the next one is.
fn begin(all: &mut BTreeMap<Lookup, Kept>, made: &mut Made) -> Option<Instant> {
    let now = Instant::now().into_std();
    for kept in all.values_mut().filter(|it| it.standing.next().is_some_and(|at| at <= now)) {
        kept.standing.begin();
        let fleet = kept.fleet.clone();
        made.spawn(async move {
            let found = resolver::look_up(&fleet.lookup.name, fleet.lookup.port, fleet.resolver);
            // Whatever a strange answer does to the one who reads it, it is asked again.
            let found = AssertUnwindSafe(found).catch_unwind().await;
            let found =
                found.unwrap_or_else(|_| Err(Trouble::Failed("its answer cannot be read".to_owned())));
            (fleet, found)
        });
    }
    all.values().filter_map(|it| it.standing.next()).min().map(Instant::from_std)
}

fn on_found<W: Watch>(
    kept: &mut Kept,
    asked: &Fleet,
    found: Result<Found, Trouble>,
    settings: &Settings,
    watch: &W,
) {
    let (now, lookup) = (Instant::now().into_std(), &kept.fleet.lookup);
    // A port that the person names is asked whatever else uses it; one in a record is not.
    let is_named = |port| lookup.port == Some(port) && !settings.skip_ports.contains(&port);
    let may_ask = |port| is_named(port) || settings.may_ask(port);
    let answer = found.and_then(|it| judge(&it, kept.fleet.kind.as_ref(), &own_addresses(), may_ask));
    let is_news = kept.standing.on_answer(answer, now);
    if *asked != kept.fleet {
        // It was asked as the person wanted it before.
        kept.standing.configure(kept.fleet.bounds(), now);
    }
    if is_news {
        let held = kept.standing.held();
        tracing::info!(name = %lookup, servers = held.len(), "DNS lists");
        watch.listed(lookup, held);
    }
    let stands = Stands { servers: kept.standing.held().len(), trouble: kept.standing.trouble() };
    if kept.said.as_ref() == Some(&stands) {
        return;
    }
    let before = kept.said.replace(stands.clone()).and_then(|it| it.trouble);
    match &stands.trouble {
        Some(trouble) if before.as_ref() != Some(trouble) => {
            tracing::warn!(name = %lookup, "the lookup in DNS does not go well: {trouble}");
        }
        None if before.is_some() => tracing::info!(name = %lookup, "the lookup in DNS goes well again"),
        Some(_) | None => {}
    }
    watch.lookup_stands(lookup, Some(stands));
}

fn own_addresses() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect()
}
