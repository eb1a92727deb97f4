//! A PostgreSQL of the test's own: on a directory and a free port, run as a user who may.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// What the user `ann` shows.
pub(super) const PASSWORD: &str = "s3cr3t/of@ann";
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Cluster {
    programs: PathBuf,
    /// PostgreSQL does not run as root.
    user: Option<(u32, u32)>,
    directory: TempDir,
    port: u16,
    postmaster: Option<Child>,
}

impl Cluster {
    /// Makes a new one with a user `ann` and a database `team` of hers, and starts it.
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let user = rustix::process::getuid().is_root().then(|| (id("-u"), id("-g")));
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Self { programs: programs(), user, directory, port, postmaster: None };
        let password = cluster.directory.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let made = cluster
            .program("initdb")
            .args(["--no-sync", "--auth=scram-sha-256", "--username=ann", "--encoding=UTF8", "--no-locale"])
            .arg(format!("--pwfile={}", password.display()))
            .args(["-D".as_ref(), cluster.data().as_os_str()])
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster.start_again().await;
        cluster.ask_in("postgres", "create database team").await;
        cluster
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.directory.path()).env("PGPASSWORD", PASSWORD).env("LC_ALL", "C");
        command.kill_on_drop(true).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// How a daemon is told of one of its databases.
    pub(super) fn url(&self, database: &str) -> String {
        let password = PASSWORD.replace('/', "%2F").replace('@', "%40");
        format!("postgres://ann:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Starts it and waits until it answers.
    pub(super) async fn start_again(&mut self) {
        let start = Instant::now();
        loop {
            // After a kill the one before may still be at its end.
            if self.postmaster.as_mut().is_none_or(|it| it.try_wait().unwrap().is_some()) {
                let mut command = self.program("postgres");
                command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
                command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                self.postmaster = Some(command.spawn().unwrap());
            }
            if self.try_ask("postgres", "select 1").await.is_ok() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "PostgreSQL does not start");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has it encrypt connections as `localhost`; says in which file its certificate is.
    pub(super) async fn encrypt(&self) -> PathBuf {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = self.data().join("server.key");
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let certificate = self.data().join("server.crt");
        fs::write(&certificate, made.cert.pem()).unwrap();
        if let Some((uid, gid)) = self.user {
            chown(&key, Some(uid), Some(gid)).unwrap();
            chown(&certificate, Some(uid), Some(gid)).unwrap();
        }
        self.ask("alter system set ssl = on").await;
        self.ask("select pg_reload_conf()").await;
        certificate
    }

    /// Kills it as the kernel would.
    pub(super) async fn kill(&mut self) {
        let mut postmaster = self.postmaster.take().unwrap();
        postmaster.kill().await.unwrap();
    }

    /// Stops it and all of its processes where they are, or has them go on.
    pub(super) fn signal(&self, signal: Signal) {
        let postmaster = self.postmaster.as_ref().and_then(Child::id).unwrap();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let all = children.split_whitespace().map(|it| it.parse().unwrap()).chain([postmaster]);
        for pid in all {
            // One of them may have ended by now.
            let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
        }
    }

    /// What a query in `team` answers: fields by `|`, rows by line.
    pub(super) async fn ask(&self, query: &str) -> String {
        self.ask_in("team", query).await
    }

    pub(super) async fn ask_in(&self, database: &str, query: &str) -> String {
        self.try_ask(database, query).await.unwrap()
    }

    async fn try_ask(&self, database: &str, query: &str) -> Result<String, String> {
        let mut command = self.program("psql");
        command.arg("-h").arg(self.directory.path()).args(["-p", &self.port.to_string()]);
        let output =
            command.args(["-U", "ann", "-XqAt", "-d", database, "-c", query]).output().await.unwrap();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its other processes end with it, also those that were stopped.
        if self.postmaster.is_some() {
            self.signal(Signal::CONT);
        }
    }
}

fn id(of: &str) -> u32 {
    let output = std::process::Command::new("id").args([of, "postgres"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("there is a user postgres")
}

/// Where Debian has them: of the newest version.
fn programs() -> PathBuf {
    let mut all: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed: apt-get install postgresql")
        .map(|it| it.unwrap().path().join("bin"))
        .filter(|it: &PathBuf| Path::new(it).join("initdb").exists())
        .collect();
    all.sort();
    all.pop().expect("there is an initdb")
}
