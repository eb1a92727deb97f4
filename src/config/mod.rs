//! Reads flags, environment and file into each room's own settings.
//!
//! It knows names, ways of writing and where a value came from; what a setting
//! does is known in the room that has it. Order: flag, environment, file,
//! default. Everything has a default, so a missing file is an empty one; an
//! unknown name is refused with the nearest that exists.

mod fleets;
mod paths;
mod reader;
mod servers;
mod token;
mod values;
mod variable;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value as Json, json};

use self::{
    reader::{Override, Reader, Section},
    values::Value,
};
use crate::{
    failover::Patience,
    generate::Usd,
    otlp::Collector,
    postgres::{self, Database},
    registry::Trust,
    route::Fallback,
    scan::Fleet,
    server::{Endpoint, KindId},
    spending::Prices,
    upstream::Key,
};

pub use self::{
    paths::{
        Env, PathError, PathFlags, Paths, Place, SYSTEM_RUN, Scope, Surroundings, System, shared_tmp_dir,
    },
    reader::{Origin, Problem, Setting},
    servers::ServerEntry,
    token::Token,
    values::{ListenAddress, Size, parse_duration, show_duration},
    variable::variables,
};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[[servers]]`, and those that the environment names.
    pub servers: Vec<ServerEntry>,
    /// Keys that the environment has for an address without naming it as a server.
    pub usual_keys: Vec<(Endpoint, Key)>,
    /// Kinds that the environment switches off.
    pub disabled_kinds: BTreeSet<KindId>,
    /// `[aliases]`: what callers say, and the model that is meant.
    pub aliases: BTreeMap<String, String>,
    /// `[discovery]`.
    pub discovery: Discovery,
    /// `[fallback]`.
    pub fallback: FallbackSettings,
    /// `[patience]`.
    pub patience: Patience,
    /// `[cloud]`.
    pub cloud: CloudSettings,
    /// `[listen]`.
    pub listen: Listen,
    /// `[queue]`.
    pub queue: QueueSettings,
    /// `[limits]`.
    pub limits: Limits,
    /// `[stats]`.
    pub stats: Stats,
    /// `[log]`.
    pub log: Log,
}

/// How servers are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Ports that are asked besides the usual ones, also where a built-in reason says not to.
    pub ports: Vec<u16>,
    /// Ports that are never asked.
    pub skip_ports: Vec<u16>,
    /// Whether the table of listening sockets is watched.
    pub socket_table: bool,
    /// Whether servers are found that announce themselves in the network.
    pub mdns: bool,
    /// `[[discovery.dns]]`: fleets whose servers DNS lists.
    pub fleets: Vec<Fleet>,
    /// Whether this daemon announces itself there.
    pub advertise: bool,
    /// Servers that are trusted though they are another user's or on another machine.
    pub trust: Vec<Trust>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            skip_ports: Vec::new(),
            socket_table: true,
            mdns: true,
            fleets: Vec::new(),
            advertise: false,
            trust: Vec::new(),
        }
    }
}

/// How far a stand-in may be from what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackSettings {
    /// For a request that does not say.
    pub default: Fallback,
    /// For every request.
    pub limit: Fallback,
    /// For names, the models that stand in for them, in this order.
    pub chains: BTreeMap<String, Vec<String>>,
}

impl Default for FallbackSettings {
    fn default() -> Self {
        Self { default: Fallback::Same, limit: Fallback::Local, chains: BTreeMap::new() }
    }
}

impl Value for Fallback {
    const EXPECTED: &'static str = "\"none\", \"same\", \"local\" or \"cloud\"";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("must be {}", Self::EXPECTED))
    }
    fn show(&self) -> Json {
        json!(self.to_string())
    }
}

/// Whether answers may be bought, for how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudSettings {
    /// Whether anybody outside of the own network is asked at all.
    pub enabled: bool,
    /// The most that a day may cost; without it there is no limit.
    pub daily: Option<Usd>,
    /// What models cost.
    pub prices: Prices,
}

/// The TCP door beside the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Where; nowhere by default.
    pub address: Option<ListenAddress>,
    /// Whether others may come from outside of this machine, with the token.
    pub allow_remote: bool,
    /// What who may not open the socket has to show.
    pub token: Option<Token>,
    /// Host names, with or without port, that are fine besides the loopback ones.
    pub hosts: Vec<String>,
    /// Web origins that are let in, and told so by CORS headers.
    pub origins: Vec<String>,
    /// Whether routes that change something are there as well.
    pub control: bool,
}

/// Who may wait while every server has all that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How many requests.
    pub size: usize,
}

impl Default for QueueSettings {
    /// More than the agents of one person ever have at once, and few enough that the last
    /// one is still served in minutes.
    fn default() -> Self {
        Self { size: 256 }
    }
}

/// How much memory callers may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body of a request.
    pub body: Size,
    /// All that is held back at once for the sake of failover.
    pub held: Size,
    /// The memory that the servers of this machine share for their models, if it is known.
    pub gpu_memory: Option<Size>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: Size::mib(64), held: Size::mib(256), gpu_memory: None }
    }
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Whether outcomes are stored at all.
    pub tracking: bool,
    /// How much space outcomes may take on the disk. Sums of them outlive them.
    pub max_size: Size,
    /// The database that they are sent to as well.
    pub postgres: Option<Database>,
    /// The collector that traces and metrics are sent to.
    pub otlp: Option<Collector>,
}

impl Stats {
    /// Less is not worth its name: a database takes half a MiB before anything is in it.
    const LEAST: Size = Size::mib(8);
}

impl Default for Stats {
    fn default() -> Self {
        Self { tracking: true, max_size: Size::mib(256), postgres: None, otlp: None }
    }
}

impl Value for Database {
    const EXPECTED: &'static str = postgres::EXPECTED;
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
    fn show(&self) -> Json {
        json!(self.shown())
    }
}

/// How the log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// A level, or a whole tracing filter where `LOVABLE_LOG` has one.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// Lines for people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("must be {}", Self::EXPECTED)),
        }
    }
    fn show(&self) -> Json {
        match self {
            Self::Text => json!("text"),
            Self::Json => json!("json"),
        }
    }
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`, `--socket`, `--state-dir`.
    pub paths: PathFlags,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--log-format`.
    pub log_format: Option<String>,
    /// One for each `-v`, minus one for each `-q`.
    pub verbosity: i8,
}

/// The configuration, and how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Where everything is.
    pub paths: Paths,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What looks like a mistake but stops nothing.
    pub warnings: Vec<String>,
    /// Every setting and where it came from.
    pub settings: Vec<Setting>,
    /// All files that have a word in it, whether they are there or not.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// What `config show` prints; no secret is in it.
    pub fn show(&self) -> Json {
        json!({ "file": self.file, "warnings": self.warnings, "settings": self.settings })
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no place for something.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}

/// Loads everything that can be set.
pub fn load(
    flags: &Flags,
    around: &Surroundings<'_>,
    inherited: Option<&Path>,
) -> Result<Loaded, ConfigError> {
    read_again(Paths::resolve(&flags.paths, around, inherited)?, flags, around).loaded
}

/// What came of reading the configuration.
#[derive(Debug)]
pub struct Reading {
    /// What it says, or why not.
    pub loaded: Result<Loaded, ConfigError>,
    /// All files that have a word in it, whether they are there or not: when one of them
    /// changes it is worth reading again.
    pub files: Vec<PathBuf>,
    /// Whether nothing is in the file, or there is none, as in the moment between cutting it
    /// off and writing it.
    pub is_empty: bool,
}

/// Loads everything that can be set, from where it was found at the start.
pub fn read_again(paths: Paths, flags: &Flags, around: &Surroundings<'_>) -> Reading {
    let config = paths.config.path.clone();
    let unreadable = |source| Reading {
        loaded: Err(ConfigError::Unreadable { path: config.clone(), source }),
        files: vec![config.clone()],
        is_empty: false,
    };
    let text = match fs::read_to_string(&paths.config.path) {
        Ok(text) => Some(text),
        // Only a file that was asked for has to be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && paths.config.from == Origin::Default => None,
        Err(source) => return unreadable(source),
    };
    let file = text.is_some().then(|| paths.config.path.clone());
    let mut reader = Reader::new(config.clone(), text.as_deref().unwrap_or_default());
    for (key, place) in [("socket", &paths.socket), ("config", &paths.config), ("state_dir", &paths.state)] {
        let shown = json!(place.path.to_string_lossy());
        reader.setting(key.to_owned(), shown, place.from, place.at.map(str::to_owned));
    }
    reader.overrides = overrides(flags, around);
    let config = read(&mut reader, around);
    let Reader { problems, warnings, settings, files, .. } = reader;
    let is_empty = text.is_none_or(|it| it.trim().is_empty());
    let loaded = if problems.is_empty() {
        Ok(Loaded { config, paths, file, warnings, settings, files: files.clone() })
    } else {
        Err(ConfigError::Wrong(problems))
    };
    Reading { loaded, files, is_empty }
}

/// The flags and variables that have a word in a setting.
fn overrides(flags: &Flags, around: &Surroundings<'_>) -> BTreeMap<&'static str, Override> {
    let mut all = BTreeMap::new();
    let flag = |name: &str, text: String| Override { from: Origin::Flag, name: name.to_owned(), text };
    let variable =
        |name: &str, text: String| Override { from: Origin::Environment, name: name.to_owned(), text };
    if let Some(text) = &flags.listen {
        all.insert("listen.address", flag("--listen", text.clone()));
    } else if let Some(text) = around.text("LOVABLE_LISTEN") {
        all.insert("listen.address", variable("LOVABLE_LISTEN", text));
    }
    if let Some(text) = &flags.log_format {
        all.insert("log.format", flag("--log-format", text.clone()));
    }
    let level = match flags.verbosity {
        ..=-2 => "error",
        -1 => "warn",
        0 => "",
        1 => "debug",
        2.. => "trace",
    };
    if !level.is_empty() {
        let name = if flags.verbosity > 0 { "-v" } else { "-q" };
        all.insert("log.level", flag(name, level.to_owned()));
    } else if let Some(text) = around.text("LOVABLE_LOG") {
        all.insert("log.level", variable("LOVABLE_LOG", text));
    }
    // Whoever asks not to be tracked is not, whatever else is set.
    let refuses =
        |text: &str| !matches!(text.trim().to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off");
    if around.text("DO_NOT_TRACK").is_some_and(|it| refuses(&it)) {
        all.insert("stats.tracking", variable("DO_NOT_TRACK", "off".to_owned()));
    } else if let Some(text) = around.text("LOVABLE_TRACKING") {
        all.insert("stats.tracking", variable("LOVABLE_TRACKING", text));
    }
    all
}

fn read(reader: &mut Reader<'_>, around: &Surroundings<'_>) -> Config {
    let mut config = Config::default();
    let mut root = reader.root();
    let configured = root.list(reader, "servers");
    config.servers = servers::from_file(reader, configured, around);
    servers::from_environment(reader, &mut config, around);
    let section = root.section(reader, "aliases");
    config.aliases = aliases(reader, section);

    let mut section = root.section(reader, "discovery");
    let discovery = &mut config.discovery;
    section.take(reader, "ports", &mut discovery.ports);
    section.take(reader, "skip_ports", &mut discovery.skip_ports);
    section.take(reader, "socket_table", &mut discovery.socket_table);
    section.take(reader, "mdns", &mut discovery.mdns);
    section.take(reader, "advertise", &mut discovery.advertise);
    section.take(reader, "trust", &mut discovery.trust);
    let configured = section.list(reader, "dns");
    discovery.fleets = fleets::from_file(reader, configured);
    section.done(reader);

    let section = root.section(reader, "cloud");
    config.cloud = cloud(reader, section);
    if config.cloud.enabled {
        servers::providers(reader, &mut config, around);
        // Whoever enables the cloud may be asked for it.
        config.fallback.limit = Fallback::Cloud;
    }
    idle_clouds(reader, &config);

    let mut section = root.section(reader, "fallback");
    let span = section.span.clone();
    section.take(reader, "default", &mut config.fallback.default);
    section.take(reader, "limit", &mut config.fallback.limit);
    let entries = section.section(reader, "chains");
    config.fallback.chains = chains(reader, entries);
    section.done(reader);
    let reaches = config.fallback.default.max(config.fallback.limit);
    if reaches == Fallback::Cloud && !config.cloud.enabled {
        let message = "`fallback` cannot be \"cloud\": cloud servers are not enabled ([cloud] enabled)";
        reader.problem(span, message.to_owned());
    }

    let section = root.section(reader, "patience");
    patience(reader, section, &mut config.patience);
    let section = root.section(reader, "listen");
    listen(reader, section, &mut config.listen, around);

    let mut section = root.section(reader, "queue");
    section.take(reader, "size", &mut config.queue.size);
    section.done(reader);

    let mut section = root.section(reader, "limits");
    section.take(reader, "body", &mut config.limits.body);
    section.take(reader, "held", &mut config.limits.held);
    section.take(reader, "gpu_memory", &mut config.limits.gpu_memory);
    section.done(reader);

    let mut section = root.section(reader, "stats");
    let span = section.span.clone();
    section.take(reader, "tracking", &mut config.stats.tracking);
    section.take(reader, "max_size", &mut config.stats.max_size);
    section.take(reader, "postgres", &mut config.stats.postgres);
    section.take(reader, "otlp", &mut config.stats.otlp);
    section.done(reader);
    if config.stats.postgres.as_ref().is_some_and(Database::has_password) {
        servers::warn_of_readers(reader, span.clone());
    }
    if config.stats.max_size < Stats::LEAST {
        reader.problem(span, format!("`stats.max_size` must be at least {}", Stats::LEAST));
    }

    let section = root.section(reader, "log");
    log(reader, section, &mut config.log);
    root.done(reader);
    config
}

fn aliases(reader: &mut Reader<'_>, mut section: Section<'_>) -> BTreeMap<String, String> {
    let mut aliases = BTreeMap::new();
    for (alias, target) in section.entries() {
        let key = section.key(&alias);
        let span = target.span();
        match target.get_ref().as_str().map(str::trim) {
            Some(target) if !target.is_empty() && target != alias && !alias.is_empty() => {
                let at = reader.at(Some(span));
                reader.setting(key, json!(target), Origin::File, Some(at));
                aliases.insert(alias, target.to_owned());
            }
            Some(target) if target == alias => {
                reader.problem(Some(span), format!("`{key}` stands for itself"));
            }
            _ => reader.problem(Some(span), format!("`{key}` must be the name of a model")),
        }
    }
    aliases
}

fn cloud(reader: &mut Reader<'_>, mut section: Section<'_>) -> CloudSettings {
    let mut cloud = CloudSettings::default();
    section.take(reader, "enabled", &mut cloud.enabled);
    section.take(reader, "daily_usd", &mut cloud.daily);
    let mut prices = section.section(reader, "prices");
    for (model, price) in prices.entries() {
        let key = prices.key(&model);
        let span = price.span();
        match values::price(price.get_ref()) {
            Some(_) if model.is_empty() => reader.problem(Some(span), format!("`{key}` names no model")),
            Some(price) => {
                let at = reader.at(Some(span));
                reader.setting(key, values::show_price(&price), Origin::File, Some(at));
                cloud.prices.insert(model, price);
            }
            None => {
                let message = format!(
                    "`{key}` must be what a million tokens cost, in US dollars: {{ input = 1.25, output = 10.0 }}"
                );
                reader.problem(Some(span), message);
            }
        }
    }
    section.done(reader);
    cloud
}

/// Tells of servers that are named and cannot be used, since silence would be a riddle.
fn idle_clouds(reader: &mut Reader<'_>, config: &Config) {
    for server in config.servers.iter().filter(|it| it.in_cloud && !config.cloud.enabled) {
        let message =
            format!("{} is in the cloud and is not asked: [cloud] enabled is false", server.endpoint);
        reader.warnings.push(message);
    }
}

fn chains(reader: &mut Reader<'_>, mut section: Section<'_>) -> BTreeMap<String, Vec<String>> {
    let mut chains = BTreeMap::new();
    for (name, links) in section.entries() {
        let key = section.key(&name);
        let span = links.span();
        let names = links.get_ref().as_array().map(|it| it.iter().map(|it| it.get_ref().as_str()));
        let names: Option<Vec<&str>> = names.and_then(|it| it.map(|it| Some(it?.trim())).collect());
        match names {
            _ if name == "auto" => {
                reader.problem(Some(span), format!("`{key}` has no use: `auto` takes whatever suits"));
            }
            Some(names) if !names.is_empty() && !names.contains(&"") => {
                let wrong = names.iter().find(|it| **it == "auto" || **it == name);
                if let Some(wrong) = wrong {
                    reader.problem(Some(span), format!("`{key}` cannot have `{wrong}` in it"));
                    continue;
                }
                let at = reader.at(Some(span));
                reader.setting(key, json!(names), Origin::File, Some(at));
                chains.insert(name, names.into_iter().map(str::to_owned).collect());
            }
            _ => reader.problem(Some(span), format!("`{key}` must be a list of names of models")),
        }
    }
    chains
}

fn patience(reader: &mut Reader<'_>, mut section: Section<'_>, patience: &mut Patience) {
    let span = section.span.clone();
    section.take(reader, "connect", &mut patience.connect);
    section.take(reader, "first_token", &mut patience.first_token);
    section.take(reader, "load", &mut patience.load);
    section.take(reader, "gap", &mut patience.gap);
    section.take(reader, "before_commit", &mut patience.before_commit);
    section.take(reader, "open_after", &mut patience.open_after);
    section.done(reader);
    // No patience at all would fail every request; an `open_after` of zero only opens at once.
    for (key, value) in [
        ("connect", patience.connect),
        ("first_token", patience.first_token),
        ("load", patience.load),
        ("gap", patience.gap),
        ("before_commit", patience.before_commit),
    ] {
        if value.is_zero() {
            reader.problem(span.clone(), format!("`patience.{key}` must be longer than nothing"));
        }
    }
}

fn listen(reader: &mut Reader<'_>, mut section: Section<'_>, listen: &mut Listen, around: &Surroundings<'_>) {
    let span = section.span.clone();
    section.take(reader, "address", &mut listen.address);
    section.take(reader, "allow_remote", &mut listen.allow_remote);
    let token_key = section.key("token_file");
    let mut token_file: Option<String> = None;
    section.take(reader, "token_file", &mut token_file);
    let before = reader.problems.len();
    if let Some(file) = token_file {
        let path = servers::beside(reader, around, &file);
        let text = servers::read_secret(reader, span.clone(), &token_key, &path);
        listen.token = text.as_deref().and_then(Token::new);
        if text.is_some() && listen.token.is_none() {
            let message =
                format!("`{token_key}`: {}: holds no token that a header can carry", path.display());
            reader.problem(span.clone(), message);
        }
    }
    let is_outside = listen.address.is_some_and(|it| !it.is_loopback());
    let has_both = listen.allow_remote && listen.token.is_some();
    if let (true, false, Some(address)) = (is_outside, has_both, listen.address)
        && reader.problems.len() == before
    {
        let message = format!(
            "`listen.address`: {} can be reached from other machines: that needs both `allow_remote = true` and a `token_file` in [listen]",
            address.0
        );
        let at = reader.overrides.get("listen.address").map(|it| it.name.clone());
        let at = at.unwrap_or_else(|| reader.at(span.clone()));
        reader.problems.push(Problem { at, message });
    }
    section.take(reader, "hosts", &mut listen.hosts);
    section.take(reader, "origins", &mut listen.origins);
    section.take(reader, "control", &mut listen.control);
    section.done(reader);
    for host in &mut listen.hosts {
        *host = host.trim().to_ascii_lowercase();
        if host.contains(['/', '*', '@', ' ']) {
            let message = format!(
                "`listen.hosts` has `{host}`: name a host such as \"box.local\", with or without port"
            );
            reader.problem(span.clone(), message);
        }
    }
    for origin in &mut listen.origins {
        *origin = origin.trim().trim_end_matches('/').to_ascii_lowercase();
        let whole = origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', '@', ' '])
        });
        if !whole {
            let message = format!(
                "`listen.origins` has `{origin}`: name an origin such as \"https://chat.example\", without path or `*`"
            );
            reader.problem(span.clone(), message);
        }
    }
}

/// The levels that `[log] level` takes; a whole filter is for the environment.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn log(reader: &mut Reader<'_>, mut section: Section<'_>, log: &mut Log) {
    let span = section.span.clone();
    section.take(reader, "format", &mut log.format);
    section.take(reader, "level", &mut log.level);
    section.done(reader);
    let is_filter = reader.overrides.contains_key("log.level");
    if !is_filter && !LEVELS.contains(&log.level.as_str()) {
        reader.problem(span, format!("`log.level` must be one of {}", LEVELS.join(", ")));
    }
}

#[cfg(test)]
mod tests;
