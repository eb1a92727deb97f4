//! Which database, as a person writes it.
//!
//! No message repeats what was written: there may be a password in it.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

/// Where a database is when nobody says at which port.
const PORT: u16 = 5432;
/// Where its Unix socket is when nobody names a host: as Debian and as PostgreSQL itself have it.
const SOCKETS: [&str; 2] = ["/run/postgresql", "/tmp"];
/// What can be said behind the `?`, besides how it is encrypted.
const PARAMETERS: [&str; 9] = [
    "user",
    "password",
    "dbname",
    "host",
    "port",
    "options",
    "application_name",
    "connect_timeout",
    "target_session_attrs",
];

/// A database, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// For whom it is, and the password.
    pub(super) login: Config,
    /// Where it may be; one is as good as another.
    pub(super) hosts: Vec<Address>,
    pub(super) encryption: Encryption,
    /// Who vouches for it, in place of the usual authorities.
    pub(super) authorities: Option<PathBuf>,
    name: String,
}

/// Where a database listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String, u16),
    Socket(PathBuf),
}

impl Address {
    /// Whether nobody but this machine sees what goes there.
    pub(super) fn is_here(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Tcp(host, _) => {
                host == "localhost" || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
            }
        }
    }
}

/// Whether a connection is encrypted. Where it is, the other end has to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Beyond this machine.
    Sensible,
    Never,
    /// Where the other end can.
    Possible,
    Always,
}

impl Database {
    /// Reads `postgres://user:password@host:port/database?sslmode=…`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        if !["postgres://", "postgresql://"].iter().any(|it| url.starts_with(it)) {
            return Err(format!("must be {EXPECTED}"));
        }
        let (front, query) = url.split_once('?').unwrap_or((url, ""));
        // The second one would make a host of half a password.
        if front.matches('@').count() > 1 {
            return Err(format!("must be {EXPECTED}"));
        }
        let (mut encryption, mut authorities, mut left) = (Encryption::Sensible, None, Vec::new());
        for pair in query.split('&').filter(|it| !it.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
            match key {
                "sslmode" => {
                    encryption = match &*value() {
                        "disable" => Encryption::Never,
                        "allow" | "prefer" => Encryption::Possible,
                        "require" | "verify-ca" | "verify-full" => Encryption::Always,
                        _ => {
                            return Err(
                                "has an `sslmode` that is none of disable, prefer, require".to_owned()
                            );
                        }
                    }
                }
                "sslrootcert" if value() == "system" => {}
                "sslrootcert" if Path::new(&value()).is_absolute() => authorities = Some(value().into()),
                "sslrootcert" => return Err("needs the full path of a file for `sslrootcert`".to_owned()),
                _ if PARAMETERS.contains(&key) => left.push(pair),
                _ => {
                    let known = PARAMETERS.join(", ");
                    return Err(format!("has an unknown parameter; known: sslmode, sslrootcert, {known}"));
                }
            }
        }
        // The library's own words may be part of a password that was not written as it must be.
        let mut login = Config::from_str(&format!("{front}?{}", left.join("&")))
            .map_err(|_| format!("must be {EXPECTED}"))?;
        login.ssl_mode(SslMode::Disable);
        if login.get_application_name().is_none() {
            login.application_name("lovabled");
        }
        let hosts = addresses(&login)?;
        let name = name(&login, &hosts);
        Ok(Self { login, hosts, encryption, authorities, name })
    }

    /// What it is called where people see it, and where it is told from another: host, port and
    /// database. No secret is in it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a password is written down in it.
    pub fn has_password(&self) -> bool {
        self.login.get_password().is_some()
    }

    /// How it is shown: as it is written, without the password.
    pub fn shown(&self) -> String {
        let user = self.login.get_user().map_or(String::new(), |it| format!("{it}@"));
        let mode = match self.encryption {
            Encryption::Sensible => "",
            Encryption::Never => "?sslmode=disable",
            Encryption::Possible => "?sslmode=prefer",
            Encryption::Always => "?sslmode=require",
        };
        format!("postgres://{user}{}{mode}", self.name)
    }
}

/// What is expected, after "must be".
pub const EXPECTED: &str = "an address such as \"postgres://user:password@host/database\" (in a password write @ as %40, / as %2F, ? as %3F, # as %23, % as %25)";

fn addresses(login: &Config) -> Result<Vec<Address>, String> {
    let ports = login.get_ports();
    let hosts = login.get_hosts();
    if hosts.is_empty() {
        let port = ports.first().copied().unwrap_or(PORT);
        return Ok(SOCKETS.iter().map(|it| socket(Path::new(it), port)).collect());
    }
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err("must have one port, or one for each host".to_owned());
    }
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(PORT);
    let address = |(at, host): (usize, &Host)| match host {
        Host::Tcp(host) => Address::Tcp(host.clone(), port(at)),
        Host::Unix(directory) => socket(directory, port(at)),
    };
    Ok(hosts.iter().enumerate().map(address).collect())
}

fn socket(directory: &Path, port: u16) -> Address {
    Address::Socket(directory.join(format!(".s.PGSQL.{port}")))
}

fn name(login: &Config, hosts: &[Address]) -> String {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|it| match it {
            Address::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Socket(path) => path.display().to_string(),
        })
        .collect();
    let database = login.get_dbname().or(login.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_read_and_shown_without_its_password() {
        for (url, shown) in [
            ("postgres://ann:s3cr3t@db.example/team", "postgres://ann@db.example:5432/team"),
            ("postgresql://ann@[::1]:6000/team", "postgres://ann@[::1]:6000/team"),
            (
                "postgres://ann@a,b:7/team?password=s3cr3t&sslmode=verify-full",
                "postgres://ann@a:5432,b:7/team?sslmode=require",
            ),
            ("postgres://ann@%2Frun%2Fpg:5433/team", "postgres://ann@/run/pg/.s.PGSQL.5433/team"),
            ("postgres:///team", "postgres:///run/postgresql/.s.PGSQL.5432,/tmp/.s.PGSQL.5432/team"),
            ("postgres://ann:s3cr3t@db.example", "postgres://ann@db.example:5432/ann"),
        ] {
            let read = Database::parse(url).unwrap();
            assert_eq!(read.shown(), shown, "{url}");
            assert!(!format!("{read:?}").contains("s3cr3t"));
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_repeated() {
        for url in [
            "db.example/team",
            "mysql://ann:s3cr3t@db.example/team",
            "postgres://ann:s3cr3t?x@db.example/team",
            "postgres://ann:p@s3cr3t@db.example/team",
            "postgres://ann:s3cr3t@db.example:port/team",
            "postgres://ann:s3cr3t@db.example/team?sslmode=s3cr3t",
            "postgres://ann:s3cr3t@db.example/team?s3cr3t=1",
            "postgres://ann:s3cr3t@db.example/team?sslrootcert=s3cr3t.pem",
            "postgres://ann:s3cr3t@a,b,c/team?port=1,2",
        ] {
            let why = Database::parse(url).unwrap_err();
            assert!(!why.contains("s3cr3t"), "{url}: {why}");
        }
    }

    #[test]
    fn what_stays_on_this_machine_needs_no_encryption() {
        let is_here = |url: &str| Database::parse(url).unwrap().hosts.iter().all(Address::is_here);
        assert!(is_here("postgres://localhost/a") && is_here("postgres://127.0.0.1/a"));
        assert!(is_here("postgres://[::1]/a") && is_here("postgres:///a"));
        assert!(!is_here("postgres://db.example/a") && !is_here("postgres://localhost,db.example/a"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_password_is_never_shown(password in "[!-~]{8,20}") {
            let written = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
            let read = Database::parse(&format!("postgres://u:{written}@h/d")).unwrap();
            prop_assert_eq!(read.login.get_password(), Some(password.as_bytes()));
            let shown = format!("{read:?} {} {}", read.shown(), read.name());
            prop_assert!(!shown.contains(&password));
            // As it is, it may be anything, and still does not come back.
            let raw = Database::parse(&format!("postgres://u:{password}@h/d"));
            if let Err(why) = raw {
                prop_assert!(!why.contains(&password));
            }
        }
    }
}
