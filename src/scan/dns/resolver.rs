//! Asks a resolver, and gives back what it said, unjudged.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, Record, RecordType, rdata::SRV},
    system_conf::read_system_conf,
};
use tokio::time::timeout;

use super::answer::{Found, Host, MOST, Trouble};

/// How long one question may take, and how often it is asked: a resolver has to ask others.
const ANSWER: Duration = Duration::from_secs(2);
const TRIES: usize = 2;

/// How long a lookup may take with all of its questions.
const ALL: Duration = Duration::from_secs(10);

/// Questions about hosts that are under way at once, where the answer does not bring their
/// addresses along.
const AT_ONCE: usize = 16;

/// Looks a name up: its addresses where a `port` is given, else what its records say.
///
/// A resolver is made anew each time. It costs a small file to read, and on a laptop that joins
/// another network the system's one is another afterwards; its cache would know nothing that we
/// do not.
pub(super) async fn look_up(name: &str, port: Option<u16>, at: Option<SocketAddr>) -> Result<Found, Trouble> {
    let looked_up = async {
        let resolver = Resolver::new(at).await?;
        let name = Name::from_ascii(format!("{name}.")).map_err(|it| Trouble::Failed(it.to_string()))?;
        match port {
            Some(port) => resolver.addresses_of(&name, port).await,
            None => resolver.services_of(&name).await,
        }
    };
    timeout(ALL, looked_up).await.unwrap_or(Err(Trouble::Silent))
}

struct Resolver(TokioResolver);

impl Resolver {
    async fn new(at: Option<SocketAddr>) -> Result<Self, Trouble> {
        let config = match at {
            Some(at) => {
                let mut server = NameServerConfig::udp_and_tcp(at.ip());
                server.connections.iter_mut().for_each(|it| it.port = at.port());
                let mut config = ResolverConfig::default();
                config.name_servers.push(server);
                config
            }
            None => {
                let read = tokio::task::spawn_blocking(read_system_conf).await;
                // It does not panic; if it did, there would be no resolver. The errors of a Mac are
                // others than those of Linux.
                let read = read.map_err(|it| Trouble::Failed(it.to_string()))?;
                read.map_err(|it| Trouble::Failed(it.to_string()))?.0
            }
        };
        let mut options = ResolverOpts::default();
        options.timeout = ANSWER;
        options.attempts = TRIES;
        options.cache_size = 0;
        // It is DNS that the person wants to be asked.
        options.use_hosts_file = ResolveHosts::Never;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.with_options(options).build().map(Self).map_err(trouble)
    }

    /// Each address of a name is a server.
    async fn addresses_of(&self, name: &Name, port: u16) -> Result<Found, Trouble> {
        let (ips, ttl) = self.addresses(name).await?;
        if ips.is_empty() {
            return Err(self.why_nothing(name).await);
        }
        let host = |ip| Host { ips: vec![ip], port, priority: 0, weight: 0 };
        Ok(Found { hosts: ips.into_iter().map(host).collect(), ttl })
    }

    /// The hosts of SRV records, at the name itself or at the instances that it points to (DNS-SD).
    async fn services_of(&self, name: &Name) -> Result<Found, Trouble> {
        let mut all = Services::default();
        match self.ask(name, RecordType::SRV).await? {
            Some(answer) => all.add(&answer),
            None => {
                let Some(pointers) = self.ask(name, RecordType::PTR).await? else {
                    return Err(self.why_nothing(name).await);
                };
                all.ttl = Some(ttl_of(&pointers));
                let instances: Vec<Name> = pointers.answers().iter().filter_map(pointer).collect();
                if instances.len() > MOST {
                    return Err(Trouble::TooMany(instances.len()));
                }
                let answers = stream::iter(instances);
                let answers = answers.map(|it| async move { self.ask(&it, RecordType::SRV).await });
                let answers: Vec<Option<Lookup>> = answers.buffered(AT_ONCE).try_collect().await?;
                answers.iter().flatten().for_each(|it| all.add(it));
            }
        }
        if all.records.len() > MOST {
            return Err(Trouble::TooMany(all.records.len()));
        }
        self.complete(all).await
    }

    /// Finds the addresses of hosts that did not come along.
    async fn complete(&self, all: Services) -> Result<Found, Trouble> {
        let Services { records, mut known, ttl } = all;
        let mut ttl = ttl.unwrap_or_default();
        let mut unknown: Vec<&Name> =
            records.iter().map(|it| &it.target).filter(|it| !known.contains_key(*it)).collect();
        unknown.sort();
        unknown.dedup();
        let answers = stream::iter(unknown.into_iter().cloned());
        let answers =
            answers.map(|name| async move { Ok::<_, Trouble>((self.addresses(&name).await?, name)) });
        // One that cannot be found out now would be taken for gone: then it is no answer at all.
        let answers: Vec<_> = answers.buffered(AT_ONCE).try_collect().await?;
        for ((ips, its_ttl), name) in answers {
            if !ips.is_empty() {
                ttl = ttl.min(its_ttl);
            }
            known.insert(name, ips);
        }
        let host = |it: &SRV| Host {
            ips: known.get(&it.target).cloned().unwrap_or_default(),
            port: it.port,
            priority: it.priority,
            weight: it.weight,
        };
        Ok(Found { hosts: records.iter().map(host).collect(), ttl })
    }

    async fn addresses(&self, name: &Name) -> Result<(Vec<IpAddr>, Duration), Trouble> {
        for of in [RecordType::A, RecordType::AAAA] {
            if let Some(answer) = self.ask(name, of).await? {
                return Ok((answer.answers().iter().filter_map(ip).collect(), ttl_of(&answer)));
            }
        }
        Ok((Vec::new(), Duration::ZERO))
    }

    /// Where there is nothing: whether that is all, or an alias leads in a circle or to nobody.
    async fn why_nothing(&self, name: &Name) -> Trouble {
        match self.ask(name, RecordType::CNAME).await {
            Ok(Some(_)) => Trouble::Astray,
            Ok(None) => Trouble::Nothing,
            Err(trouble) => trouble,
        }
    }

    /// Records of this type; `None` where the resolver says that there are none.
    async fn ask(&self, name: &Name, of: RecordType) -> Result<Option<Lookup>, Trouble> {
        match self.0.lookup(name.clone(), of).await {
            Ok(answer) => Ok(answer.answers().iter().any(|it| it.record_type() == of).then_some(answer)),
            Err(error) if error.is_no_records_found() => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }
}

/// Records of services, with what is known of their hosts.
#[derive(Default)]
struct Services {
    records: Vec<SRV>,
    known: BTreeMap<Name, Vec<IpAddr>>,
    ttl: Option<Duration>,
}

impl Services {
    fn add(&mut self, answer: &Lookup) {
        let ttl = ttl_of(answer);
        self.ttl = Some(self.ttl.map_or(ttl, |it| it.min(ttl)));
        // A root as target says that the service is not to be had.
        let records = answer.answers().iter().filter_map(service).filter(|it| !it.target.is_root());
        self.records.extend(records);
        for record in answer.additionals() {
            if let Some(ip) = ip(record) {
                self.known.entry(record.name.clone()).or_default().push(ip);
            }
        }
    }
}

fn service(record: &Record) -> Option<SRV> {
    if let RData::SRV(it) = &record.data { Some(it.clone()) } else { None }
}

fn pointer(record: &Record) -> Option<Name> {
    if let RData::PTR(it) = &record.data { Some(it.0.clone()) } else { None }
}

fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(it) => Some(it.0.into()),
        RData::AAAA(it) => Some(it.0.into()),
        _ => None,
    }
}

/// For how long all of it holds.
fn ttl_of(answer: &Lookup) -> Duration {
    let records = answer.answers().iter().chain(answer.additionals().iter().filter(|it| ip(it).is_some()));
    Duration::from_secs(records.map(|it| it.ttl).min().unwrap_or_default().into())
}

fn trouble(error: NetError) -> Trouble {
    match error {
        NetError::Timeout | NetError::NoConnections => Trouble::Silent,
        NetError::Dns(DnsError::ResponseCode(code)) => Trouble::Failed(format!("it answers {code}")),
        error => Trouble::Failed(error.to_string()),
    }
}
