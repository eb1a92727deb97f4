//! The support bundle: what a stranger needs to help, and nothing that is only
//! the person's own.
//!
//! It is put together from what is chosen here, not from everything less what
//! is secret. Names that may say something about a person (of the user, the
//! machine, its servers and models, of places) stand in for by numbers, the same
//! name by the same number, so that a reader can still follow. Of settings only
//! numbers and switches are told, and of texts those that nobody chose.

use std::{
    collections::BTreeMap,
    fs::{OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use serde_json::{Value, json};

use super::{Report, facts::Facts};
use crate::{
    kind::KINDS,
    wire::{ModelView, ServerView, Setting, SettingSource},
};

/// Writes it; only its owner may read it.
pub(super) fn write(path: &Path, facts: &Facts, report: &Report) -> io::Result<()> {
    let text = serde_json::to_string_pretty(&bundle(facts, report, &Names::of_process()))
        .map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // Where there was such a file, its mode was others' to say.
    file.set_permissions(Permissions::from_mode(0o600))?;
    writeln!(file, "{text}")
}

/// Names that are not the daemon's to tell.
pub(super) struct Names {
    pub(super) home: Option<String>,
    pub(super) user: Option<String>,
    pub(super) machine: Option<String>,
}

impl Names {
    fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
        Self {
            home: std::env::home_dir().map(|it| it.display().to_string()).filter(|it| it != "/"),
            user: text("USER").or_else(|| text("LOGNAME")),
            machine: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        }
    }
}

pub(super) fn bundle(facts: &Facts, report: &Report, names: &Names) -> Value {
    let system = rustix::system::uname();
    let text = |it: &std::ffi::CStr| it.to_string_lossy().into_owned();
    let mut told = json!({
        "lovablectl": facts.version,
        "system": [text(system.sysname()), text(system.release()), text(system.machine())],
        "memory_bytes": facts.memory,
        "free_bytes": facts.free,
        "multicast": format!("{:?}", facts.multicast),
        "installed": facts.installed.iter().map(|it| it.0).collect::<Vec<_>>(),
        "has_service": facts.has_service,
        "doctor": report,
        "daemon": facts.status.as_ref().map(|it| json!({
            "version": it.version, "uptime_seconds": it.uptime_seconds, "ready": it.ready,
            "health": it.health, "reasons": it.reasons, "servers": it.servers, "models": it.models,
            "requests": it.requests, "store_ok": it.store.ok, "store_bytes": it.store.bytes,
            "store_dropped": it.store.dropped, "tracking": it.tracking, "listens": it.listen.is_some(),
        })),
        "servers": facts.servers.iter().map(server).collect::<Vec<_>>(),
        "models": facts.models.iter().map(model).collect::<Vec<_>>(),
        "settings": facts.settings.iter().map(setting).collect::<BTreeMap<_, _>>(),
    });
    Veil::over(facts, names).draw(&mut told);
    told
}

fn server(it: &ServerView) -> Value {
    json!({
        "id": it.id, "kind": it.kind, "version": it.version, "url": it.url, "zone": it.zone,
        "standing": it.standing, "admission": it.admission, "problem": it.problem,
        "simulated": it.simulated, "found_by": it.found_by, "models": it.models.len(),
        "in_flight": it.in_flight, "queued": it.queued, "limit": it.limit,
        "first_token_ms": it.first_token_ms, "success_rate": it.success_rate,
        "last_fault": it.last_fault.as_ref().map(|it| (&it.stage, &it.cause, it.status)),
    })
}

fn model(it: &ModelView) -> Value {
    json!({
        "name": it.name, "family": it.family, "parameters": it.parameters,
        "quantization": it.quantization, "context_length": it.context_length,
        "loaded_context_length": it.loaded_context_length, "capabilities": it.capabilities,
        "servers": it.servers.iter().map(|it| json!({
            "id": it.id, "loaded": it.loaded, "size_bytes": it.size_bytes, "memory_bytes": it.memory_bytes,
        })).collect::<Vec<_>>(),
    })
}

/// The name of a setting, its value where that is no text of a person's, and who said it. A
/// table's own names (aliases, chains, prices) are the person's.
fn setting(it: &Setting) -> (String, Value) {
    let tables = ["aliases", "fallback.chains", "cloud.prices"];
    let table = tables.into_iter().find(|table| it.key.starts_with(table) && it.key.len() > table.len());
    let chosen = it.from != SettingSource::Default;
    let value = match &it.value {
        Value::Null | Value::Bool(_) | Value::Number(_) => it.value.clone(),
        _ if chosen || it.key.ends_with("_dir") || matches!(it.key.as_str(), "socket" | "config") => {
            json!("(set)")
        }
        value => value.clone(),
    };
    let key = table.map_or_else(|| it.key.clone(), |table| format!("{table}.(name)"));
    (key, json!({ "value": value, "from": it.from }))
}

/// What stands for what.
struct Veil(Vec<(String, String)>);

impl Veil {
    fn over(facts: &Facts, names: &Names) -> Self {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |name: &str, stands: String| {
            // Shorter ones are parts of words, and kinds are everybody's.
            if name.chars().count() >= 3 && KINDS.iter().all(|it| it.id() != name) {
                all.entry(name.to_owned()).or_insert(stands);
            }
        };
        for (at, it) in facts.models.iter().enumerate() {
            for name in std::iter::once(it.name.as_str()).chain(it.aliases.iter().map(String::as_str)) {
                put(name, format!("model-{}", at + 1));
            }
        }
        for (at, it) in facts.servers.iter().enumerate() {
            let number = at + 1;
            // The id may be made of a name that the person gave.
            if let Some(name) = &it.name {
                put(name, format!("name-{number}"));
                let id = it.id.as_str();
                if !id.starts_with(it.kind.as_str()) {
                    put(id, format!("server-{number}"));
                }
            }
            for model in &it.models {
                put(model.as_str(), format!("model-of-server-{number}"));
            }
            if let Some(host) = far_host(&it.url) {
                put(&host, format!("host-{number}"));
            }
        }
        for it in &facts.settings {
            for text in texts(&it.value) {
                let default = it.from == SettingSource::Default;
                if !default || it.key.ends_with("_dir") || matches!(it.key.as_str(), "socket" | "config") {
                    put(text, "(set)".to_owned());
                    if let Some(host) = far_host(text) {
                        put(&host, "(host)".to_owned());
                    }
                }
            }
        }
        if let Some(shared) = facts.status.as_ref().and_then(|it| it.postgres.as_ref()) {
            put(&shared.database, "(database)".to_owned());
        }
        let state = facts.state.as_ref().map(|it| it.display().to_string());
        let sockets = facts.sockets.iter().map(|it| it.path.display().to_string());
        for (at, path) in sockets.enumerate() {
            put(&path, format!("(socket {})", at + 1));
        }
        for (name, stands) in [
            (&state, "(state)"),
            (&names.home, "(home)"),
            (&names.user, "(user)"),
            (&names.machine, "(machine)"),
        ] {
            if let Some(name) = name {
                put(name, stands.to_owned());
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        // The longest first: a path before the name in it.
        all.sort_by_key(|it| std::cmp::Reverse(it.0.len()));
        Self(all)
    }

    fn draw(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(all) => all.iter_mut().for_each(|it| self.draw(it)),
            Value::Object(all) => all.values_mut().for_each(|it| self.draw(it)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Replaces whole names in one pass, so that nothing is taken for a name in what stands for one.
    fn hide(&self, text: &str) -> String {
        let (mut hidden, mut rest) = (String::new(), text);
        while let Some(first) = rest.chars().next() {
            let found = self.0.iter().find(|(name, _)| rest.starts_with(name.as_str()));
            match found {
                Some((name, stands)) => {
                    hidden.push_str(stands);
                    rest = &rest[name.len()..];
                }
                None => {
                    hidden.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        hidden
    }
}

/// The host of an address outside of this machine.
fn far_host(url: &str) -> Option<String> {
    let endpoint = crate::server::Endpoint::parse(url).ok()?;
    match endpoint.address() {
        crate::server::Address::Unix(path) => Some(path.display().to_string()),
        crate::server::Address::Tcp { host, .. } => (!endpoint.is_local()).then(|| host.clone()),
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(all) => {
            all.iter().flat_map(|(key, it)| [vec![key.as_str()], texts(it)].concat()).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}
