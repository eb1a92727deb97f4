//! What a new server is called, and in which zone it is.

use std::net::IpAddr;

use crate::{
    kind,
    server::{Address, Endpoint, ServerId, Zone},
};

/// Longest id made of a name that a person gave; ids stand in tables.
const LONGEST: usize = 40;

/// Makes an id: the slug of the person's name; the bare kind on its usual port
/// (`ollama`); else kind and port (`vllm-8001`) or socket name; then numbered.
pub(super) fn make(
    kind: &str,
    endpoint: &Endpoint,
    name: Option<&str>,
    taken: impl Fn(&str) -> bool,
) -> ServerId {
    let usual = kind::by_id(kind).and_then(|it| it.usual_ports().first().copied());
    let place = match endpoint.address() {
        Address::Tcp { port, .. } => format!("{kind}-{port}"),
        Address::Unix(path) => {
            let stem = path.file_stem().map(|it| slug(&it.to_string_lossy())).unwrap_or_default();
            if stem.is_empty() { format!("{kind}-socket") } else { format!("{kind}-{stem}") }
        }
    };
    let is_usual = endpoint.port().is_some() && endpoint.port() == usual;
    let bare = (is_usual || kind::provider(kind).is_some()).then(|| kind.to_owned());
    let named = name.map(slug).filter(|it| !it.is_empty());
    let base = named.clone().unwrap_or_else(|| place.clone());
    let numbered = (2u64..).map(|number| format!("{base}-{number}"));
    let wishes = match named {
        Some(named) => vec![named],
        None => bare.into_iter().chain([place]).collect(),
    };
    wishes
        .into_iter()
        .chain(numbered)
        .find(|it| !taken(it))
        .map(ServerId::from)
        .unwrap_or_else(|| kind.into())
}

/// The id of a kind at an address of the network, which is nobody else's: `vllm-10-0-0-7`, with
/// its port where that is not the usual one.
pub(super) fn of_address(kind: &str, endpoint: &Endpoint) -> Option<String> {
    let Address::Tcp { port, tls: false, .. } = endpoint.address() else { return None };
    let ip = endpoint.ip().filter(|it| !it.is_loopback() && endpoint.has_no_path())?;
    let groups: Vec<String> = match ip {
        IpAddr::V4(ip) => ip.octets().iter().map(ToString::to_string).collect(),
        IpAddr::V6(ip) => ip.segments().iter().map(|it| format!("{it:x}")).collect(),
    };
    let usual = kind::by_id(kind).and_then(|it| it.usual_ports().first().copied());
    let port = (Some(*port) != usual).then(|| port.to_string());
    Some([vec![kind.to_owned()], groups, port.into_iter().collect()].concat().join("-"))
}

/// Small letters, digits and single hyphens.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == LONGEST {
            break;
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// Where requests to this address end up, as far as it tells by itself: for a name that is a
/// guess, until it is known where it leads.
pub(super) fn zone(endpoint: &Endpoint) -> Zone {
    if endpoint.is_local() {
        return Zone::Machine;
    }
    let Address::Tcp { host, .. } = endpoint.address() else { return Zone::Machine };
    match host.parse::<IpAddr>() {
        Ok(ip) => Zone::of(ip),
        Err(_) => {
            let near_names = [".local", ".lan", ".home.arpa", ".internal"];
            let near = !host.contains('.') || near_names.iter().any(|it| host.ends_with(it));
            if near { Zone::Lan } else { Zone::Cloud }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, endpoint: &str, name: Option<&str>, taken: &[&str], expected: &str) {
        let endpoint = Endpoint::parse(endpoint).unwrap();
        assert_eq!(make(kind, &endpoint, name, |it| taken.contains(&it)), expected, "{kind} at {endpoint}");
    }

    #[test]
    fn ids_are_readable() {
        check("ollama", "127.0.0.1:11434", None, &[], "ollama");
        check("ollama", "127.0.0.1:11435", None, &[], "ollama-11435");
        check("vllm", "127.0.0.1:8001", None, &[], "vllm-8001");
        check("vllm", "unix:/run/Big Model.sock", None, &[], "vllm-big-model");
        check("vllm", "unix:/run/.sock", None, &[], "vllm-sock");
        check("vllm", "127.0.0.1:8001", Some("My Box!"), &[], "my-box");
        check("vllm", "127.0.0.1:8001", Some("???"), &[], "vllm-8001");
        check("groq", "https://api.groq.com/openai", None, &[], "groq");
        check("groq", "https://api.groq.com/openai", None, &["groq"], "groq-443");
        check("openai-compatible", "https://box/llm", None, &[], "openai-compatible-443");
    }

    #[test]
    fn taken_ids_are_numbered() {
        check("ollama", "[::1]:11434", None, &["ollama"], "ollama-11434");
        check("ollama", "[::1]:11434", None, &["ollama", "ollama-11434"], "ollama-11434-2");
        check("vllm", "127.0.0.1:8001", None, &["vllm-8001", "vllm-8001-2"], "vllm-8001-3");
        check("vllm", "127.0.0.1:8001", Some("box"), &["box"], "box-2");
    }

    #[test]
    fn slugs_are_short_and_tame() {
        assert_eq!(slug("--A  b/C@d--"), "a-b-c-d");
        assert_eq!(slug(&"x".repeat(100)).len(), LONGEST);
        assert_eq!(slug("日本"), "");
    }

    #[test]
    fn zones_follow_the_address() {
        for (text, expected) in [
            ("localhost:1", Zone::Machine),
            ("[::1]:1", Zone::Machine),
            ("unix:/a", Zone::Machine),
            ("192.168.1.2:1", Zone::Lan),
            ("169.254.1.2:1", Zone::Lan),
            ("100.100.1.2:1", Zone::Lan),
            ("[fd00::7]:1", Zone::Lan),
            ("[fe80::7]:1", Zone::Lan),
            ("box:1", Zone::Lan),
            ("box.local:1", Zone::Lan),
            ("100.200.1.2:1", Zone::Cloud),
            ("8.8.8.8:1", Zone::Cloud),
            ("[2001:db8::1]:1", Zone::Cloud),
            ("https://api.example.com", Zone::Cloud),
        ] {
            assert_eq!(zone(&Endpoint::parse(text).unwrap()), expected, "{text}");
        }
    }
}
