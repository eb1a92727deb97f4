//! The fleets that are looked up in DNS.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value as Json, json};

use super::{Reader, reader::Section, values::Value};
use crate::{kind, registry::Lookup, scan::Fleet};

/// The longest name in DNS, and the longest of its parts.
const LONGEST: (usize, usize) = (253, 63);

/// Where DNS is asked.
const DNS_PORT: u16 = 53;

/// A name as DNS has it, in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DnsName(String);

impl Value for DnsName {
    const EXPECTED: &'static str =
        "a name in DNS such as \"_vllm._tcp.lab.example\", with two parts at least";
    fn from_text(text: &str) -> Result<Self, String> {
        let name = text.trim().trim_end_matches('.').to_ascii_lowercase();
        let is_part = |it: &str| {
            !it.is_empty()
                && it.len() <= LONGEST.1
                && it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
        };
        let is_address = name.parse::<IpAddr>().is_ok();
        let is_name = name.len() <= LONGEST.0 && name.contains('.') && name.split('.').all(is_part);
        if is_name && !is_address { Ok(Self(name)) } else { Err(format!("must be {}", Self::EXPECTED)) }
    }
    fn show(&self) -> Json {
        json!(self.0)
    }
}

/// A resolver, on the usual port or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ResolverAddress(SocketAddr);

impl Value for ResolverAddress {
    const EXPECTED: &'static str = "the address of a resolver such as \"10.0.0.53\" or \"127.0.0.1:8600\"";
    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let plain = text.parse::<IpAddr>().map(|it| SocketAddr::from((it, DNS_PORT)));
        let address = plain.or_else(|_| text.parse());
        address.map(Self).map_err(|_| format!("must be {}", Self::EXPECTED))
    }
    fn show(&self) -> Json {
        json!(if self.0.port() == DNS_PORT { self.0.ip().to_string() } else { self.0.to_string() })
    }
}

pub(super) fn from_file(reader: &mut Reader<'_>, sections: Vec<Section<'_>>) -> Vec<Fleet> {
    let mut fleets: Vec<Fleet> = Vec::new();
    for section in sections {
        let span = section.span.clone();
        let label = section.key("name");
        let Some(fleet) = entry(reader, section) else { continue };
        if fleets.iter().any(|it| it.lookup == fleet.lookup) {
            reader.problem(span, format!("`{label}` is there twice: {}", fleet.lookup));
            continue;
        }
        fleets.push(fleet);
    }
    fleets
}

fn entry(reader: &mut Reader<'_>, mut section: Section<'_>) -> Option<Fleet> {
    let span = section.span.clone();
    let (label, of_kind) = (section.key("name"), section.key("kind"));
    let (least, keep) = (section.key("ttl_min"), section.key("keep"));
    let before = reader.problems.len();
    let mut name: Option<DnsName> = None;
    section.take(reader, "name", &mut name);
    if name.is_none() && reader.problems.len() == before {
        reader.problem(span.clone(), format!("`{label}` is missing: a lookup needs a name"));
    }
    let mut fleet = Fleet::named(Lookup { name: name.clone().unwrap_or_default().0, port: None });
    section.take(reader, "port", &mut fleet.lookup.port);
    section.take(reader, "kind", &mut fleet.kind);
    let mut resolver: Option<ResolverAddress> = None;
    section.take(reader, "resolver", &mut resolver);
    fleet.resolver = resolver.map(|it| it.0);
    section.take(reader, "ttl_min", &mut fleet.ttl_min);
    section.take(reader, "ttl_max", &mut fleet.ttl_max);
    section.take(reader, "keep", &mut fleet.keep);
    section.done(reader);
    if fleet.kind.as_ref().is_some_and(|it| kind::provider(it.as_str()).is_some()) {
        let message = format!("`{of_kind}` cannot be one that sells answers: those are named in [[servers]]");
        reader.problem(span.clone(), message);
    }
    if fleet.ttl_min.as_secs() < 1 {
        reader.problem(span.clone(), format!("`{least}` must be at least a second"));
    }
    if fleet.ttl_max < fleet.ttl_min {
        reader.problem(span.clone(), format!("`{least}` must not be longer than `ttl_max`"));
    }
    if fleet.keep < fleet.ttl_max {
        reader.problem(span, format!("`{keep}` must not be shorter than `ttl_max`"));
    }
    name.is_some().then_some(fleet)
}
