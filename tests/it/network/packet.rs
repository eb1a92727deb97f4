//! Packets of multicast DNS, written by hand: what no library would say.

use std::net::IpAddr;

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const IN: u16 = 1;
/// Whoever has kept other records of that name is to forget them.
const FLUSH: u16 = 0x8001;

/// A service, as somebody says that it is.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) kind: &'static str,
    /// The first label of its name.
    pub(super) name: Vec<u8>,
    pub(super) host: String,
    pub(super) ips: Vec<IpAddr>,
    pub(super) port: u16,
    pub(super) text: Vec<u8>,
}

impl Service {
    pub(super) fn new(name: &str, ip: &str, port: u16) -> Self {
        Self {
            kind: "_ollama",
            name: name.as_bytes().to_vec(),
            host: format!("{name}-host").replace([' ', '.'], "-"),
            ips: vec![ip.parse().unwrap()],
            port,
            text: b"\x09version=1".to_vec(),
        }
    }

    /// The one packet that announces all of it.
    pub(super) fn packet(&self) -> Vec<u8> {
        let ty = labels(&[self.kind.as_bytes(), b"_tcp", b"local"]);
        let name = labels(&[&self.name, self.kind.as_bytes(), b"_tcp", b"local"]);
        let host = labels(&[self.host.as_bytes(), b"local"]);
        let mut srv = vec![0, 0, 0, 0];
        srv.extend(self.port.to_be_bytes());
        srv.extend(&host);
        let mut records = vec![
            record(&ty, PTR, IN, &name),
            record(&name, SRV, FLUSH, &srv),
            record(&name, TXT, FLUSH, &self.text),
        ];
        for ip in &self.ips {
            records.push(match ip {
                IpAddr::V4(ip) => record(&host, A, FLUSH, &ip.octets()),
                IpAddr::V6(ip) => record(&host, AAAA, FLUSH, &ip.octets()),
            });
        }
        let mut packet = vec![0, 0, 0x84, 0, 0, 0];
        packet.extend((records.len() as u16).to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(records.concat());
        packet
    }
}

fn record(name: &[u8], sort: u16, class: u16, data: &[u8]) -> Vec<u8> {
    let mut record = name.to_vec();
    record.extend(sort.to_be_bytes());
    record.extend(class.to_be_bytes());
    record.extend(120u32.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

fn labels(parts: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::new();
    for part in parts {
        name.push(part.len() as u8);
        name.extend(*part);
    }
    name.push(0);
    name
}
