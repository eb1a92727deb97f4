//! `lovablectl service` with a stand-in for `systemctl` that writes down what it is told, and
//! a supervisor that runs what was installed.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::{Signal, kill_process};
use tokio::process::Command;

use super::{
    supervisor::{Setup, Supervisor, places},
    unit::Unit,
};
use crate::lifecycle::{Home, LOVABLECTL, check, is_root, mode, output, until};

/// Waits with `--now` until the test has done what systemd would have, as the real one does
/// for a service that says when it is ready.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >> "$STAND_IN/calls"
case "$*" in
*"enable --now"*) touch "$STAND_IN/enabled"; until [ -e "$STAND_IN/active" ]; do sleep 0.05; done ;;
*"disable --now"*) rm -f "$STAND_IN/enabled"; while [ -e "$STAND_IN/active" ]; do sleep 0.05; done ;;
*is-enabled*) [ -e "$STAND_IN/enabled" ] && echo enabled || { echo disabled; exit 1; } ;;
*is-active*) [ -e "$STAND_IN/active" ] && echo active || { echo inactive; exit 3; } ;;
esac
"#;

struct StandIn {
    directory: PathBuf,
}

impl StandIn {
    fn new(home: &Home) -> Self {
        let directory = home.at("stand-in");
        fs::create_dir(&directory).unwrap();
        for (name, text) in [("systemctl", SYSTEMCTL), ("loginctl", "#!/bin/sh\necho no\n")] {
            fs::write(directory.join(name), text).unwrap();
            fs::set_permissions(directory.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        Self { directory }
    }

    fn ctl(&self, home: &Home, args: &[&str]) -> Command {
        let mut command = home.command(LOVABLECTL);
        command.arg("service").args(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.directory.display()));
        command.env("STAND_IN", &self.directory);
        command
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What systemd does on its own, done by the test.
    async fn told(&self, words: &str) {
        until(words, async || self.calls().iter().any(|it| it.contains(words)).then_some(())).await;
    }

    fn set_active(&self, active: bool) {
        let file = self.directory.join("active");
        if active { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    fn forget_calls(&self) {
        fs::remove_file(self.directory.join("calls")).unwrap();
    }
}

/// Every file and directory below a home but what belongs to the test itself.
fn files(home: &Home) -> BTreeSet<PathBuf> {
    fn walk(directory: &Path, into: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            }
            into.insert(path);
        }
    }
    let mut found = BTreeSet::new();
    walk(&home.at(""), &mut found);
    let of_the_test = [home.at("stand-in"), home.at("log"), home.at("notify")];
    found.retain(|it| !of_the_test.iter().any(|own| it.starts_with(own)));
    found
}

#[tokio::test]
async fn installed_it_runs_and_lives_again_and_uninstalled_it_leaves_nothing() {
    let home = Home::new();
    let stand_in = StandIn::new(&home);
    let before = files(&home);
    let install = || {
        let mut command = stand_in.ctl(&home, &["install"]);
        command.env("OLLAMA_HOST", "127.0.0.1:9").env("OPENAI_API_KEY", "sk \"quoted\" $x");
        command
    };
    let installing = tokio::spawn(output(install()));
    stand_in.told("enable --now").await;
    let read = |name: &str| {
        let path = home.at(format!("config/systemd/user/{name}"));
        assert_eq!(mode(&path), 0o644);
        Unit::read(&fs::read_to_string(path).unwrap(), &places(&home))
    };
    let (service, socket) = (read("lovabled.service"), read("lovabled.socket"));
    let supervisor = Supervisor::start(Setup { home: &home, service, socket: Some(socket) });
    supervisor.ready(1).await;
    stand_in.set_active(true);
    let installed = installing.await.unwrap();
    check(&installed, 0, &["lovabled answers on", "OLLAMA_HOST, OPENAI_API_KEY", "enable-linger"]);
    assert!(!format!("{installed:?}").contains("quoted"), "values are not shown");
    assert_eq!(mode(&home.at("config/lovable/environment")), 0o600);
    let settings = home.caller().get("/lovable/v1/config").await.text();
    assert!(settings.contains("OLLAMA_HOST"), "the service sees it: {settings}");
    assert_eq!(
        stand_in.calls()[..2],
        ["--user daemon-reload", "--user enable --now lovabled.socket lovabled.service"]
    );

    // Again: nothing is written and nobody is restarted.
    stand_in.forget_calls();
    let again = output(install()).await;
    check(&again, 0, &["kept", "lovabled answers on"]);
    assert!(!stand_in.calls().iter().any(|it| it.contains("restart")), "{:?}", stand_in.calls());
    check(&output(stand_in.ctl(&home, &["status"])).await, 0, &["installed  yes", "answers    yes"]);

    kill_process(supervisor.pid(), Signal::KILL).unwrap();
    supervisor.ready(2).await;
    check(&output(stand_in.ctl(&home, &["status"])).await, 0, &["active"]);

    let uninstalling = tokio::spawn(output(stand_in.ctl(&home, &["uninstall", "--purge"])));
    stand_in.told("disable --now").await;
    supervisor.stop().await;
    // RemoveOnStop= of the socket.
    fs::remove_file(home.socket()).unwrap();
    stand_in.set_active(false);
    check(&uninstalling.await.unwrap(), 0, &["lovabled is uninstalled"]);
    let left: Vec<_> = files(&home).difference(&before).cloned().collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    check(&output(stand_in.ctl(&home, &["uninstall"])).await, 0, &["was not installed"]);
    check(&output(stand_in.ctl(&home, &["status"])).await, 3, &["installed  no"]);
    check(&output(stand_in.ctl(&home, &["start"])).await, 1, &["not installed"]);
}

#[tokio::test]
async fn what_a_person_added_to_the_variables_stays() {
    let home = Home::new();
    let stand_in = StandIn::new(&home);
    stand_in.set_active(true);
    let environment = home.at("config/lovable/environment");
    fs::write(&environment, "# my own\nMINE=1\n").unwrap();
    let mut command = stand_in.ctl(&home, &["install", "--on-demand"]);
    command.env("OLLAMA_HOST", "127.0.0.1:9");
    check(&output(command).await, 0, &["does not answer yet", "journalctl --user -u lovabled"]);
    let text = fs::read_to_string(&environment).unwrap();
    assert!(text.contains("# my own\nMINE=1\n") && text.contains("OLLAMA_HOST=\"127.0.0.1:9\""), "{text}");
    let calls = stand_in.calls();
    assert!(calls.contains(&"--user disable lovabled.service".to_owned()), "{calls:?}");
    assert!(calls.contains(&"--user enable --now lovabled.socket".to_owned()), "{calls:?}");
    stand_in.set_active(false);
    check(&output(stand_in.ctl(&home, &["uninstall"])).await, 0, &["lovabled is uninstalled"]);
    assert_eq!(fs::read_to_string(&environment).unwrap(), "# my own\nMINE=1\n");
}

#[tokio::test]
async fn it_says_what_is_in_the_way() {
    let home = Home::new();
    let mut without = home.command(LOVABLECTL);
    without.args(["service", "install"]).env("PATH", home.at("nothing"));
    check(&output(without).await, 1, &["cannot run systemctl", "lovabled --daemonize"]);
    let stand_in = StandIn::new(&home);
    let mut elsewhere = stand_in.ctl(&home, &["install"]);
    elsewhere.env("LOVABLE_SOCKET", "/tmp/x");
    check(&output(elsewhere).await, 2, &["unset LOVABLE_SOCKET"]);
    let running = home.start(&[]).await;
    check(&output(stand_in.ctl(&home, &["install"])).await, 1, &["no service runs already", "kill"]);
    running.stop().await;
    home.configure("[limitz]\n");
    check(&output(stand_in.ctl(&home, &["install"])).await, 2, &["limitz"]);
    if is_root() {
        let mut sudo = stand_in.ctl(&home, &["install"]);
        sudo.env("SUDO_USER", "ada");
        check(&output(sudo).await, 2, &["run it as ada, without sudo"]);
    }
    fs::write(
        stand_in.directory.join("systemctl"),
        "#!/bin/sh\necho 'Failed to connect to bus: x' >&2; exit 1\n",
    )
    .unwrap();
    home.configure("");
    check(&output(stand_in.ctl(&home, &["install"])).await, 1, &["connect to bus", "loginctl enable-linger"]);
}
