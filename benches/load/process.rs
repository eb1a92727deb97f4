//! The processes of a run: simulated servers, HAProxy, and what the system says of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lovable::simulate::{Offer, Script, Shape, Simulated};

/// A process that ends with its value.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The core that a proxy has for itself, and the one for everything else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) rest: usize,
}

/// What the simulated servers are, by their model.
pub(crate) fn scripts() -> BTreeMap<&'static str, Script> {
    let of = |name: &'static str, script: Script| {
        (name, Script { models: vec![Offer { context: 1 << 40, ..Offer::named(name) }], ..script })
    };
    let paced = |ms, words| Script { words, between: Duration::from_millis(ms), ..Script::default() };
    BTreeMap::from([
        of("small", Script { words: 8, ..Script::default() }),
        of("paced", Script { stamps: true, ..paced(10, 100) }),
        of("flood", Script { words: 2000, ..Script::default() }),
        of("open", paced(2000, 100_000)),
        of("bare", Script { words: 8, ..Script::default() }),
        of("bare-flood", Script { words: 2000, ..Script::default() }),
        of("ollama", Script { words: 8, ..Script::default() }),
        of("ollama-flood", Script { words: 2000, ..Script::default() }),
    ])
}

/// Most are vLLM, which has a door for each of several languages; where it matters what is
/// translated, the server has one door, or is Ollama.
fn shape(name: &str) -> Shape {
    match name.split('-').next() {
        Some("bare") => Shape::OpenAi,
        Some("ollama") => Shape::Ollama,
        _ => Shape::Vllm,
    }
}

/// Runs the simulated servers until stdin closes; the ports go to stdout.
pub(crate) async fn simulate() {
    let mut servers = Vec::new();
    let mut line = String::new();
    for (name, script) in scripts() {
        let server = Simulated::start(shape(name), script).await.expect("a loopback port is free");
        let _ = write!(line, "{name}={} ", server.port());
        servers.push(server);
    }
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}", line.trim_end());
    let _ = out.flush();
    // The parent holds the other end of stdin for as long as it lives.
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}

/// Starts the simulated servers in a process of their own.
pub(crate) fn servers(cores: Option<Cores>) -> (Process, BTreeMap<String, u16>) {
    let this = std::env::current_exe().expect("a program has a file");
    let mut command = pinned(&this, cores.map(|it| it.rest));
    command.arg("simulate").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs already");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("it says its ports");
    let ports = line
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, port)| (name.to_owned(), port.parse().expect("a port")));
    (Process(child), ports.collect())
}

/// Starts HAProxy with one door per server; `None` where it is not installed.
pub(crate) fn haproxy(
    directory: &Path,
    ports: &BTreeMap<String, u16>,
    tcp: Option<&BTreeMap<String, u16>>,
    cores: Option<Cores>,
) -> Option<Process> {
    let mut config = "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode http\n  timeout connect 5s\n  \
                      timeout client 1h\n  timeout server 1h\n  http-reuse always\n"
        .to_owned();
    for (name, port) in ports {
        let socket = directory.join(format!("{name}.sock"));
        let bind = match tcp {
            None => format!("unix@{}", socket.display()),
            Some(doors) => format!("127.0.0.1:{}", doors[name]),
        };
        let _ = write!(
            config,
            "frontend {name}\n  bind {bind}\n  default_backend to-{name}\nbackend to-{name}\n  server it 127.0.0.1:{port}\n"
        );
    }
    let file = directory.join("haproxy.cfg");
    fs::write(&file, config).expect("the temporary directory can be written");
    let program = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"]
        .into_iter()
        .find(|path| Path::new(path).exists())?;
    let mut command = pinned(Path::new(program), cores.map(|it| it.proxy));
    command.args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null());
    let process = Process(command.spawn().ok()?);
    let start = Instant::now();
    let last = ports.keys().next_back()?;
    while !directory.join(format!("{last}.sock")).exists() && tcp.is_none() {
        assert!(start.elapsed() < Duration::from_secs(5), "haproxy does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    Some(process)
}

fn pinned(program: &Path, core: Option<usize>) -> Command {
    match core {
        None => Command::new(program),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(program);
            command
        }
    }
}

/// Puts this process on a core, before it has threads.
pub(crate) fn pin_self(core: usize) -> bool {
    let this = std::process::id().to_string();
    let mut command = Command::new("taskset");
    command.args(["-cp", &core.to_string(), &this]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()).and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// Processor time of all threads so far.
pub(crate) fn processor(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
