//! Gathers the facts: asks the daemon, looks at files, tries the network's group address.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::{net::UdpSocket, time::timeout};

use super::{
    super::{Context, now_ms},
    facts::{Facts, Knock, Multicast, Owner, SocketFact},
};
use crate::{
    client::{Client, ClientError, STATUS_PATIENCE},
    config::{Flags, PathFlags, Paths, Scope, Surroundings, load, shared_tmp_dir, variables},
    wire::{ConfigView, Setting},
};

/// Programs that serve models, as they are called on a PATH, and what starts them.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("ollama", "Ollama", "ollama serve"),
    ("llama-server", "llama.cpp", "llama-server -m MODEL.gguf"),
    ("vllm", "vLLM", "vllm serve MODEL"),
    ("lms", "LM Studio", "lms server start"),
];

/// Where mDNS happens.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
/// What we send to the group comes back at once, or not at all.
const ECHO: Duration = Duration::from_millis(400);

/// Looks at everything.
pub(super) async fn gather(context: &Context) -> Facts {
    let around = Surroundings::of_process();
    let mut facts = Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: now_ms(),
        uid: around.uid,
        user: around.text("USER").or_else(|| around.text("LOGNAME")).unwrap_or_else(|| "USER".to_owned()),
        mac: cfg!(target_os = "macos"),
        memory: memory(),
        installed: installed(&around.text("PATH").unwrap_or_default()),
        has_service: has_service(&around),
        multicast: multicast().await,
        ..Facts::default()
    };
    for path in places(context, &around) {
        facts.sockets.push(socket(path).await);
    }
    ask(&context.client, &mut facts).await;
    let paths = PathFlags { socket: Some(context.client.socket().to_owned()), ..PathFlags::default() };
    let flags = Flags { paths, ..Flags::default() };
    match load(&flags, &around, None) {
        Ok(loaded) => {
            facts.gpu_memory = loaded.config.limits.gpu_memory.map_or(0, |it| it.0);
            if facts.settings.is_empty() {
                let view = serde_json::from_value::<ConfigView>(loaded.show());
                facts.settings = view.map(|it| it.settings).unwrap_or_default();
            }
        }
        Err(error) => facts.configuration = Some(error.to_string()),
    }
    facts.state = state(&facts.settings)
        .or_else(|| Paths::resolve(&flags.paths, &around, None).ok().map(|it| it.state.path));
    if let Some(state) = &facts.state {
        facts.free = free(state);
        facts.moved_aside = moved_aside(state);
    }
    if let Some(pid) = facts.status.as_ref().map(|it| it.pid) {
        facts.unseen = unseen(pid, &facts.settings, &around);
    }
    facts
}

/// What the daemon says, as far as there is one.
async fn ask(client: &Client, facts: &mut Facts) {
    let Some(status) = client.status().await.ok().and_then(|it| it.read().ok()) else { return };
    facts.status = Some(status);
    if let Ok(Ok(reply)) = timeout(STATUS_PATIENCE, client.servers()).await {
        facts.servers = reply.read().map(|it| it.servers).unwrap_or_default();
    }
    if let Ok(Ok(reply)) = timeout(STATUS_PATIENCE, client.models()).await {
        facts.models = reply.read().map(|it| it.models).unwrap_or_default();
    }
    if let Ok(Ok(reply)) = timeout(STATUS_PATIENCE, client.config()).await {
        facts.settings = reply.read().map(|it| it.settings).unwrap_or_default();
    }
}

/// Everywhere that a daemon of this user or of the system may be, the one in use first.
fn places(context: &Context, around: &Surroundings<'_>) -> Vec<PathBuf> {
    let mut places = vec![context.client.socket().to_owned()];
    places.extend(context.looked.iter().cloned());
    // Those that have another socket in mind than this shell has.
    let nothing = Surroundings { env: &|_| None, home: around.home.clone(), ..*around };
    let run = PathBuf::from(format!("/run/user/{}", around.uid));
    let usual = [around.var("XDG_RUNTIME_DIR").map(PathBuf::from), run.is_dir().then_some(run)];
    places.extend(usual.into_iter().flatten().map(|it| it.join("lovable/lovabled.sock")));
    if context.socket.is_none() && around.var("LOVABLE_SOCKET").is_none() {
        places.extend(Paths::socket_candidates(None, &nothing).unwrap_or_default());
    }
    let mut seen = BTreeSet::new();
    places.retain(|it| seen.insert(it.clone()));
    // In use, or really there: an absent one is no fact.
    let first = places.first().cloned();
    places.retain(|it| Some(it) == first.as_ref() || it.exists());
    // Anybody can make that directory; its owner is then none of ours.
    let shared = shared_tmp_dir(around.uid);
    places.retain(|it| it.parent() != Some(&shared) || owner(&shared).is_some_and(|it| it.uid == around.uid));
    places
}

async fn socket(path: PathBuf) -> SocketFact {
    let client = Client::new(&path);
    let knock = match client.status().await {
        Ok(reply) => reply.read().map_or_else(|it| Knock::Other(it.to_string()), |it| Knock::Answers(it.pid)),
        Err(ClientError::Silent { .. }) => Knock::Silent,
        Err(ClientError::Unreachable { source, .. }) => match source.kind() {
            ErrorKind::NotFound => Knock::Nothing,
            ErrorKind::ConnectionRefused => Knock::Refused,
            ErrorKind::PermissionDenied => Knock::Denied,
            _ => Knock::Other(source.to_string()),
        },
        Err(error) => Knock::Other(error.to_string()),
    };
    let flags = PathFlags { socket: Some(path.clone()), ..PathFlags::default() };
    let scope = Paths::resolve(&flags, &Surroundings::of_process(), None).map(|it| it.scope);
    SocketFact {
        of_system: matches!(scope, Ok(Scope::System)),
        owner: owner(&path),
        directory: path.parent().and_then(owner),
        path,
        knock,
    }
}

fn owner(path: &Path) -> Option<Owner> {
    let it = fs::symlink_metadata(path).ok()?;
    Some(Owner { uid: it.uid(), mode: it.mode() & 0o7777, is_socket: it.file_type().is_socket() })
}

/// Model servers on the PATH.
fn installed(path: &str) -> Vec<(&'static str, &'static str)> {
    let on_path = |program: &str| std::env::split_paths(path).any(|it| it.join(program).is_file());
    let there = PROGRAMS.iter().filter(|(program, ..)| on_path(program));
    there.map(|(_, name, start)| (*name, *start)).collect()
}

fn has_service(around: &Surroundings<'_>) -> bool {
    let Some(home) = &around.home else { return false };
    let config = around.var("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    let agent = home.join("Library/LaunchAgents/dev.lovable.lovabled.plist");
    config.join("systemd/user/lovabled.service").exists() || agent.exists()
}

/// Where the daemon keeps its state, by its own settings.
fn state(settings: &[Setting]) -> Option<PathBuf> {
    settings.iter().find(|it| it.key == "state_dir")?.value.as_str().map(PathBuf::from)
}

/// Bytes that are free there for us, or where the directory would be made.
fn free(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|it| it.exists())?;
    let it = rustix::fs::statvfs(there).ok()?;
    Some(it.f_bavail.saturating_mul(it.f_frsize))
}

fn moved_aside(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    let damaged = entries.filter(|it| it.file_name().to_string_lossy().contains(".damaged-"));
    let mut paths: Vec<_> = damaged.map(|it| it.path()).collect();
    paths.sort();
    paths
}

/// Memory of the machine, where the system shows it as a file.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Variables of this shell that the daemon was not started with. Their values stay here.
fn unseen(pid: u32, settings: &[Setting], around: &Surroundings<'_>) -> Vec<String> {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return Vec::new() };
    let has = |name: &str, value: &str| {
        let wanted = format!("{name}={value}");
        environment.split(|it| *it == 0).any(|it| it == wanted.as_bytes())
    };
    let settings: Vec<_> = settings.iter().map(as_loaded).collect();
    let set = variables(&settings).into_iter().filter_map(|it| Some((around.text(&it)?, it)));
    set.filter(|(value, name)| !has(name, value)).map(|(_, name)| name).collect()
}

/// Only its name and value matter here.
fn as_loaded(it: &Setting) -> crate::config::Setting {
    crate::config::Setting {
        key: it.key.clone(),
        value: it.value.clone(),
        from: crate::config::Origin::Default,
        at: None,
    }
}

/// Sends to the group and listens for it: what a firewall lets out and in is seen by trying.
async fn multicast() -> Multicast {
    let Some(socket) = group_socket() else { return Multicast::NoRoute };
    // Too short to be a message: no responder answers it.
    let word = [0; 2];
    if let Err(error) = socket.send_to(&word, GROUP).await {
        return match error.kind() {
            ErrorKind::PermissionDenied => Multicast::Forbidden,
            _ => Multicast::NoRoute,
        };
    }
    let echo = async {
        let mut heard = [0; 4096];
        while let Ok((length, _)) = socket.recv_from(&mut heard).await {
            if heard[..length] == word {
                return true;
            }
        }
        false
    };
    if timeout(ECHO, echo).await == Ok(true) { Multicast::Works } else { Multicast::Deaf }
}

/// A socket in the group, beside whoever else is in it on this machine.
fn group_socket() -> Option<UdpSocket> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    sockopt::set_socket_reuseport(&socket, true).ok()?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GROUP.port())).ok()?;
    let socket = std::net::UdpSocket::from(socket);
    socket.join_multicast_v4(GROUP.ip(), &Ipv4Addr::UNSPECIFIED).ok()?;
    socket.set_multicast_loop_v4(true).ok()?;
    socket.set_nonblocking(true).ok()?;
    UdpSocket::from_std(socket).ok()
}
