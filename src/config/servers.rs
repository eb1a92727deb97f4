//! The servers that a person names, in the file or in the environment, and their keys.
//!
//! A key belongs to the endpoint that it was set for and goes nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{Config, Origin, Reader, Surroundings, reader::Section, values::Value};
use crate::{
    kind,
    registry::{self, Hint, ServerSettings},
    server::{Address, Endpoint, KindId, Pin, Source, Zone},
    upstream::Key,
};

/// A server that a person named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEntry {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What the person calls it.
    pub name: Option<String>,
    /// Its kind, where recognition should not decide.
    pub kind: Option<KindId>,
    /// Its key.
    pub key: Option<Key>,
    /// Lower is asked first.
    pub priority: i32,
    /// How many requests it gets at once.
    pub limit: Option<u32>,
    /// Where its requests end up.
    pub zone: Option<Zone>,
    /// Whether it is used.
    pub enabled: bool,
    /// Whether the kind is one that sells answers, or the address or the person says that it
    /// is in the cloud.
    pub in_cloud: bool,
    /// The file of a certificate authority that vouches for it, beside the usual ones.
    pub ca: Option<PathBuf>,
    /// The TLS key that it has to show, whoever vouches for it.
    pub pin: Option<Pin>,
    /// File or environment.
    pub source: Source,
}

impl ServerEntry {
    /// A server of which only the address was said.
    pub fn at(endpoint: Endpoint, source: Source) -> Self {
        Self {
            endpoint,
            name: None,
            kind: None,
            key: None,
            priority: 0,
            limit: None,
            zone: None,
            enabled: true,
            in_cloud: false,
            ca: None,
            pin: None,
            source,
        }
    }
}

impl ServerEntry {
    fn hint(&self) -> Hint {
        let settings = ServerSettings {
            name: self.name.clone(),
            kind: self.kind.clone(),
            priority: self.priority,
            limit: self.limit,
            zone: self.zone,
            pin: self.pin,
            enabled: self.enabled,
        };
        Hint { endpoint: self.endpoint.clone(), source: self.source, trusted: true, settings: Some(settings) }
    }
}

impl Config {
    /// What the person says of the cloud.
    pub fn zones(&self) -> registry::Cloud {
        let zone = |it: &ServerEntry| if it.in_cloud { Some(Zone::Cloud) } else { it.zone };
        let said = self.servers.iter().filter_map(|it| Some((&it.endpoint, zone(it)?)));
        let zones = said.flat_map(|(at, zone)| places(at).into_iter().map(move |it| (it, zone))).collect();
        registry::Cloud { enabled: self.cloud.enabled, zones }
    }

    /// Ports of this machine behind which the configuration says that the cloud is: what
    /// listens there is no server of this machine, whatever it says.
    pub fn cloud_ports(&self) -> Vec<u16> {
        let here = self.servers.iter().filter(|it| it.in_cloud && it.endpoint.is_local());
        here.filter_map(|it| it.endpoint.port()).collect()
    }

    /// What the person says about servers.
    pub fn said(&self) -> registry::Said {
        registry::Said {
            cloud: self.zones(),
            trust: self.discovery.trust.clone(),
            named: self.servers.iter().map(ServerEntry::hint).collect(),
        }
    }

    /// The key of every address that has one. A key goes nowhere else.
    pub fn keys(&self) -> BTreeMap<Endpoint, Key> {
        let named = self.servers.iter().filter(|it| self.cloud.enabled || !it.in_cloud);
        let named = named.filter_map(|it| Some((&it.endpoint, it.key.as_ref()?)));
        let usual = self.usual_keys.iter().map(|(endpoint, key)| (endpoint, key));
        // What names the server comes last and so stands.
        let all = usual.chain(named);
        all.flat_map(|(endpoint, key)| places(endpoint).into_iter().map(|it| (it, key.clone()))).collect()
    }
}

/// The addresses that an endpoint names: `localhost` is both loopback addresses.
fn places(endpoint: &Endpoint) -> Vec<Endpoint> {
    let mut places = vec![endpoint.clone()];
    if let Address::Tcp { host, .. } = endpoint.address()
        && host == "localhost"
    {
        let written = endpoint.to_string();
        let at = |ip: &str| Endpoint::parse(&written.replacen("localhost", ip, 1)).ok();
        places.extend(["127.0.0.1", "[::1]"].into_iter().filter_map(at));
    }
    places
}

/// Whether two addresses name the same place.
fn same_place(one: &Endpoint, other: &Endpoint) -> bool {
    places(one).contains(other) || places(other).contains(one)
}

pub(super) fn from_file(
    reader: &mut Reader<'_>,
    sections: Vec<Section<'_>>,
    around: &Surroundings<'_>,
) -> Vec<ServerEntry> {
    let mut servers: Vec<ServerEntry> = Vec::new();
    // The addresses that were written, and all that they name.
    let (mut written, mut named) = (BTreeSet::new(), BTreeSet::new());
    for section in sections {
        let span = section.span.clone();
        let label = section.key("url");
        let Some(server) = entry(reader, section, around) else { continue };
        let all = places(&server.endpoint);
        if named.contains(&server.endpoint) || all.iter().any(|it| written.contains(it)) {
            reader.problem(span, format!("`{label}` is there twice: {}", server.endpoint));
            continue;
        }
        written.insert(server.endpoint.clone());
        named.extend(all);
        servers.push(server);
    }
    servers
}

fn entry(
    reader: &mut Reader<'_>,
    mut section: Section<'_>,
    around: &Surroundings<'_>,
) -> Option<ServerEntry> {
    let span = section.span.clone();
    let url_key = section.key("url");
    let mut endpoint: Option<Endpoint> = None;
    let before = reader.problems.len();
    section.take(reader, "url", &mut endpoint);
    if endpoint.is_none() && reader.problems.len() == before {
        reader.problem(span.clone(), format!("`{url_key}` is missing: a server needs an address"));
    }
    let placeholder = Endpoint::tcp([127, 0, 0, 1].into(), 1);
    let mut server = ServerEntry::at(endpoint.clone().unwrap_or(placeholder), Source::Config);
    section.take(reader, "name", &mut server.name);
    section.take(reader, "kind", &mut server.kind);
    section.take(reader, "priority", &mut server.priority);
    section.take(reader, "limit", &mut server.limit);
    section.take(reader, "zone", &mut server.zone);
    section.take(reader, "enabled", &mut server.enabled);
    // Whoever names the address of a provider means that provider.
    let provider =
        kind::KINDS.iter().find(|it| it.provider().is_some_and(|it| server.endpoint.is_at(it.url)));
    server.kind = server.kind.take().or(provider.map(|it| it.id().into()));
    let is_sold = server.kind.as_ref().is_some_and(|it| kind::provider(it.as_str()).is_some());
    if is_sold {
        // Whatever the address: what is called so passes prompts on to whoever sells answers.
        server.zone = server.zone.or(Some(Zone::Cloud));
        server.endpoint = whole(server.endpoint, &server.kind);
    }
    server.key = key(reader, &mut section, around, server.kind.as_ref());
    let mut tls = section.section(reader, "tls");
    let ca_key = tls.key("ca");
    let ca_span = tls.span.clone();
    let mut ca: Option<String> = None;
    tls.take(reader, "ca", &mut ca);
    let pin_key = tls.key("pin");
    tls.take(reader, "pin", &mut server.pin);
    tls.done(reader);
    section.done(reader);
    let speaks_tls = matches!(server.endpoint.address(), Address::Tcp { tls: true, .. });
    if server.pin.is_some() && endpoint.is_some() && !speaks_tls {
        reader.problem(ca_span.clone(), format!("`{pin_key}` needs an https address"));
    }
    if server.pin.is_some() && ca.is_some() {
        let message =
            format!("`{ca_key}` and `{pin_key}` exclude each other: with a pin no authority is asked");
        reader.problem(ca_span.clone(), message);
    }
    if let Some(ca) = ca {
        let path = beside(reader, around, &ca);
        reader.files.push(path.clone());
        if endpoint.is_some() && !speaks_tls {
            reader.problem(ca_span, format!("`{ca_key}` needs an https address"));
        } else if let Err(error) = fs::File::open(&path) {
            reader.problem(ca_span, format!("`{ca_key}`: cannot read {}: {error}", path.display()));
        }
        server.ca = Some(path);
    }
    if endpoint.is_some() {
        server.in_cloud = is_in_cloud(&server.endpoint, server.zone);
        if is_sold && !speaks_tls && !server.endpoint.is_local() {
            let message = format!("`{url_key}`: its key and every prompt go there by https only");
            reader.problem(span, message);
        }
    }
    endpoint.is_some().then_some(server)
}

/// Gemini's door for OpenAI's language is never at the root.
fn whole(endpoint: Endpoint, kind: &Option<KindId>) -> Endpoint {
    let usual = kind.as_ref().and_then(|it| kind::provider(it.as_str()));
    let usual = usual.filter(|it| it.list == "/models").and_then(|it| Endpoint::parse(it.url).ok());
    usual.filter(|_| endpoint.has_no_path()).map_or(endpoint.clone(), |usual| endpoint.with_path_of(&usual))
}

/// Whether a server is in the cloud, by what the person says or else by its address.
fn is_in_cloud(endpoint: &Endpoint, zone: Option<Zone>) -> bool {
    zone.unwrap_or_else(|| registry::Cloud::default().zone(endpoint)) == Zone::Cloud
}

/// Relative paths start at the file that names them, `~/` at home.
pub(super) fn beside(reader: &Reader<'_>, around: &Surroundings<'_>, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), &around.home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => reader.file.parent().unwrap_or(Path::new("/")).join(text),
    }
}

fn key(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    around: &Surroundings<'_>,
    kind: Option<&KindId>,
) -> Option<Key> {
    let span = section.span.clone();
    let (env_key, file_key) = (section.key("key_env"), section.key("key_file"));
    let variable = section.take_raw("key_env");
    let mut file: Option<String> = None;
    section.take(reader, "key_file", &mut file);
    let Some((variable, variable_span)) = variable else {
        reader.setting(env_key, json!(null), Origin::Default, None);
        return read_key_file(reader, span, &file_key, &beside(reader, around, &file?), kind);
    };
    if file.is_some() {
        reader.problem(span, format!("`{env_key}` and `{file_key}` exclude each other"));
        return None;
    }
    // Whoever puts the key itself here must not find it in a log.
    let is_name = |it: &&str| {
        !it.starts_with(|first: char| first.is_ascii_digit())
            && !it.is_empty()
            && it.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    };
    let Some(name) = variable.as_str().filter(is_name) else {
        let message =
            format!("`{env_key}` must be the name of an environment variable, it is not the key itself");
        reader.problem(Some(variable_span), message);
        return None;
    };
    let at = reader.at(Some(variable_span.clone()));
    reader.setting(env_key.clone(), json!(name), Origin::File, Some(at.clone()));
    match around.text(name) {
        None => {
            reader
                .warnings
                .push(format!("{at}: `{env_key}`: the variable {name} is not set; no key is sent"));
            None
        }
        Some(text) => {
            let key = shown(&text, kind);
            if key.is_none() {
                let message =
                    format!("`{env_key}`: the variable {name} holds no key that a header can carry");
                reader.problem(Some(variable_span), message);
            }
            key
        }
    }
}

/// A key as servers of this kind are shown it.
fn shown(text: &str, kind: Option<&KindId>) -> Option<Key> {
    match kind.and_then(|it| kind::provider(it.as_str())).and_then(|it| it.key_header) {
        Some(header) => Key::bare(text, header),
        None => Key::new(text),
    }
}

fn read_key_file(
    reader: &mut Reader<'_>,
    span: Option<Range<usize>>,
    label: &str,
    path: &Path,
    kind: Option<&KindId>,
) -> Option<Key> {
    let text = read_secret(reader, span.clone(), label, path)?;
    let key = shown(&text, kind);
    if key.is_none() {
        let message = format!("`{label}`: {}: holds no key that a header can carry", path.display());
        reader.problem(span, message);
    }
    key
}

/// Says that others may read the file, in which there is a secret. It holds all the same: a
/// file that was fine yesterday must not stop anything today.
pub(super) fn warn_of_readers(reader: &mut Reader<'_>, span: Option<Range<usize>>) {
    let mode = fs::metadata(&reader.file).map_or(0, |it| it.mode() & 0o777);
    if mode & 0o077 != 0 {
        let at = reader.at(span);
        reader.warnings.push(format!(
            "{at}: there is a password in this file, and others may read or change it (mode {mode:04o}); chmod 600 it"
        ));
    }
}

/// What stands in a file that nobody else may read.
pub(super) fn read_secret(
    reader: &mut Reader<'_>,
    span: Option<Range<usize>>,
    label: &str,
    path: &Path,
) -> Option<String> {
    reader.files.push(path.to_owned());
    let mut refuse = |why: String| {
        reader.problem(span.clone(), format!("`{label}`: {}: {why}", path.display()));
        None
    };
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) => return refuse(error.to_string()),
    };
    if !facts.is_file() {
        return refuse("is not a file".to_owned());
    }
    if facts.mode() & 0o077 != 0 {
        return refuse(format!(
            "others may read or change it (mode {:04o}); chmod 600 it",
            facts.mode() & 0o7777
        ));
    }
    // A key is a line; nobody's key is larger than this.
    if facts.len() > 64 * 1024 {
        return refuse("is too large for a key".to_owned());
    }
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => refuse(error.to_string()),
    }
}

/// What the environment says of one kind.
struct Variables {
    kind: &'static str,
    enabled: &'static str,
    /// The first that is set counts.
    urls: &'static [&'static str],
    key: Option<&'static str>,
    /// For an address without a port, and for a key without an address.
    port: u16,
}

const VARIABLES: [Variables; 3] = [
    Variables {
        kind: "ollama",
        enabled: "OLLAMA_ENABLED",
        urls: &["OLLAMA_BASE_URL", "OLLAMA_HOST"],
        key: None,
        port: 11434,
    },
    Variables {
        kind: "vllm",
        enabled: "VLLM_ENABLED",
        urls: &["VLLM_BASE_URL"],
        key: Some("VLLM_API_KEY"),
        port: 8000,
    },
    Variables {
        kind: "lmstudio",
        enabled: "LMSTUDIO_ENABLED",
        urls: &["LMSTUDIO_BASE_URL"],
        key: None,
        port: 1234,
    },
];

/// Adds what the environment names. These variables belong to other programs as
/// well, so one that makes no sense is warned of and stops nothing.
pub(super) fn from_environment(reader: &mut Reader<'_>, config: &mut Config, around: &Surroundings<'_>) {
    for of_kind in &VARIABLES {
        if let Some(text) = around.text(of_kind.enabled) {
            match bool::from_text(&text) {
                Ok(true) => {}
                Ok(false) => {
                    let key = format!("{}.enabled", of_kind.kind);
                    let at = Some(of_kind.enabled.to_owned());
                    reader.setting(key, json!(false), Origin::Environment, at);
                    config.disabled_kinds.insert(of_kind.kind.into());
                    continue;
                }
                Err(why) => reader.warnings.push(format!("{} {why}; ignored", of_kind.enabled)),
            }
        }
        let secret = of_kind.key.and_then(|name| {
            let text = around.text(name)?;
            let secret = Key::new(&text);
            if secret.is_none() {
                reader.warnings.push(format!("{name} holds no key that a header can carry; ignored"));
            }
            secret
        });
        let named = of_kind.urls.iter().find_map(|name| Some((*name, around.text(name)?)));
        match named.map(|(name, text)| (name, Endpoint::parse_with_port(&text, Some(of_kind.port)))) {
            Some((name, Ok(endpoint))) => {
                let at = Some(name.to_owned());
                let key = format!("{}.url", of_kind.kind);
                reader.setting(key, json!(endpoint.to_string()), Origin::Environment, at);
                add(config, endpoint, secret);
            }
            Some((name, Err(why))) => reader.warnings.push(format!("{name}: {why}; ignored")),
            None => {
                // A key alone is for the server at the usual address, and for no other.
                let usual = Endpoint::parse_with_port("localhost", Some(of_kind.port));
                if let (Some(secret), Ok(usual)) = (secret, usual) {
                    config.usual_keys.push((usual, secret));
                }
            }
        }
    }
}

/// Adds whoever sells answers and whose key the environment has: at its own address, unless
/// the file says where the kind is. Without the cloud nothing of it is so much as looked at.
pub(super) fn providers(reader: &mut Reader<'_>, config: &mut Config, around: &Surroundings<'_>) {
    for (kind, provider) in kind::KINDS.iter().filter_map(|it| Some((it.id(), it.provider()?))) {
        let Some(text) = around.text(provider.key_env) else { continue };
        let kind = KindId::from(kind);
        let Some(key) = shown(&text, Some(&kind)) else {
            let message = format!("{} holds no key that a header can carry; ignored", provider.key_env);
            reader.warnings.push(message);
            continue;
        };
        let mut configured =
            config.servers.iter_mut().filter(|it| it.kind.as_ref() == Some(&kind)).peekable();
        if configured.peek().is_some() {
            configured.filter(|it| it.key.is_none()).for_each(|it| it.key = Some(key.clone()));
            continue;
        }
        let Ok(endpoint) = Endpoint::parse(provider.url) else { continue };
        let at = Some(provider.key_env.to_owned());
        reader.setting(format!("{kind}.url"), json!(endpoint.to_string()), Origin::Environment, at);
        config.servers.push(ServerEntry {
            kind: Some(kind),
            key: Some(key),
            zone: Some(Zone::Cloud),
            in_cloud: true,
            ..ServerEntry::at(endpoint, Source::Environment)
        });
    }
}

/// The file may have named the same server, with more to say of it.
fn add(config: &mut Config, endpoint: Endpoint, secret: Option<Key>) {
    match config.servers.iter_mut().find(|it| same_place(&it.endpoint, &endpoint)) {
        // The environment goes before the file.
        Some(known) => known.key = secret.or(known.key.take()),
        None => {
            let mut server = ServerEntry { key: secret, ..ServerEntry::at(endpoint, Source::Environment) };
            server.in_cloud = is_in_cloud(&server.endpoint, None);
            config.servers.push(server);
        }
    }
}
