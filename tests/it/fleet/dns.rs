//! Resolvers: dnsmasq, and some that do what it would not.

use std::{fmt::Write as _, net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    net::UdpSocket,
    process::{Child, Command},
    time::sleep,
};

use super::{RESOLVER, ip, port};
use crate::network::far::Far;

/// A record of a service, by the number of its server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Srv {
    pub(super) number: usize,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

impl Srv {
    /// As a line of dnsmasq.
    fn line(self, service: &str) -> String {
        let Self { number, priority, weight } = self;
        format!("srv-host={service},node-{number}.fleet.test,{},{priority},{weight}\n", port(number))
    }
}

/// dnsmasq on the other machine. Dropping it kills it.
pub(super) struct Dns {
    far_net: [String; 2],
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Dns {
    /// Answers nothing yet.
    pub(super) fn new(far: &Far) -> Self {
        Self { far_net: far.there(), directory: tempfile::tempdir().unwrap(), child: None }
    }

    /// Answers with these lines from now on, and with nothing else.
    pub(super) async fn say(&mut self, lines: &str) {
        self.kill().await;
        let file = self.directory.path().join("dnsmasq.conf");
        let config = format!(
            "no-resolv\nno-hosts\nno-poll\nuser=root\nlocal=/test/\nlocal-ttl=1\nlisten-address={RESOLVER}\n\
             bind-interfaces\nport=53\npid-file\n{lines}"
        );
        std::fs::write(&file, config).unwrap();
        let [program, net] = &self.far_net;
        let mut command = Command::new(program);
        command.args([net.as_str(), "/usr/sbin/dnsmasq", "--keep-in-foreground"]);
        command.arg(format!("--conf-file={}", file.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap());
        sleep(Duration::from_millis(100)).await;
        assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none(), "dnsmasq did not start");
    }

    /// Lists these servers as one service.
    pub(super) async fn list(&mut self, records: &[Srv]) {
        let mut lines = String::new();
        for record in records {
            let _ = writeln!(lines, "host-record=node-{0}.fleet.test,{1}", record.number, ip(record.number));
            lines += &record.line(super::SERVICE);
        }
        self.say(&lines).await;
    }

    pub(super) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }
}

/// A resolver on this machine that answers each question with what `answer` makes of it.
pub(super) async fn by_hand(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            if let Some(answer) = answer(&packet[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    at
}

/// The head of an answer to a question, its question, and so many records.
fn reply(question: &[u8], code: u8, records: u8) -> Vec<u8> {
    let name = question[12..].iter().position(|it| *it == 0).unwrap();
    let mut reply = question[..12 + name + 5].to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    reply[6..12].copy_from_slice(&[0, records, 0, 0, 0, 0]);
    reply
}

/// Says that it failed.
pub(super) fn failed(question: &[u8]) -> Option<Vec<u8>> {
    Some(reply(question, 2, 0))
}

/// Says that there is no such name.
pub(super) fn no_such_name(question: &[u8]) -> Option<Vec<u8>> {
    Some(reply(question, 3, 0))
}

/// Says of every name that it is an alias of itself.
pub(super) fn circle(question: &[u8]) -> Option<Vec<u8>> {
    let mut reply = reply(question, 0, 1);
    // The name of the question, CNAME, IN, a second, and the name of the question again.
    reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12]);
    Some(reply)
}

/// Says something that is no DNS at all.
pub(super) fn nonsense(question: &[u8]) -> Option<Vec<u8>> {
    let mut reply = reply(question, 0, 200);
    reply.extend([0xff; 900]);
    Some(reply)
}
