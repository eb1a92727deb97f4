//! What is never asked, and why: a probe must do no harm.
//!
//! Most of these would only log a strange client. Some take it badly: a
//! printer prints what it is sent, a debugger's one connection is used up, a
//! database counts it towards locking the host out.

use std::ops::RangeInclusive;

/// Ports that are not asked unless the configuration says otherwise, each with
/// the reason. A model server that really sits on one is named in `[[servers]]`.
pub const SKIP_PORTS: &[(RangeInclusive<u16>, &str)] = &[
    (1025..=1025, "test mail servers"),
    (1080..=1080, "SOCKS proxy"),
    (1099..=1099, "Java RMI registry"),
    (1433..=1434, "Microsoft SQL Server"),
    (1521..=1521, "Oracle database"),
    (1716..=1716, "KDE Connect"),
    (1883..=1883, "MQTT broker"),
    (2049..=2049, "NFS"),
    (2159..=2159, "GDB remote"),
    (2181..=2181, "ZooKeeper"),
    (2222..=2222, "SSH on another port"),
    (2331..=2331, "J-Link GDB server: one connection"),
    (2345..=2345, "Delve debugger: one connection"),
    (2375..=2377, "Docker API"),
    (2379..=2380, "etcd"),
    (3050..=3050, "Firebird database"),
    (3260..=3260, "iSCSI target"),
    (3306..=3306, "MySQL: counts broken handshakes and then blocks the host"),
    (3333..=3333, "OpenOCD GDB server: one connection"),
    (3389..=3389, "remote desktop"),
    (3632..=3632, "distcc"),
    (4369..=4369, "Erlang port mapper"),
    (4444..=4444, "OpenOCD telnet"),
    (4712..=4713, "PulseAudio"),
    (5005..=5005, "Java debugger: one connection"),
    (5037..=5037, "Android debug bridge"),
    (5060..=5061, "SIP"),
    (5222..=5222, "XMPP"),
    (5432..=5433, "PostgreSQL"),
    (5555..=5555, "Android debug bridge on a device"),
    (5671..=5672, "AMQP"),
    (5678..=5678, "Python debugger: one connection"),
    (5858..=5858, "Node.js debugger, old protocol"),
    (5900..=5983, "VNC"),
    (5984..=5984, "CouchDB"),
    (6000..=6063, "X11"),
    (6379..=6380, "Redis"),
    (6432..=6432, "PgBouncer"),
    (6443..=6443, "Kubernetes API"),
    (6660..=6669, "IRC, OpenOCD"),
    (7000..=7001, "Cassandra between nodes"),
    (7199..=7199, "Cassandra JMX"),
    (7687..=7687, "Neo4j Bolt"),
    (8787..=8787, "Java debugger of application servers: one connection"),
    (9000..=9000, "PHP FastCGI, Xdebug"),
    (9003..=9003, "Xdebug"),
    (9042..=9042, "Cassandra"),
    (9050..=9051, "Tor"),
    (9092..=9093, "Kafka"),
    (9100..=9107, "print servers: paper comes out"),
    (9160..=9160, "Cassandra Thrift"),
    (9229..=9230, "Node.js debugger"),
    (9300..=9300, "Elasticsearch between nodes"),
    (10000..=10000, "NDMP, Webmin"),
    (10248..=10259, "kubelet and its neighbours"),
    (11211..=11211, "memcached"),
    (15672..=15672, "RabbitMQ management"),
    (25672..=25672, "RabbitMQ between nodes"),
    (26379..=26379, "Redis Sentinel"),
    (27017..=27020, "MongoDB"),
    (28015..=28015, "RethinkDB"),
    (50000..=50000, "Db2, SAP"),
];

/// Programs that are something else, by the start of their name as the kernel
/// has it (cut at 15 characters).
const OTHER_PROGRAMS: &[&str] = &[
    // Debuggers and emulators: the first connection is often the only one.
    "gdbserver",
    "gdb",
    "lldb-server",
    "debugserver",
    "dlv",
    "openocd",
    "JLinkGDBServer",
    "JLinkRemote",
    "pyocd",
    "st-util",
    "probe-rs",
    "vgdb",
    "rr",
    "qemu-",
    "simavr",
    "renode",
    "adb",
    // Remote access.
    "sshd",
    "dropbear",
    "Xorg",
    "Xwayland",
    "Xvfb",
    "Xvnc",
    "Xtigervnc",
    "x11vnc",
    "vncserver",
    "wayvnc",
    "xrdp",
    "telnetd",
    // Databases and queues.
    "postgres",
    "postmaster",
    "mysqld",
    "mariadbd",
    "redis-server",
    "redis-sentinel",
    "valkey-server",
    "mongod",
    "memcached",
    "etcd",
    "beam.smp",
    "epmd",
    "mosquitto",
    "influxd",
    // Mail, names, files, printers, time, sound.
    "master",
    "exim",
    "dovecot",
    "smtpd",
    "named",
    "unbound",
    "dnsmasq",
    "systemd-",
    "avahi-daemon",
    "smbd",
    "nmbd",
    "rpcbind",
    "rpc.",
    "nfsd",
    "vsftpd",
    "proftpd",
    "rsync",
    "cupsd",
    "chronyd",
    "ntpd",
    "pulseaudio",
    "pipewire",
    // Containers themselves (what they publish is served by `docker-proxy`).
    "dockerd",
    "containerd",
    "kubelet",
    "kube-",
];

/// Whether a port may be asked unless the configuration says otherwise.
pub(super) fn may_ask_port(port: u16) -> bool {
    // Below 1024 everything has another meaning, and much of it is old and
    // takes no strangers; a model server there is behind a web server.
    (port >= 1024 || port == 80 || port == 443) && !SKIP_PORTS.iter().any(|(it, _)| it.contains(&port))
}

/// Whether a program of this name is known to be something else.
pub(super) fn is_other_program(name: &str) -> bool {
    OTHER_PROGRAMS.iter().any(|it| {
        name.strip_prefix(it).is_some_and(|rest| {
            // `gdbserver-12` and `qemu-system-x86` are; `masterpiece` is not.
            it.ends_with(['-', '.']) || !rest.starts_with(|next: char| next.is_ascii_alphabetic())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_would_take_it_badly_are_not_asked() {
        for (port, asked) in [
            (22, false),
            (80, true),
            (443, true),
            (631, false),
            (1023, false),
            (1234, true),
            (3306, false),
            (6063, false),
            (6064, true),
            (8000, true),
            (8080, true),
            (9100, false),
            (11434, true),
            (13305, true),
            (65535, true),
        ] {
            assert_eq!(may_ask_port(port), asked, "{port}");
        }
    }

    #[test]
    fn no_usual_port_of_a_kind_is_skipped() {
        for port in crate::kind::usual_ports() {
            assert!(may_ask_port(port), "{port}");
        }
    }

    #[test]
    fn the_list_is_sorted_and_has_no_doubles() {
        assert!(SKIP_PORTS.is_sorted_by(|(one, _), (other, _)| one.end() < other.start()));
    }

    #[test]
    fn programs_are_known_by_their_names() {
        for (name, other) in [
            ("gdbserver", true),
            ("gdbserver-14", true),
            ("qemu-system-x86", true),
            ("postgres", true),
            ("systemd-resolve", true),
            ("exim4", true),
            ("master", true),
            ("masterpiece", false),
            ("rrr", false),
            ("ollama", false),
            ("llama-server", false),
            ("python3", false),
            ("docker-proxy", false),
            ("ssh", false),
            ("node", false),
            ("", false),
        ] {
            assert_eq!(is_other_program(name), other, "{name}");
        }
    }
}
