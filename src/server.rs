//! The words for servers: what one is called, where it is, and what it has.
//!
//! Nothing here knows how a server was found, what kind it is beyond that
//! kind's name, or whether it is well. `Endpoint::parse` is the one place where
//! an address becomes something that can be connected to.

mod pin;
mod zone;

use std::{
    borrow::Borrow,
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use self::{
    pin::{Pin, PinError},
    zone::{Bounds, Check, Zone},
};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    };
}

name! {
    /// A server's own readable name, stable over restarts and never used again
    /// for another server: `ollama`, `vllm-8001`.
    ServerId
}
name! {
    /// The name of a kind of server: `ollama`, `vllm`, `openai-compatible`.
    KindId
}
name! {
    /// A model's name as its server gives it: `qwen3:8b`, `openai/gpt-oss-20b`.
    ModelName
}

/// How we came to know of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It is one of the ports that some kind uses by default.
    Port,
    /// The table of listening sockets has it.
    SocketTable,
    /// It is announced in the network, by multicast DNS.
    Mdns,
    /// A lookup in ordinary DNS lists it.
    Dns,
    /// `[[servers]]` in the configuration names it.
    Config,
    /// An environment variable names it.
    Environment,
    /// A person added it over the control API.
    Added,
}

/// What a model can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Answer a conversation.
    Chat,
    /// Continue a text.
    Complete,
    /// Fill in the middle of a text.
    Fim,
    /// Turn text into vectors.
    Embed,
    /// Call tools.
    Tools,
    /// Look at images.
    Vision,
    /// Think before it answers.
    Thinking,
}

/// A model as one server offers it. What the server did not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The name to ask for.
    pub name: ModelName,
    /// Other names that this server takes for it.
    #[serde(default)]
    pub aliases: Vec<ModelName>,
    /// Architecture or family: `qwen3`.
    pub family: Option<String>,
    /// Parameter count as people write it: `8.2B`.
    pub parameters: Option<String>,
    /// Quantisation as the server names it: `Q4_K_M`.
    pub quantization: Option<String>,
    /// The longest context that the model was made for, in tokens.
    pub context_length: Option<u64>,
    /// The context that it was loaded with, in tokens; requests must fit this one.
    pub loaded_context_length: Option<u64>,
    /// What it can do, as far as the server tells; empty when it does not.
    #[serde(default)]
    pub capabilities: BTreeSet<Capability>,
    /// Whether it is in memory now; `None` where the kind does not tell.
    pub loaded: Option<bool>,
    /// Size of its file, in bytes.
    pub size_bytes: Option<u64>,
    /// Memory that it takes now, in bytes.
    pub memory_bytes: Option<u64>,
    /// When the server will unload it, RFC 3339.
    pub expires: Option<String>,
    /// Where a request for it ends up, if that is farther than its server: set to `Cloud` where
    /// the server only forwards to somebody else's computer.
    pub zone: Option<Zone>,
    /// The daemons that a request for it passes after its server, by their instance ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
}

impl Model {
    /// A model of which only the name is known.
    pub fn named(name: impl Into<ModelName>) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            family: None,
            parameters: None,
            quantization: None,
            context_length: None,
            loaded_context_length: None,
            capabilities: BTreeSet::new(),
            loaded: None,
            size_bytes: None,
            memory_bytes: None,
            expires: None,
            zone: None,
            via: Vec::new(),
        }
    }

    /// Whether the server itself takes `asked` for this model.
    pub fn answers_to(&self, asked: &str) -> bool {
        self.name == asked || self.aliases.iter().any(|alias| *alias == asked)
    }
}

/// Why a server that is well cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It wants a key that we do not have, or refuses the one we have.
    NeedsKey,
    /// It is loading its model.
    Loading,
    /// It refuses the host name that we call it by.
    WrongHost,
    /// It answers, but its engine is dead or it reports itself unhealthy.
    Unhealthy,
    /// It was trusted as another kind of server.
    ChangedKind,
    /// It was trusted with another TLS key.
    ChangedKey,
    /// It was trusted as another user's.
    ChangedOwner,
}

impl Problem {
    /// Whether it is one of trust: a person has to look who is there.
    pub fn is_change(self) -> bool {
        matches!(self, Self::ChangedKind | Self::ChangedKey | Self::ChangedOwner)
    }
}

/// What a server is doing while it says nothing, as far as it lets itself be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    /// It loads the model.
    Loading,
    /// What it was asked waits there for its turn.
    Queued,
    /// It works: most often it reads the prompt.
    Working,
    /// It is there, and does not say what it does.
    Unknown,
    /// It is there and works on nothing: what it was asked has got lost.
    Idle,
    /// It says that it can work no more.
    Dead,
    /// It is not there, or answers nothing.
    Gone,
}

/// Proof that a server of some kind is at some endpoint, with what it offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// What sort of server it is.
    pub kind: KindId,
    /// Its version as it says it.
    pub version: Option<String>,
    /// Its models, in the order of their names.
    pub models: Vec<Model>,
    /// Why it cannot serve, if so.
    pub problem: Option<Problem>,
    /// How many requests it works on at once, where it says so.
    pub slots: Option<u32>,
    /// The instance id of a lovable; `None` for every other kind.
    pub instance: Option<String>,
    /// Whether it says of itself that it is simulated.
    pub simulated: bool,
    /// Loopback ports of engines that it runs for itself.
    #[serde(default)]
    pub engine_ports: Vec<u16>,
    /// The file that this engine runs, where that shows whose engine it is
    /// (a blob of an Ollama store).
    pub engine_of: Option<String>,
    /// Whether it passes requests on to who knows whom.
    #[serde(default)]
    pub forwards: bool,
    /// The address that was really connected to; of several, the farthest.
    #[serde(default)]
    pub at: Option<IpAddr>,
}

impl Sighting {
    /// A sighting that says no more than the kind.
    pub fn of(kind: impl Into<KindId>) -> Self {
        Self {
            kind: kind.into(),
            version: None,
            models: Vec::new(),
            problem: None,
            slots: None,
            instance: None,
            simulated: false,
            engine_ports: Vec::new(),
            engine_of: None,
            forwards: false,
            at: None,
        }
    }
}

/// The part of an endpoint that is connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A host and port, with or without TLS.
    Tcp {
        /// Name or literal, IPv6 without brackets, in small letters.
        host: String,
        /// Port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// An address that requests can be sent to: `http://127.0.0.1:11434`,
/// `https://box/ollama`, `unix:/run/vllm.sock`.
///
/// A trailing `/v1` is dropped when parsed, since every base URL that people
/// paste has it or not; user and password are dropped as well.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: Address,
    prefix: String,
}

/// Why a text is not an endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing there.
    #[error("the address is empty")]
    Empty,
    /// Neither http, https nor unix.
    #[error("unknown scheme `{0}`; use http, https or unix:/path")]
    Scheme(String),
    /// No host between the slashes.
    #[error("the address has no host")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("`{0}` is not a port")]
    Port(String),
    /// A Unix socket must be named by its full path.
    #[error("a unix address needs an absolute path: unix:/path/to.sock")]
    UnixPath,
    /// A query or fragment has no place in a base URL.
    #[error("an address has no `?` or `#`")]
    Query,
}

impl Endpoint {
    /// An HTTP endpoint on an IP address.
    pub fn tcp(ip: IpAddr, port: u16) -> Self {
        let host = canonical_ip(ip).to_string();
        Self { address: Address::Tcp { host, port, tls: false }, prefix: String::new() }
    }

    /// Reads a base URL, with or without scheme, `/v1` or trailing slash.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::parse_with_port(text, None)
    }

    /// Like `parse`; an address with neither scheme nor port gets `default_port`.
    pub fn parse_with_port(text: &str, default_port: Option<u16>) -> Result<Self, EndpointError> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(EndpointError::UnixPath);
            }
            return Ok(Self { address: Address::Unix(path.into()), prefix: String::new() });
        }
        if text.contains(['?', '#']) {
            return Err(EndpointError::Query);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let tls = match scheme.as_deref() {
            None | Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(EndpointError::Scheme(other.to_owned())),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(EndpointError::Host);
        }
        let port = match (port, &scheme) {
            (Some(port), _) => port,
            (None, None) if default_port.is_some() => default_port.unwrap_or_default(),
            (None, _) => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => canonical_ip(ip).to_string(),
            Err(_) => host.trim_end_matches('.').to_ascii_lowercase(),
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix("v1").map_or(path, |head| {
            if head.is_empty() || head.ends_with('/') { head.trim_end_matches('/') } else { path }
        });
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { address: Address::Tcp { host, port, tls }, prefix })
    }

    /// Whether it is the same place as this address.
    pub fn is_at(&self, url: &str) -> bool {
        Self::parse(url).is_ok_and(|it| it.address == self.address)
    }

    /// Whether it is a root.
    pub fn has_no_path(&self) -> bool {
        self.prefix.is_empty()
    }

    /// The same address below the path of another.
    #[must_use]
    pub fn with_path_of(self, other: &Self) -> Self {
        Self { prefix: other.prefix.clone(), ..self }
    }

    /// What is connected to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The port, unless this is a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.address {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        }
    }

    /// The IP address, where the host is one or is `localhost`.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.address {
            Address::Tcp { host, .. } if host == "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            Address::Tcp { host, .. } => host.parse().ok(),
            Address::Unix(_) => None,
        }
    }

    /// Whether everything sent there stays on this machine by the address alone.
    pub fn is_local(&self) -> bool {
        match &self.address {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host == "localhost"
                    || host.ends_with(".localhost")
                    || self.ip().is_some_and(|ip| ip.is_loopback())
            }
        }
    }

    /// The full URL of `path`, which starts with a slash. For a Unix socket the
    /// host is `localhost`; the client knows the socket.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}{path}", self.origin(), self.prefix)
    }

    fn origin(&self) -> String {
        match &self.address {
            Address::Unix(_) => "http://localhost".to_owned(),
            Address::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                if host.contains(':') {
                    format!("{scheme}://[{host}]:{port}")
                } else {
                    format!("{scheme}://{host}:{port}")
                }
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp { .. } => write!(f, "{}{}", self.origin(), self.prefix),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Unspecified addresses mean "every interface" to a server and this machine to
/// us; an IPv4 address in IPv6 clothes is the IPv4 address.
fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), EndpointError> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(EndpointError::Port(text.to_owned())),
    };
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(EndpointError::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, number(port)?)),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(EndpointError::Host),
        };
    }
    match authority.split_once(':') {
        // A bare IPv6 address.
        Some((_, rest)) if rest.contains(':') => Ok((authority, None)),
        Some(("", port)) => Ok(("127.0.0.1", number(port)?)),
        Some((host, port)) => Ok((host, number(port)?)),
        None => Ok((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match Endpoint::parse_with_port(text, Some(11434)) {
            Ok(endpoint) => endpoint.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(shown, expected, "for {text:?}");
    }

    #[test]
    fn addresses_as_people_write_them() {
        check("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000");
        check("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000");
        check("http://127.0.0.1:8000/myv1", "http://127.0.0.1:8000/myv1");
        check("https://box:8443/ollama/v1", "https://box:8443/ollama");
        check("box", "http://box:11434");
        check("BOX.local.", "http://box.local:11434");
        check("http://box", "http://box:80");
        check("https://box", "https://box:443");
        check(":8000", "http://127.0.0.1:8000");
        check("0.0.0.0", "http://127.0.0.1:11434");
        check("[::]:11434", "http://[::1]:11434");
        check("fd00::7", "http://[fd00::7]:11434");
        check("::ffff:127.0.0.1", "http://127.0.0.1:11434");
        check("'http://me:secret@box:1/x'", "http://box:1/x");
        check("unix:/run/vllm.sock", "unix:/run/vllm.sock");
        check("unix:///run/vllm.sock", "unix:/run/vllm.sock");
    }

    #[test]
    fn addresses_that_are_none_say_why() {
        check("", "error: the address is empty");
        check("ftp://box", "error: unknown scheme `ftp`; use http, https or unix:/path");
        check("http://", "error: the address has no host");
        check("box:0", "error: `0` is not a port");
        check("box:70000", "error: `70000` is not a port");
        check("unix:run.sock", "error: a unix address needs an absolute path: unix:/path/to.sock");
        check("http://box/?a=b", "error: an address has no `?` or `#`");
    }

    #[test]
    fn a_url_keeps_the_prefix() {
        let endpoint = Endpoint::parse("https://box/ollama/v1").unwrap();
        assert_eq!(endpoint.url("/v1/models"), "https://box:443/ollama/v1/models");
        assert_eq!(Endpoint::parse("unix:/a").unwrap().url("/x"), "http://localhost/x");
    }

    #[test]
    fn local_is_what_cannot_leave() {
        for (text, local) in [
            ("localhost:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("unix:/a", true),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().is_local(), local, "{text}");
        }
    }
}
