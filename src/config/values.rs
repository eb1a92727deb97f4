//! How single values are written: durations, sizes, addresses, networks.
//!
//! A `Value` can come from the file or, as text, from a flag or the environment;
//! it can be shown again in the way that it is written. Error texts say what was
//! expected and complete the sentence "`patience.gap` …".

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::{
    generate::Usd,
    kind,
    otlp::Collector,
    registry::Trust,
    server::{Address, Endpoint, KindId, Pin, Zone},
    spending::Price,
};

/// Something that a setting can be.
pub(super) trait Value: Sized {
    /// What is expected, after "must be".
    const EXPECTED: &'static str;
    /// Reads the text of a flag, a variable, or a string of the file.
    fn from_text(text: &str) -> Result<Self, String>;
    /// Reads a value of the file.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some(text) => Self::from_text(text),
            None => Err(expected::<Self>()),
        }
    }
    /// Shows it as `config show` does.
    fn show(&self) -> Json;
}

fn expected<T: Value>() -> String {
    format!("must be {}", T::EXPECTED)
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(expected::<Self>()),
        }
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(expected::<Self>)
    }
    fn show(&self) -> Json {
        json!(self)
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text that is not empty";
    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err(expected::<Self>()) } else { Ok(text.to_owned()) }
    }
    fn show(&self) -> Json {
        json!(self)
    }
}

macro_rules! number {
    ($number:ty, $expected:literal, $from:expr) => {
        impl Value for $number {
            const EXPECTED: &'static str = $expected;
            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().ok().filter(|it| ($from..).contains(it)).ok_or_else(expected::<Self>)
            }
            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let number = value.as_integer().ok_or_else(expected::<Self>)?;
                Self::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .filter(|it| ($from..).contains(it))
                    .ok_or_else(expected::<Self>)
            }
            fn show(&self) -> Json {
                json!(self)
            }
        }
    };
}
number!(u16, "a port from 1 to 65535", 1);
number!(u32, "a whole number from 1", 1);
number!(usize, "a whole number", 0);
number!(i32, "a whole number", i32::MIN);

impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = "a list";
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(T::from_text).collect()
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| format!("must be a list; each entry {}", T::EXPECTED))?;
        list.iter()
            .enumerate()
            .map(|(at, it)| T::from_toml(it.get_ref()).map_err(|why| format!("entry {}: {why}", at + 1)))
            .collect()
    }
    fn show(&self) -> Json {
        self.iter().map(Value::show).collect()
    }
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }
    fn show(&self) -> Json {
        self.as_ref().map_or(Json::Null, Value::show)
    }
}

/// A day: nobody waits longer for a model, and sums of durations cannot overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"5s\" or \"2m\", at most a day";
    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text).filter(|it| *it <= LONGEST).ok_or_else(expected::<Self>)
    }
    fn show(&self) -> Json {
        json!(show_duration(*self))
    }
}

/// Reads `500ms`, `5s`, `2m`, `1.5h`, `24h`, `7d`; `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    // Whole microseconds, so that `0.1s` is what it says.
    let rounded = (seconds * 1e6).round() / 1e6;
    Duration::try_from_secs_f64(rounded).ok()
}

/// Writes a duration in the largest unit that keeps it whole.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        "0s".to_owned()
    } else if ms.is_multiple_of(60_000) {
        format!("{}m", ms / 60_000)
    } else if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

/// A number of bytes, written `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many MiB.
    pub const fn mib(number: u64) -> Self {
        Self(number << 20)
    }

    /// As a length in memory; on a small machine no more than it can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 30 && bytes % (1 << 30) == 0 => write!(f, "{}GiB", bytes >> 30),
            bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

impl Value for Size {
    const EXPECTED: &'static str = "a size such as \"512KiB\", \"64MiB\" or \"1GiB\"";
    fn from_text(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, unit) = number_and_unit(text)?;
            let unit: u64 = match unit {
                "B" => 1,
                "kB" | "KB" => 1000,
                "MB" => 1_000_000,
                "GB" => 1_000_000_000,
                "KiB" | "K" => 1 << 10,
                "MiB" | "M" => 1 << 20,
                "GiB" | "G" => 1 << 30,
                _ => return None,
            };
            let bytes = number * unit as f64;
            // Above 2^53 a float skips numbers; no limit needs that much.
            (1.0..=9e15).contains(&bytes).then_some(Self(bytes as u64))
        };
        read().ok_or_else(expected::<Self>)
    }
    fn show(&self) -> Json {
        json!(self.to_string())
    }
}

impl Value for Usd {
    const EXPECTED: &'static str = "an amount of US dollars, such as 5 or 0.50";
    fn from_text(text: &str) -> Result<Self, String> {
        let dollars = text.trim().parse().ok().and_then(Self::from_dollars);
        dollars.ok_or_else(expected::<Self>)
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        usd(value).ok_or_else(expected::<Self>)
    }
    fn show(&self) -> Json {
        json!(self.dollars())
    }
}

fn usd(value: &DeValue<'_>) -> Option<Usd> {
    let text = match value {
        DeValue::Integer(it) => it.as_str(),
        DeValue::Float(it) => it.as_str(),
        _ => return None,
    };
    // TOML lets people group digits.
    Usd::from_dollars(text.replace('_', "").parse().ok()?)
}

/// Reads `{ input = 1.25, output = 10.0, cached = 0.125 }`.
pub(super) fn price(value: &DeValue<'_>) -> Option<Price> {
    let table = value.as_table()?;
    let known = |it: &str| matches!(it, "input" | "output" | "cached");
    if !table.keys().all(|it| known(it.get_ref())) {
        return None;
    }
    let field = |name: &str| table.get(name).map(|it| usd(it.get_ref()));
    let cached = match field("cached") {
        None => None,
        Some(cached) => Some(cached?),
    };
    // Vectors have no answer that would cost anything.
    let output = field("output").unwrap_or(Some(Usd::ZERO))?;
    Some(Price { input: field("input")??, output, cached })
}

/// Shows a price as it is written.
pub(super) fn show_price(price: &Price) -> Json {
    let mut shown = json!({"input": price.input.dollars(), "output": price.output.dollars()});
    if let Some(cached) = price.cached {
        shown["cached"] = json!(cached.dollars());
    }
    shown
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl Value for Endpoint {
    const EXPECTED: &'static str = "an address such as \"http://127.0.0.1:8000\" or \"unix:/run/vllm.sock\"";
    fn from_text(text: &str) -> Result<Self, String> {
        // The text itself is not repeated: it may hold a password.
        Self::parse(text).map_err(|why| format!("{}: {why}", expected::<Self>()))
    }
    fn show(&self) -> Json {
        json!(self.to_string())
    }
}

impl Value for Collector {
    const EXPECTED: &'static str = "the URL of a collector such as \"http://127.0.0.1:4318\"";
    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|why| format!("{}: {why}", expected::<Self>()))
    }
    fn show(&self) -> Json {
        json!(self.to_string())
    }
}

impl Value for KindId {
    const EXPECTED: &'static str = "the id of a kind of server";
    fn from_text(text: &str) -> Result<Self, String> {
        match kind::by_id(text) {
            Some(kind) => Ok(kind.id().into()),
            None => {
                let known: Vec<_> = kind::KINDS.iter().map(|it| it.id()).collect();
                Err(format!("must be one of {}", known.join(", ")))
            }
        }
    }
    fn show(&self) -> Json {
        json!(self)
    }
}

impl Value for Zone {
    const EXPECTED: &'static str = "\"machine\", \"lan\" or \"cloud\"";
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "machine" => Ok(Self::Machine),
            "lan" => Ok(Self::Lan),
            "cloud" => Ok(Self::Cloud),
            _ => Err(expected::<Self>()),
        }
    }
    fn show(&self) -> Json {
        json!(self)
    }
}

/// Where TCP is listened on. Whether others may come from outside is said elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    /// Whether nobody from outside can come there.
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl Value for ListenAddress {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:8080\"";
    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        address.map(Self).ok_or_else(expected::<Self>)
    }
    fn show(&self) -> Json {
        json!(self.0.to_string())
    }
}

impl Value for Pin {
    const EXPECTED: &'static str = "\"sha256/\" and the SHA-256 of the server's public key in base64";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| expected::<Self>())
    }
    fn show(&self) -> Json {
        json!(self.to_string())
    }
}

impl Value for Trust {
    const EXPECTED: &'static str =
        "an address, a name or a network, such as \"192.168.1.7\", \"box.local:8000\" or \"10.0.0.0/8\"";
    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some((ip, bits)) = text.split_once('/')
            && let (Ok(ip), Ok(bits)) = (ip.parse::<IpAddr>(), bits.parse::<u8>())
        {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            return if bits <= most {
                Ok(Self::Network { ip, bits })
            } else {
                Err(format!("a network of this sort has at most {most} bits"))
            };
        }
        // A scheme makes `http://box` port 80; without one, any port is meant.
        let with_scheme = text.contains("://");
        let endpoint = match Endpoint::parse_with_port(text, Some(1)) {
            Ok(endpoint) if !text.contains('/') || with_scheme => endpoint,
            _ => return Err(expected::<Self>()),
        };
        let Address::Tcp { host, port, .. } = endpoint.address() else {
            return Err(expected::<Self>());
        };
        // The same text with another default tells whether it named a port.
        let named =
            with_scheme || Endpoint::parse_with_port(text, Some(2)).is_ok_and(|it| it.port() == Some(*port));
        let port = named.then_some(*port);
        // `*.lab.example`; a star alone would be everybody.
        let end = host.strip_prefix('*').filter(|it| it.starts_with('.') && it.len() > 1);
        let name = end.unwrap_or(host);
        if name.contains(|it: char| it.is_whitespace() || it == '*') {
            return Err(expected::<Self>());
        }
        Ok(match end {
            Some(end) => Self::Names { end: end.to_owned(), port },
            None => Self::Host { host: host.clone(), port },
        })
    }
    fn show(&self) -> Json {
        match self {
            Self::Network { ip, bits } => json!(format!("{ip}/{bits}")),
            Self::Names { end, port: None } => json!(format!("*{end}")),
            Self::Names { end, port: Some(port) } => json!(format!("*{end}:{port}")),
            Self::Host { host, port: None } => json!(host),
            Self::Host { host, port: Some(port) } if host.contains(':') => json!(format!("[{host}]:{port}")),
            Self::Host { host, port: Some(port) } => json!(format!("{host}:{port}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Value>(text: &str, expected: &str) {
        let shown = match T::from_text(text) {
            Ok(value) => value.show().to_string().trim_matches('"').to_owned(),
            Err(why) => format!("error: {why}"),
        };
        assert!(shown.starts_with(expected), "{text:?} gave {shown:?}, not {expected:?}");
    }

    #[test]
    fn durations_as_people_write_them() {
        for (text, expected) in [
            ("500ms", "500ms"),
            ("5s", "5s"),
            ("2m", "2m"),
            ("1.5h", "90m"),
            ("1d", "1440m"),
            ("0.1s", "100ms"),
            ("0s", "0s"),
            (" 5 s ", "5s"),
            ("5", "error: must be a duration"),
            ("s", "error: must be a duration"),
            ("-5s", "error: must be a duration"),
            ("5 seconds", "error: must be a duration"),
            ("1e9s", "error: must be a duration"),
            ("25h", "error: must be a duration"),
            ("99999999999999999999h", "error: must be a duration"),
            ("1.2.3s", "error: must be a duration"),
        ] {
            check::<Duration>(text, expected);
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, expected) in [
            ("64MiB", "64MiB"),
            ("1024KiB", "1MiB"),
            ("1GiB", "1GiB"),
            ("1MB", "1000000B"),
            ("1.5MiB", "1536KiB"),
            ("64M", "64MiB"),
            ("10B", "10B"),
            ("64", "error: must be a size"),
            ("0B", "error: must be a size"),
            ("-1MiB", "error: must be a size"),
            ("99999999999GiB", "error: must be a size"),
        ] {
            check::<Size>(text, expected);
        }
    }

    #[test]
    fn only_loopback_is_listened_on() {
        check::<ListenAddress>("127.0.0.1:8080", "127.0.0.1:8080");
        check::<ListenAddress>("localhost:8080", "127.0.0.1:8080");
        check::<ListenAddress>("[::1]:8080", "[::1]:8080");
        check::<ListenAddress>("0.0.0.0:8080", "0.0.0.0:8080");
        check::<ListenAddress>("192.168.1.1:80", "192.168.1.1:80");
        check::<ListenAddress>("8080", "error: must be an address and port");
        check::<ListenAddress>("", "error: must be an address and port");
    }

    fn covers(trust: &str, url: &str) -> bool {
        Trust::from_text(trust).unwrap().covers(&Endpoint::parse(url).unwrap())
    }

    #[test]
    fn trust_covers_what_it_names_and_nothing_else() {
        assert!(covers("10.0.0.0/8", "http://10.200.3.4:8000"));
        assert!(!covers("10.0.0.0/8", "http://11.0.0.1:8000"));
        assert!(covers("0.0.0.0/0", "http://11.0.0.1:8000"));
        assert!(!covers("0.0.0.0/0", "http://[fd00::1]:8000"));
        assert!(covers("fd00::/8", "http://[fd00::7]:8000"));
        assert!(covers("192.168.1.7/32", "http://192.168.1.7:8000"));
        assert!(!covers("192.168.1.7/32", "http://192.168.1.8:8000"));
        assert!(covers("192.168.1.7", "http://192.168.1.7:8000"));
        assert!(covers("Box.local", "http://box.local:8000"));
        assert!(covers("box.local:8000", "http://box.local:8000"));
        assert!(!covers("box.local:8001", "http://box.local:8000"));
        assert!(!covers("box.local", "http://evilbox.local:8000"));
        assert!(covers("*.lab.example", "http://gpu.lab.example:8000"));
        assert!(covers("*.Lab.example:8000", "http://a.b.lab.example:8000"));
        assert!(!covers("*.lab.example:8000", "http://gpu.lab.example:8001"));
        assert!(!covers("*.lab.example", "http://lab.example:8000"));
        assert!(!covers("*.lab.example", "http://evillab.example:8000"));
        assert!(!covers("*.lab.example", "http://lab.example.evil:8000"));
        assert!(covers("*.local", "http://box.local:8000"));
        assert!(!covers("*.1", "http://10.0.0.1:8000"));
        assert!(covers("[fd00::7]:8000", "http://[fd00::7]:8000"));
        assert!(covers("localhost", "http://127.0.0.1:8000"));
        assert!(!covers("10.0.0.0/8", "unix:/a.sock"));
    }

    #[test]
    fn trust_that_makes_no_sense_is_refused() {
        for text in ["", "10.0.0.0/33", "*", "*.", "a.*.b", "*box", "*.*.b", "a b", "10.0.0.0/8/9", "unix:/a"]
        {
            assert!(Trust::from_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_is_not_repeated() {
        let why = Endpoint::from_text("http://me:hunter2@box:99999").unwrap_err();
        assert!(!why.contains("hunter2"), "{why}");
    }
}
