//! The other machine: a process in a network of its own that serves, announces and says what
//! it is told to.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Stdio,
    time::Duration,
};

use lovable::simulate::{At, Counts, Script, Shape, Simulated};
use mdns_sd::{ServiceDaemon, ServiceInfo};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex, mpsc},
    time::timeout,
};

use super::run;

/// Set in the process that is the other machine.
const FAR: &str = "LOVABLE_TEST_FAR";
/// What its answers begin with, among all that a test program says.
const MARK: &str = "far: ";
/// Longer than anything takes that it is told.
const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// To start a server shaped like the one of that number, which pauses between two words.
    Serve { shape: usize, port: u16, pause: Duration },
    /// To say what the server at that port got.
    Counts { port: u16 },
    /// To announce a service.
    Announce { kind: String, name: String, port: u16 },
    /// To withdraw it.
    Withdraw { kind: String, name: String },
    /// To say these packets to the group of multicast DNS.
    Say { packets: Vec<Vec<u8>> },
    /// To hand connections on to a port of its own.
    Forward { port: u16, to: u16 },
}

/// What a server got.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Got {
    pub(crate) connections: u64,
    pub(crate) probes: u64,
    pub(crate) prompts: u64,
}

/// The other machine; dropping it ends it and its network.
pub(crate) struct Far {
    child: Child,
    ears: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Far {
    pub(crate) async fn start() -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe().unwrap());
        command.args(["--exact", "network::far::a_machine_for_as_long_as_its_parent_lives", "--nocapture"]);
        command.env(FAR, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("unshare of util-linux is there");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let far = Self { child, ears: Mutex::new((stdin, BufReader::new(stdout).lines())) };
        assert_eq!(far.hear().await, "ready");
        far
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The words that run another command on that machine.
    pub(crate) fn there(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.pid())]
    }

    pub(crate) async fn ip(&self, args: &str) {
        let [program, net] = self.there();
        let mut command = Command::new(program);
        command.args([net.as_str(), "ip"]);
        run(command, args).await;
    }

    /// Pulls the cable, behind the switch.
    pub(crate) async fn unplug(&self) {
        self.ip("link set cable nomaster").await;
    }

    pub(crate) async fn plug(&self) {
        self.ip("link set cable master lan").await;
    }

    pub(crate) async fn serve(&self, shape: Shape, port: u16) {
        self.serve_slowly(shape, port, Duration::ZERO).await;
    }

    /// The same; it pauses so long between two words.
    pub(crate) async fn serve_slowly(&self, shape: Shape, port: u16, pause: Duration) {
        let shape = Shape::ALL.iter().position(|it| *it == shape).unwrap();
        self.tell(&Order::Serve { shape, port, pause }).await;
    }

    pub(crate) async fn got(&self, port: u16) -> Got {
        serde_json::from_str(&self.tell(&Order::Counts { port }).await).unwrap()
    }

    /// Announces a service at whatever addresses that machine has.
    pub(crate) async fn announce(&self, kind: &str, name: &str, port: u16) {
        self.tell(&Order::Announce { kind: kind.to_owned(), name: name.to_owned(), port }).await;
    }

    pub(crate) async fn withdraw(&self, kind: &str, name: &str) {
        self.tell(&Order::Withdraw { kind: kind.to_owned(), name: name.to_owned() }).await;
    }

    pub(crate) async fn say(&self, packets: Vec<Vec<u8>>) {
        self.tell(&Order::Say { packets }).await;
    }

    pub(crate) async fn forward(&self, port: u16, to: u16) {
        self.tell(&Order::Forward { port, to }).await;
    }

    async fn tell(&self, order: &Order) -> String {
        let line = serde_json::to_string(order).unwrap() + "\n";
        self.ears.lock().await.0.write_all(line.as_bytes()).await.unwrap();
        self.hear().await
    }

    async fn hear(&self) -> String {
        let mut ears = self.ears.lock().await;
        let heard = async {
            loop {
                let line = ears.1.next_line().await.unwrap().expect("the other machine lives");
                if let Some((_, answer)) = line.split_once(MARK) {
                    return answer.to_owned();
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("the other machine answers")
    }
}

/// Run as a test among the others it is told nothing, and only shows that this is so.
#[tokio::test]
async fn a_machine_for_as_long_as_its_parent_lives() {
    if std::env::var_os(FAR).is_none() {
        return;
    }
    let mut servers = BTreeMap::new();
    let mut announced: BTreeMap<String, ServiceDaemon> = BTreeMap::new();
    let (heard, mut orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // The parent holds the other end for as long as it lives.
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| heard.send(line))
    });
    answer("ready");
    while let Some(line) = orders.recv().await {
        let mut said = "done".to_owned();
        match serde_json::from_str(&line).unwrap() {
            Order::Serve { shape, port, pause } => {
                let at = At::Address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
                let script = Script { words: 5, between: pause, ..Script::default() };
                servers.insert(port, Simulated::start_at(Shape::ALL[shape], script, at).await.unwrap());
            }
            Order::Counts { port } => {
                let Counts { connections, probes, received, .. } = servers[&port].counts();
                said = serde_json::to_string(&Got { connections, probes, prompts: received }).unwrap();
            }
            Order::Announce { kind, name, port } => {
                let host = format!("{}.local.", name.replace(' ', "-"));
                let service = ServiceInfo::new(&ty(&kind), &name, &host, "", port, &[("version", "1")][..]);
                let mut service = service.unwrap().enable_addr_auto();
                // To be sure that the name is free takes a second, which is not ours to measure.
                service.set_requires_probe(false);
                let full = service.get_fullname().to_owned();
                let mdns = ServiceDaemon::new().unwrap();
                mdns.set_ip_check_interval(1).unwrap();
                mdns.register(service).unwrap();
                announced.insert(full, mdns);
            }
            Order::Withdraw { kind, name } => {
                withdraw(&announced.remove(&format!("{name}.{}", ty(&kind))).expect("it was announced"));
            }
            Order::Say { packets } => say(&packets),
            Order::Forward { port, to } => forward(port, to).await,
        }
        answer(&said);
    }
}

/// Says goodbye for it.
fn withdraw(mdns: &ServiceDaemon) {
    mdns.shutdown().unwrap().recv_timeout(PATIENCE).unwrap();
}

fn ty(kind: &str) -> String {
    format!("{kind}._tcp.local.")
}

fn answer(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    writeln!(out, "{MARK}{text}").unwrap();
    out.flush().unwrap();
}

fn say(packets: &[Vec<u8>]) {
    // Answers from another port are none.
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    let from = std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GROUP.1);
    rustix::net::bind(&socket, &rustix::net::SocketAddrAny::from(from)).unwrap();
    let socket = UdpSocket::from(socket);
    let lan = super::FAR.parse().unwrap();
    rustix::net::sockopt::set_ip_multicast_if(&socket, &lan).unwrap();
    rustix::net::sockopt::set_ip_multicast_ttl(&socket, 255).unwrap();
    for packet in packets {
        socket.send_to(packet, GROUP).unwrap();
        // A radio network is no faster.
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) async fn forward(port: u16, to: u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
}
