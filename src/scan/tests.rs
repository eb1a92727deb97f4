use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    time::timeout,
};

use super::*;
use crate::{
    registry::{self, Admission, Now, Registry, Server, Standing},
    upstream,
};

/// A registry as the daemon keeps it, with a note for each report.
struct House {
    registry: Mutex<Registry>,
    changed: Notify,
    reports: Mutex<Vec<String>>,
    reported: Notify,
    key: Option<Key>,
}

impl House {
    fn new(key: Option<&str>) -> Arc<Self> {
        let settings =
            registry::Settings { every: Duration::from_millis(100), ..registry::Settings::default() };
        Arc::new(Self {
            registry: Mutex::new(Registry::new(settings)),
            changed: Notify::new(),
            reports: Mutex::default(),
            reported: Notify::new(),
            key: key.and_then(Key::new),
        })
    }

    fn act<T>(&self, act: impl FnOnce(&mut Registry, Now) -> T) -> T {
        let now = Now { at: tokio::time::Instant::now().into_std(), wall_ms: 1 };
        act(&mut self.registry.lock().unwrap(), now)
    }

    fn report(&self, report: String) {
        self.reports.lock().unwrap().push(report);
        self.reported.notify_one();
    }

    fn server_at(&self, port: u16) -> Option<Arc<Server>> {
        let snapshot = self.registry.lock().unwrap().snapshot();
        snapshot.servers.iter().find(|it| it.endpoint.port() == Some(port)).cloned()
    }

    /// Waits until `look` finds something after a report.
    async fn until<T>(&self, within: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look(self) {
                    return found;
                }
                self.reported.notified().await;
            }
        };
        let found = timeout(within, found).await;
        found.unwrap_or_else(|_| panic!("not in time; reports: {:?}", self.reports.lock().unwrap()))
    }

    fn count(&self, report: &str) -> usize {
        self.reports.lock().unwrap().iter().filter(|it| *it == report).count()
    }
}

impl Watch for House {
    fn hint(&self, hint: Hint) {
        let report = format!("hint {} {:?} {}", hint.endpoint, hint.source, hint.trusted);
        self.act(|registry, now| registry.on_hint(hint, now));
        self.changed.notify_one();
        self.report(report);
    }
    fn hint_gone(&self, endpoint: &Endpoint, source: Source) {
        self.act(|registry, now| registry.on_hint_gone(endpoint, source, now));
        self.report(format!("gone {endpoint} {source:?}"));
    }
    fn other_program(&self, endpoint: &Endpoint) {
        self.act(|registry, now| registry.on_other_program(endpoint, now));
        self.report(format!("other {endpoint}"));
    }
    fn announced(&self, endpoint: Endpoint, name: &str) {
        let report = format!("announced {endpoint} {name}");
        let hint = Hint { endpoint, source: Source::Mdns, trusted: false, settings: None };
        self.act(|registry, now| registry.on_announced(hint, name, now));
        self.changed.notify_one();
        self.report(report);
    }
    fn is_server(&self, endpoint: &Endpoint) -> bool {
        self.registry.lock().unwrap().snapshot().servers.iter().any(|it| it.endpoint == *endpoint)
    }
    fn beats(&self) -> Vec<Endpoint> {
        self.act(Registry::beats)
    }
    fn reached(&self, endpoint: &Endpoint, result: Result<(), Fault>) {
        self.act(|registry, now| registry.on_beat(endpoint, result, now));
    }
    fn due(&self) -> Vec<Endpoint> {
        self.act(Registry::due)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.act(|registry, _| registry.poll_timeout())
    }
    async fn changed(&self) {
        self.changed.notified().await;
    }
    fn key(&self, _: &Endpoint) -> Option<Key> {
        self.key.clone()
    }
    fn bounds(&self, _: &Endpoint) -> Bounds {
        Bounds::default()
    }
    fn seen(&self, endpoint: &Endpoint, sighting: Sighting) {
        let report = format!("seen {endpoint} {}", sighting.kind);
        self.act(|registry, now| registry.on_seen(endpoint, sighting, now));
        self.report(report);
    }
    fn silent(&self, endpoint: &Endpoint, fault: Fault) {
        self.act(|registry, now| registry.on_silent(endpoint, fault, now));
        self.report(format!("silent {endpoint} {:?}", fault.cause));
    }
    fn foreign(&self, endpoint: &Endpoint) {
        self.act(|registry, now| registry.on_foreign(endpoint, now));
        self.report(format!("foreign {endpoint}"));
    }
}

/// A listener where no lovable looks by itself, on a port of remote screens: one
/// may well run on this machine, and what comes here is counted.
async fn quiet() -> TcpListener {
    for port in 5900..5984 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener;
        }
    }
    panic!("84 ports are taken")
}

/// Something that answers by the path asked, and notes each request.
struct Fake {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::on(quiet().await, answer)
    }

    fn on(listener: TcpListener, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (requests.clone(), Arc::new(answer));
        let serving = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (noted, answer) = (noted.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut buffer = vec![0; 8192];
                    let count = socket.read(&mut buffer).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    let line = request.split(" HTTP").next().unwrap_or_default().to_owned();
                    noted.lock().unwrap().push(line);
                    let _ = socket.write_all(answer(&request).as_bytes()).await;
                });
            }
        });
        Self { port, requests, serving }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn asked(&self, line: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|it| *it == line).count()
    }
}

fn http(status: u16, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn ollama(request: &str, size: u64) -> String {
    let json = "application/json";
    match request.split(" HTTP").next().unwrap_or_default() {
        "GET /" => http(200, "text/plain", "Ollama is running"),
        "GET /api/version" => http(200, json, r#"{"version":"0.24.0"}"#),
        "GET /api/tags" => {
            let model = format!(
                r#"{{"models":[{{"name":"qwen3:8b","model":"qwen3:8b","size":{size},"digest":"d","details":{{"family":"qwen3","format":"gguf","parameter_size":"8B","quantization_level":"Q4_K_M"}}}}]}}"#
            );
            http(200, json, &model)
        }
        "GET /api/ps" => http(200, json, r#"{"models":[]}"#),
        "POST /api/show" => {
            let body = r#"{"capabilities":["completion"],"details":{"family":"qwen3"},"model_info":{"general.architecture":"qwen3","qwen3.context_length":4096}}"#;
            http(200, json, body)
        }
        _ => http(404, "text/plain", "404 page not found"),
    }
}

/// Scans with these settings, as if only these ports existed: the tests of this
/// machine run side by side and would find each other's servers.
fn scan_only(house: &Arc<House>, ports: &[u16], settings: Settings) -> tokio::sync::watch::Sender<bool> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let skip_ports = (1..=u16::MAX).filter(|it| !ports.contains(it)).collect();
    let settings = Settings { skip_ports, ..settings };
    let upstream = Arc::new(Upstream::new(upstream::Settings::default()).unwrap());
    let settings = tokio::sync::watch::channel(settings).1;
    tokio::spawn(run(settings, upstream, house.clone(), stopped));
    stop
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_on_an_odd_port_is_found_and_lost_in_time() {
    let house = House::new(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let placeholder = Fake::on(listener, |request| ollama(request, 7));
    let later = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _stop = scan_only(&house, &[placeholder.port, later], Settings::default());
    let found = house.until(Duration::from_secs(1), |it| it.server_at(placeholder.port)).await;
    assert_eq!((found.kind.as_str(), found.version.as_deref()), ("ollama", Some("0.24.0")));
    assert_eq!(found.models[0].name, "qwen3:8b");
    assert_eq!(found.found_by, BTreeSet::from([Source::SocketTable]));
    assert_eq!(found.admission, Admission::Open);

    placeholder.serving.abort();
    let down = |it: &House| it.server_at(placeholder.port).filter(|it| it.standing == Standing::Down);
    house.until(Duration::from_secs(2), down).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn something_else_is_asked_once_and_what_fails_is_asked_again() {
    let shop = Fake::start(|_| http(200, "text/html", "<h1>Shop</h1>")).await;
    let banner = Fake::start(|_| "SSH-2.0-OpenSSH_9.2\r\n".to_owned()).await;
    let broken = Fake::start(|_| http(502, "text/html", "<h1>Bad gateway</h1>")).await;
    let mute = Fake::start(|_| String::new()).await;
    let house = House::new(None);
    let ports = [shop.port, banner.port, broken.port, mute.port];
    let settings = Settings { ports: ports.to_vec(), ..Settings::default() };
    let _stop = scan_only(&house, &ports, settings);
    for (fake, cause) in [(&broken, "Status"), (&mute, "Reset")] {
        let silent = format!("silent {} {cause}", fake.url());
        house.until(Duration::from_secs(5), |it| (it.count(&silent) >= 2).then_some(())).await;
    }
    for fake in [&shop, &banner] {
        assert_eq!(house.count(&format!("foreign {}", fake.url())), 1);
    }
    assert_eq!(banner.requests.lock().unwrap().len(), 1);
    assert!(shop.requests.lock().unwrap().iter().all(|it| it.starts_with("GET /")));
    assert_eq!(shop.asked("GET /"), 1);
}

#[tokio::test]
async fn descriptions_are_asked_for_again_only_when_the_list_changes() {
    let size = Arc::new(AtomicUsize::new(7));
    let now = size.clone();
    let fake = Fake::start(move |request| ollama(request, now.load(Ordering::SeqCst) as u64)).await;
    let house = House::new(None);
    let _stop = scan_only(&house, &[], Settings::default());
    let endpoint = Endpoint::parse(&fake.url()).unwrap();
    house.hint(Hint { endpoint, source: Source::Config, trusted: true, settings: None });
    let seen = format!("seen {} ollama", fake.url());
    house.until(Duration::from_secs(5), |it| (it.count(&seen) >= 3).then_some(())).await;
    assert_eq!(fake.asked("POST /api/show"), 1);
    assert!(fake.asked("GET /api/tags") >= 3);

    size.store(8, Ordering::SeqCst);
    let resized = |it: &House| it.server_at(fake.port).filter(|it| it.models[0].size_bytes == Some(8));
    let server = house.until(Duration::from_secs(5), resized).await;
    assert_eq!(server.models[0].context_length, Some(4096));
    assert_eq!(fake.asked("POST /api/show"), 2);
}

#[tokio::test]
async fn a_key_is_shown_only_to_who_asks_for_one() {
    let strangers = Fake::start(|request| {
        assert!(!request.contains("authorization"), "{request}");
        http(404, "text/plain", "no")
    })
    .await;
    let guarded = Fake::start(|request| {
        let guarded = request.starts_with("GET /api/tags");
        if guarded && !request.contains("authorization: Bearer sesame") {
            return http(401, "application/json", r#"{"error":"Unauthorized"}"#);
        }
        ollama(request, 7)
    })
    .await;
    let house = House::new(Some("sesame"));
    let _stop = scan_only(&house, &[], Settings::default());
    for fake in [&strangers, &guarded] {
        let endpoint = Endpoint::parse(&fake.url()).unwrap();
        house.hint(Hint { endpoint, source: Source::Config, trusted: true, settings: None });
    }
    house.until(Duration::from_secs(5), |it| it.server_at(guarded.port)).await;
    let foreign = format!("foreign {}", strangers.url());
    house.until(Duration::from_secs(5), |it| (it.count(&foreign) > 0).then_some(())).await;
    assert_eq!(guarded.asked("GET /"), 1);
}

/// A root of `/proc` that shows these sockets, each with its owner and program.
fn proc_root(listeners: &[(u16, u32, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut table = String::from("  sl  local_address\n");
    for (inode, (port, uid, program)) in (100..).zip(listeners) {
        table += &format!("{inode}: 0100007F:{port:04X} 00000000:0000 0A 0:0 0:0 0 {uid} 0 {inode} 1\n");
        let process = root.path().join(inode.to_string());
        std::fs::create_dir_all(process.join("fd")).unwrap();
        std::fs::write(process.join("comm"), format!("{program}\n")).unwrap();
        std::os::unix::fs::symlink(format!("socket:[{inode}]"), process.join("fd/3")).unwrap();
    }
    std::fs::create_dir_all(root.path().join("net")).unwrap();
    std::fs::write(root.path().join("net/tcp"), table).unwrap();
    root
}

#[cfg(target_endian = "little")]
#[tokio::test]
async fn debuggers_keep_their_connection_and_strangers_are_not_trusted() {
    let root = proc_root(&[
        (1234, 1000, "gdbserver"),
        (11434, 997, "ollama"),
        (8000, 1001, "vllm"),
        (9100, 1000, "python3"),
        (7100, 1000, "llama-server"),
        (7777, 1000, "lovabled"),
        (22, 0, "sshd"),
    ]);
    let house = House::new(None);
    let settings = Settings {
        own: vec!["127.0.0.1:7777".parse().unwrap()],
        owners: Owners::read(1000, Path::new("/nonexistent")),
        proc_root: root.path().to_owned(),
        ..Settings::default()
    };
    let mut table = Table::files(root.path());
    let mut listeners = Vec::new();
    table.read(&mut listeners).unwrap();
    let mut scan = Scan::new(tokio::sync::watch::channel(settings).1, house.clone(), mpsc::channel(1).0);
    scan.compare(&listeners);
    scan.compare(&listeners);
    let hinted = std::mem::take(&mut *house.reports.lock().unwrap());
    assert_eq!(
        hinted,
        [
            "other http://127.0.0.1:1234",
            "hint http://127.0.0.1:11434 SocketTable true",
            "hint http://127.0.0.1:11434 Port true",
            "hint http://127.0.0.1:8000 SocketTable false",
            "hint http://127.0.0.1:8000 Port false",
            "hint http://127.0.0.1:7100 SocketTable true",
        ]
    );
    listeners.retain(|it| it.port != 8000);
    scan.compare(&listeners);
    assert_eq!(
        *house.reports.lock().unwrap(),
        ["gone http://127.0.0.1:8000 SocketTable", "gone http://127.0.0.1:8000 Port"]
    );
}

#[cfg(target_endian = "little")]
#[tokio::test]
async fn where_the_table_shall_not_tell_of_servers_it_is_read_for_the_usual_ports() {
    let root = proc_root(&[
        (1234, 1000, "gdbserver"),
        (11434, 1000, "ollama"),
        (8000, 1001, "vllm"),
        (7100, 1000, "llama-server"),
    ]);
    let house = House::new(None);
    let settings = Settings {
        socket_table: false,
        owners: Owners::read(1000, Path::new("/nonexistent")),
        proc_root: root.path().to_owned(),
        ..Settings::default()
    };
    let mut listeners = Vec::new();
    Table::files(root.path()).read(&mut listeners).unwrap();
    let mut scan = Scan::new(tokio::sync::watch::channel(settings).1, house.clone(), mpsc::channel(1).0);
    scan.compare(&listeners);
    scan.compare(&[]);
    assert_eq!(
        *house.reports.lock().unwrap(),
        [
            "other http://127.0.0.1:1234",
            "hint http://127.0.0.1:11434 Port true",
            "hint http://127.0.0.1:8000 Port false",
            "gone http://127.0.0.1:1234 SocketTable",
            "gone http://127.0.0.1:1234 Port",
            "gone http://127.0.0.1:8000 SocketTable",
            "gone http://127.0.0.1:8000 Port",
            "gone http://127.0.0.1:11434 SocketTable",
            "gone http://127.0.0.1:11434 Port",
        ]
    );
}

#[tokio::test]
async fn without_a_table_the_usual_ports_are_hinted_at_and_nobody_is_trusted() {
    let house = House::new(None);
    let settings = Settings { ports: vec![9100], skip_ports: vec![8000], ..Settings::default() };
    Scan::new(tokio::sync::watch::channel(settings).1, house.clone(), mpsc::channel(1).0).guess(&[]);
    let reports = house.reports.lock().unwrap();
    assert!(reports.iter().all(|it| it.ends_with("Port false")));
    let has = |port| reports.iter().any(|it| it.starts_with(&format!("hint http://127.0.0.1:{port} ")));
    assert!(has(11434) && has(1234) && has(9100) && !has(8000));
}
