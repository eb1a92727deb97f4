//! The checks, one small function each: what is wrong by the facts, and what mends it.
//!
//! A check says nothing when it cannot tell. A new one is a function and a line.

use std::collections::BTreeSet;

use super::{
    super::say,
    facts::{Facts, Knock, Multicast, Owner, SocketFact},
    shared,
};
use crate::{
    registry::{Admission, Standing},
    server::{Endpoint, Problem, Source, Zone},
    wire::{LookupView, ServerView, from_rfc3339},
};

/// Something that is wrong, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) fix: String,
}

/// A check.
pub(super) struct Check {
    /// What programs call it.
    pub(super) id: &'static str,
    /// What is fine when it finds nothing.
    pub(super) fine: &'static str,
    pub(super) look: fn(&Facts) -> Vec<Finding>,
}

/// All of them, in the order in which they help.
pub(super) const CHECKS: &[Check] = &[
    check("configuration", "the configuration can be read", configuration),
    check("daemon", "the daemon answers", daemon),
    check("stale_socket", "no dead socket is in the way", stale_socket),
    check("socket_access", "the socket is yours and nobody else's", socket_access),
    check("two_daemons", "there is one daemon", two_daemons),
    check("version", "lovabled and lovablectl are of one version", version),
    check("no_server", "there is a model server", no_server),
    check("needs_key", "every server has the key that it wants", needs_key),
    check("wrong_host", "no server refuses the name that it is called by", wrong_host),
    check("other_interface", "no server listens on a network address alone", other_interface),
    check("untrusted", "no server of this machine waits to be trusted", untrusted),
    check("small_context", "models are loaded with all the context that they allow", small_context),
    check("too_large", "every model fits into memory", too_large),
    check("one_at_a_time", "servers answer several requests at once", one_at_a_time),
    check("variables", "the daemon sees the variables of this shell", variables),
    check("multicast", "servers on the network can be found", multicast),
    check("local_network", "the network may be used", local_network),
    check("lookups", "what the configuration looks up in DNS is found", lookups),
    check("disk", "there is room on the disk", disk),
    check("moved_aside", "the store is whole", moved_aside),
    check("postgres", "outcomes reach the shared database, if there is one", shared::postgres),
    check("clock", "the clock goes right", clock),
];

const fn check(id: &'static str, fine: &'static str, look: fn(&Facts) -> Vec<Finding>) -> Check {
    Check { id, fine, look }
}

pub(super) fn found(what: impl Into<String>, fix: impl Into<String>) -> Vec<Finding> {
    vec![one(what, fix)]
}

fn one(what: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { what: what.into(), fix: fix.into() }
}

/// A finding for each server of which something is said.
fn each(facts: &Facts, look: impl Fn(&ServerView) -> Option<Finding>) -> Vec<Finding> {
    facts.servers.iter().filter_map(look).collect()
}

fn configuration(facts: &Facts) -> Vec<Finding> {
    match &facts.configuration {
        Some(problem) => found(format!("the configuration is wrong: {problem}"), "lovablectl config edit"),
        None => Vec::new(),
    }
}

fn daemon(facts: &Facts) -> Vec<Finding> {
    // Who may not open the socket is told so by another check.
    if facts.status.is_some() || facts.sockets.iter().any(|it| it.knock == Knock::Denied) {
        return Vec::new();
    }
    let restart = "look into its log, and restart it: lovablectl service stop && lovablectl service start";
    for socket in &facts.sockets {
        let path = socket.path.display();
        let what = match &socket.knock {
            Knock::Silent => format!("the daemon at {path} takes connections and says nothing"),
            Knock::Other(why) => format!("the daemon at {path} cannot be asked: {why}"),
            Knock::Nothing | Knock::Refused | Knock::Denied | Knock::Answers(_) => continue,
        };
        return found(what, restart);
    }
    let fix = match (facts.has_service, facts.mac) {
        (true, false) => "lovablectl service start; if it ends at once: journalctl --user -u lovabled",
        (true, true) => "lovablectl service start; if it ends at once: ~/Library/Logs/lovable/lovabled.log",
        (false, _) => "lovabled in a terminal, or lovablectl service install",
    };
    found("the daemon is not running", fix)
}

fn stale_socket(facts: &Facts) -> Vec<Finding> {
    let stale = facts.sockets.iter().filter(|it| it.knock == Knock::Refused);
    // The daemon itself takes over what nobody listens on; a person wonders all the same.
    let fix = |it: &SocketFact| format!("start lovabled, which takes it over, or: rm {}", it.path.display());
    stale.map(|it| one(format!("nobody listens on the socket {}", it.path.display()), fix(it))).collect()
}

fn socket_access(facts: &Facts) -> Vec<Finding> {
    facts.sockets.iter().filter_map(|it| access(facts, it)).collect()
}

fn access(facts: &Facts, socket: &SocketFact) -> Option<Finding> {
    let path = socket.path.display();
    if socket.of_system {
        let fix = format!("sudo usermod --append --groups lovable {}, then log in again", facts.user);
        let denied = socket.knock == Knock::Denied;
        return denied.then(|| one(format!("you may not open {path}: it is for group lovable"), fix));
    }
    let ours = |it: &Owner| it.uid == facts.uid;
    let file = socket.owner;
    match (file, socket.directory) {
        (Some(file), _) if !file.is_socket => {
            Some(one(format!("{path} is no socket"), format!("move it away: mv {path} {path}.old")))
        }
        (Some(file), _) if !ours(&file) => Some(one(
            format!("the socket {path} belongs to user {}", file.uid),
            "name another with --socket, or have that user's daemon stopped",
        )),
        (_, Some(directory)) if !ours(&directory) && !is_shared(&directory) => Some(one(
            format!("the directory of {path} belongs to user {}", directory.uid),
            "name another socket with --socket",
        )),
        (_, Some(directory)) if directory.mode & 0o022 != 0 && directory.mode & 0o1000 == 0 => Some(one(
            format!("others may write to the directory of {path} (mode {:04o})", directory.mode),
            format!("chmod 700 {}", socket.path.parent().unwrap_or(&socket.path).display()),
        )),
        (Some(file), _) if file.mode & 0o077 != 0 => Some(one(
            format!("others may open the socket {path} (mode {:04o})", file.mode),
            format!("chmod 600 {path}"),
        )),
        _ if socket.knock == Knock::Denied => {
            Some(one(format!("you may not open {path}"), "run this as the user whose daemon it is"))
        }
        _ => None,
    }
}

/// Root's directories, in which a person may have chosen a place.
fn is_shared(directory: &Owner) -> bool {
    directory.uid == 0
}

fn two_daemons(facts: &Facts) -> Vec<Finding> {
    let answering: Vec<_> = facts
        .sockets
        .iter()
        .filter_map(|it| if let Knock::Answers(pid) = it.knock { Some((pid, it)) } else { None })
        .collect();
    let processes: BTreeSet<_> = answering.iter().map(|it| it.0).collect();
    if processes.len() < 2 {
        return Vec::new();
    }
    let places: Vec<_> =
        answering.iter().map(|(pid, it)| format!("{} (process {pid})", it.path.display())).collect();
    found(
        format!(
            "{} daemons run, each with its own servers and statistics: {}",
            processes.len(),
            places.join(", ")
        ),
        "stop the one that you do not want: kill PROCESS, or systemctl stop lovabled for the system's",
    )
}

fn version(facts: &Facts) -> Vec<Finding> {
    let Some(status) = facts.status.as_ref().filter(|it| it.version != facts.version) else {
        return Vec::new();
    };
    let fix = if facts.has_service {
        "restart it: lovablectl service stop && lovablectl service start"
    } else {
        "stop lovabled and start the new one"
    };
    let theirs = say::clean(&status.version);
    found(format!("lovabled is {theirs}, lovablectl is {}", facts.version), fix)
}

fn no_server(facts: &Facts) -> Vec<Finding> {
    let usable = |it: &ServerView| it.standing != Standing::Down && it.admission == Admission::Open;
    if facts.status.is_none() || facts.servers.iter().any(usable) {
        return Vec::new();
    }
    let what = match facts.servers.len() {
        0 => "no model server was found".to_owned(),
        known => format!("{} known, but none can be used", say::plural(known as u64, "server")),
    };
    if facts.installed.is_empty() {
        return found(
            what,
            "install one (Ollama, llama.cpp, vLLM, LM Studio), or: lovablectl servers add URL",
        );
    }
    let start = facts
        .installed
        .iter()
        .map(|(name, start)| one(format!("{what}; {name} is installed here and not started"), *start));
    start.collect()
}

fn needs_key(facts: &Facts) -> Vec<Finding> {
    each(facts, |it| {
        let fix =
            format!("give it one: [[servers]] url = \"{}\", key_env = \"VARIABLE\" or key_file", it.url);
        (it.problem == Some(Problem::NeedsKey)).then(|| one(format!("{} needs a key", it.id), fix))
    })
}

fn wrong_host(facts: &Facts) -> Vec<Finding> {
    each(facts, |it| {
        let fix = "allow this name where the server lists its hosts, or name it by its address in [[servers]]; \
                   an Ollama behind a proxy wants Host: localhost from it";
        (it.problem == Some(Problem::WrongHost))
            .then(|| one(format!("{} refuses the Host header of {}", it.id, say::clean(&it.url)), fix))
    })
}

/// Waits for somebody to trust it, and is on this machine by its socket.
fn waits(server: &ServerView) -> bool {
    let here = [Source::Port, Source::SocketTable].iter().any(|it| server.found_by.contains(it));
    server.admission == Admission::Untrusted && here
}

fn is_loopback(server: &ServerView) -> bool {
    Endpoint::parse(&server.url).is_ok_and(|it| it.is_local())
}

fn other_interface(facts: &Facts) -> Vec<Finding> {
    each(facts, |it| {
        (waits(it) && !is_loopback(it)).then(|| {
            let fix = match it.kind.as_str() {
                "ollama" => "start it with OLLAMA_HOST=127.0.0.1 (or 0.0.0.0)".to_owned(),
                "vllm" | "llamacpp" => "start it with --host 127.0.0.1 (or 0.0.0.0)".to_owned(),
                "lmstudio" => "bind it to localhost in its settings, Developer".to_owned(),
                _ => "bind it to 127.0.0.1 (or 0.0.0.0)".to_owned(),
            };
            let fix = format!("{fix}, or trust it where it is: [discovery] trust = [\"{}\"]", it.url);
            one(format!("{} listens on a network address alone: {}", it.id, it.url), fix)
        })
    })
}

fn untrusted(facts: &Facts) -> Vec<Finding> {
    each(facts, |it| {
        (waits(it) && is_loopback(it)).then(|| {
            one(
                format!("{} at {} belongs to another user and gets no prompts", it.id, it.url),
                format!("if you trust that user: lovablectl servers trust {}", it.id),
            )
        })
    })
}

fn small_context(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    for model in &facts.models {
        let (Some(most), Some(loaded)) = (model.context_length, model.loaded_context_length) else {
            continue;
        };
        if loaded >= most {
            continue;
        }
        let name = say::clean(model.name.as_str());
        let kind = model.servers.iter().find(|it| it.loaded == Some(true)).or(model.servers.first());
        let fix = match kind.map(|it| it.kind.as_str()) {
            Some("ollama") => {
                format!("start Ollama with OLLAMA_CONTEXT_LENGTH={most}, or less where memory is short")
            }
            Some("llamacpp") => format!("start it with --ctx-size {most}, or less where memory is short"),
            Some("vllm") => format!("start it with --max-model-len {most}, or less where memory is short"),
            Some("lmstudio") => "load it with a longer context in LM Studio".to_owned(),
            _ => "load it with a longer context".to_owned(),
        };
        let loaded = say::count(loaded);
        let most = say::count(most);
        all.push(one(format!("{name} is loaded with a context of {loaded} tokens and allows {most}"), fix));
    }
    all
}

fn too_large(facts: &Facts) -> Vec<Finding> {
    let Some(memory) = facts.memory else { return Vec::new() };
    let room = memory.saturating_add(facts.gpu_memory);
    let mut all = Vec::new();
    for model in &facts.models {
        let here = model.servers.iter().filter(|it| it.zone == Zone::Machine && it.loaded != Some(true));
        let Some(size) = here.filter_map(|it| it.size_bytes).max().filter(|it| *it > room) else { continue };
        let (size, room) = (say::bytes(size), say::bytes(room));
        let name = say::clean(model.name.as_str());
        all.push(one(
            format!("{name} is too large for this machine: {size}, and its memory is {room}"),
            "take a smaller one or a smaller quantisation; if its GPU holds it, say so in [limits] gpu_memory",
        ));
    }
    all
}

fn one_at_a_time(facts: &Facts) -> Vec<Finding> {
    each(facts, |it| {
        let own_wish = || {
            let mut keys = facts.settings.iter().filter(|set| set.key.ends_with("].url"));
            keys.any(|set| {
                let limit = set.key.replace("].url", "].limit");
                set.value == it.url.as_str() && facts.setting(&limit).is_some_and(|it| *it == 1)
            })
        };
        if it.limit != Some(1) || it.zone == Zone::Cloud || it.standing == Standing::Down || own_wish() {
            return None;
        }
        let fix = match it.kind.as_str() {
            "ollama" => "start Ollama with OLLAMA_NUM_PARALLEL=4",
            "llamacpp" => "start it with --parallel 4 and a --ctx-size four times as large",
            "vllm" => "start it with a larger --max-num-seqs",
            "lmstudio" => "raise the number of parallel requests where LM Studio loads the model",
            _ => "start it with more slots",
        };
        Some(one(format!("{} answers one request at a time; everyone else waits", it.id), fix))
    })
}

fn variables(facts: &Facts) -> Vec<Finding> {
    if facts.unseen.is_empty() {
        return Vec::new();
    }
    let fix = match facts.has_service {
        true => "lovablectl service install in this shell, which carries them over",
        false => "restart lovabled in this shell",
    };
    let what = "set in this shell, and the daemon does not see it as it is here";
    facts.unseen.iter().map(|it| one(format!("{it} is {what}"), fix)).collect()
}

fn multicast(facts: &Facts) -> Vec<Finding> {
    // Who does not look for servers on the network does not miss them.
    if facts.setting("discovery.mdns").is_some_and(|it| *it == false) {
        return Vec::new();
    }
    match facts.multicast {
        Multicast::Untried | Multicast::Works => Vec::new(),
        Multicast::NoRoute => found(
            "servers on the network are not found: no interface has a route for multicast",
            "ip route add 224.0.0.0/4 dev INTERFACE, or name the servers in [[servers]]; \
             [discovery] mdns = false where there is no network",
        ),
        Multicast::Forbidden => found(
            "servers on the network are not found: the firewall lets no multicast out (224.0.0.251, UDP 5353)",
            "allow mDNS in the firewall (ufw allow mdns; firewall-cmd --add-service=mdns), or name the servers in [[servers]]",
        ),
        Multicast::Deaf => found(
            "servers on the network are not found: the firewall lets no multicast in (224.0.0.251, UDP 5353)",
            "allow mDNS in the firewall (ufw allow mdns; firewall-cmd --add-service=mdns), or name the servers in [[servers]]",
        ),
    }
}

fn local_network(facts: &Facts) -> Vec<Finding> {
    let far: Vec<_> = facts.servers.iter().filter(|it| it.zone == Zone::Lan).collect();
    let unreachable =
        |it: &&ServerView| it.last_fault.as_ref().is_some_and(|fault| fault.cause == "unreachable");
    let near = facts.servers.iter().filter(|it| it.zone == Zone::Machine);
    // A machine whose network is down says the same of all, and loopback works there too;
    // on a Mac the reason is most often the other one.
    if !facts.mac || far.is_empty() || !far.iter().all(unreachable) || near.count() == 0 {
        return Vec::new();
    }
    found(
        "no server on the network can be reached, those of this machine can",
        "System Settings, Privacy & Security, Local Network: switch lovabled on, then restart it",
    )
}

fn lookups(facts: &Facts) -> Vec<Finding> {
    let all = facts.status.iter().flat_map(|it| &it.lookups);
    let finding = |it: &LookupView| {
        let what = say::clean(&it.reason()?);
        // What stands behind the port is nothing that DNS is asked for.
        let name = it.name.split(':').next().unwrap_or_default();
        Some(one(
            what,
            format!(
                "see what the resolver says (dig SRV {name}), or name another: resolver in [[discovery.dns]]"
            ),
        ))
    };
    all.filter_map(finding).collect()
}

/// With less the store cannot write what it has to.
const LEAST_FREE: u64 = 64 << 20;

fn disk(facts: &Facts) -> Vec<Finding> {
    let place = facts.state.as_ref().map(|it| it.display().to_string()).unwrap_or_default();
    let full = facts.free.filter(|it| *it < LEAST_FREE);
    if let Some(free) = full {
        let what = format!("the disk is full: {} are free at {place}", say::bytes(free));
        return found(what, "make room there, or keep the state elsewhere: --state-dir, LOVABLE_STATE_DIR");
    }
    match &facts.status {
        Some(status) if !status.store.ok => {
            let why: Vec<_> = status.reasons.iter().map(|it| say::clean(it)).collect();
            let fix = format!("see that {place} can be written to, then restart lovabled");
            found(format!("nothing is kept across restarts: {}", why.join("; ")), fix)
        }
        _ => Vec::new(),
    }
}

fn moved_aside(facts: &Facts) -> Vec<Finding> {
    let finding = |path: &std::path::PathBuf| {
        let path = path.display();
        one(
            format!("a database was damaged and moved aside: {path}"),
            format!("what was in it begins anew; once you need it no more: rm -r {path}"),
        )
    };
    facts.moved_aside.iter().map(finding).collect()
}

/// More than two clocks of one machine differ, and less than anybody would not notice.
const SKEW_MS: u64 = 5_000;
/// The beginning of 2025: a clock before that was never set.
const LONG_AGO_MS: u64 = 1_735_689_600_000;

fn clock(facts: &Facts) -> Vec<Finding> {
    let fix = if facts.mac {
        "System Settings, General, Date & Time: set it automatically"
    } else {
        "timedatectl set-ntp true"
    };
    if facts.now_ms < LONG_AGO_MS {
        return found("the clock of this machine was never set: statistics go to the wrong hours", fix);
    }
    let moments = facts.servers.iter().flat_map(|it| [it.last_seen.as_deref(), Some(it.since.as_str())]);
    let latest = moments.flatten().filter_map(from_rfc3339).max().unwrap_or_default();
    if latest > facts.now_ms + SKEW_MS {
        let by = say::seconds((latest - facts.now_ms) / 1000);
        return found(format!("the clock was set back by {by} while lovabled ran"), fix);
    }
    Vec::new()
}
