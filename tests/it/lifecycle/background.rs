//! `--daemonize`: the parent knows how it went.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{
    caller::Caller,
    lifecycle::{Home, LOVABLED, check, is_root, mode, output, until},
};

/// A daemon that is nobody's child; killed when the test is over, however it ends.
struct Detached(Pid);

impl Detached {
    fn of(pid_file: &Path) -> Self {
        let text = fs::read_to_string(pid_file).unwrap();
        Self(Pid::from_raw(text.trim().parse().unwrap()).unwrap())
    }

    async fn gone(self) {
        until("the daemon is gone", async || self.is_gone().then_some(())).await;
        // Its number may be another's by now.
        std::mem::forget(self);
    }

    fn is_gone(&self) -> bool {
        // In a container nobody may be there to bury it.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero()));
        test_kill_process(self.0).is_err() || stat.is_ok_and(|it| it.contains(") Z "))
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[tokio::test]
async fn the_parent_returns_once_requests_are_answered_and_relative_paths_hold() {
    let home = Home::new();
    let args =
        ["--daemonize", "--socket", "s", "--state-dir", "kept", "--pid-file", "pid", "--log-file", "l"];
    // Its output ends with it: the daemon holds on to nothing of ours.
    let launched = output(home.lovabled(&args)).await;
    let socket = home.at("s").display().to_string();
    check(&launched, 0, &["lovabled answers on", &socket]);
    let caller = Caller::unix(home.at("s"));
    // No second try: it is there when the parent says so.
    let status = caller.get("/lovable/v1/status").await.json();
    let daemon = Detached::of(&home.at("pid"));
    assert_eq!(status["pid"], daemon.0.as_raw_nonzero().get());
    assert_eq!(status["socket"], socket);
    assert_eq!(status["store"]["path"], home.at("kept").display().to_string());
    let place = format!("/proc/{}/cwd", daemon.0.as_raw_nonzero());
    if Path::new("/proc/self/cwd").exists() {
        assert_eq!(fs::read_link(place).unwrap(), Path::new("/"));
    }

    // A log that was moved away is begun anew.
    let (log, old) = (home.at("l"), home.at("l.1"));
    assert!(fs::read_to_string(&log).unwrap().contains("lovabled"));
    fs::rename(&log, &old).unwrap();
    kill_process(daemon.0, Signal::USR1).unwrap();
    until("the log is opened again", async || log.exists().then_some(())).await;
    kill_process(daemon.0, Signal::HUP).unwrap();
    until("the new log is written", async || {
        fs::read_to_string(&log).unwrap().contains("configuration").then_some(())
    })
    .await;
    assert!(!fs::read_to_string(&old).unwrap().contains("configuration"));

    check(&output(home.lovabled(&args)).await, 5, &["already running", &socket]);
    let elsewhere = ["--daemonize", "--socket", "s2", "--state-dir", "k2", "--pid-file", "pid"];
    check(&output(home.lovabled(&elsewhere)).await, 5, &["pid file", "pid"]);
    assert!(!home.at("s2").exists());
    let pid = format!("{}\n", daemon.0.as_raw_nonzero());
    assert_eq!(fs::read_to_string(home.at("pid")).unwrap(), pid);
}

#[tokio::test]
async fn a_daemon_in_the_background_stops_as_one_in_the_foreground() {
    let home = Home::new();
    let args = ["--daemonize", "--pid-file", "pid", "--log-file", "l"];
    check(&output(home.lovabled(&args)).await, 0, &[]);
    let daemon = Detached::of(&home.at("pid"));
    kill_process(daemon.0, Signal::TERM).unwrap();
    daemon.gone().await;
    assert!(!home.socket().exists());
    assert!(!home.at("pid").exists());
    assert!(fs::read_to_string(home.at("l")).unwrap().contains("stopped"));
}

#[tokio::test]
async fn the_parent_says_why_there_is_no_daemon() {
    let home = Home::new();
    let nowhere = ["--daemonize", "--log-file", "nowhere/l"];
    check(&output(home.lovabled(&nowhere)).await, 1, &["log file", "nowhere/l"]);
    let nowhere = ["--daemonize", "--pid-file", "nowhere/p"];
    check(&output(home.lovabled(&nowhere)).await, 1, &["pid file", "nowhere/p"]);
    check(&output(home.lovabled(&["--pid-file", "p"])).await, 2, &["--daemonize"]);

    // What only the daemon itself can find out, after the fork.
    let running = home.start(&[]).await;
    let held = ["--daemonize", "--socket", "other", "--pid-file", "pid", "--log-file", "l"];
    let state = home.state().display().to_string();
    let pid = format!("process {}", running.pid().as_raw_nonzero());
    check(&output(home.lovabled(&held)).await, 5, &["in use", &state, &pid]);
    assert!(!home.at("other").exists() && !home.at("pid").exists());
    running.stop().await;

    home.configure("[limitz]\nbody = \"1MiB\"\n");
    check(&output(home.lovabled(&["--daemonize"])).await, 2, &["limitz", "limits"]);
}

#[tokio::test]
async fn of_many_starts_at_once_one_becomes_the_daemon_and_the_others_say_where_it_is() {
    let home = Home::new();
    // What a daemon left that was killed, and a number that is nobody's.
    fs::write(home.at("pid"), "4194305\n").unwrap();
    let args = ["--daemonize", "--pid-file", "pid", "--log-file", "l"];
    let starts: Vec<_> = (0..6).map(|_| tokio::spawn(output(home.lovabled(&args)))).collect();
    let mut started = 0;
    for start in starts {
        let ended = start.await.unwrap();
        match ended.status.code() {
            Some(0) => started += 1,
            _ => check(&ended, 5, &["already running", &home.socket().display().to_string()]),
        }
    }
    assert_eq!(started, 1, "{:?}", fs::read_to_string(home.at("l")));
    let daemon = Detached::of(&home.at("pid"));
    assert_eq!(home.status().await["pid"], daemon.0.as_raw_nonzero().get());
    kill_process(daemon.0, Signal::TERM).unwrap();
    daemon.gone().await;
}

#[tokio::test]
async fn nothing_that_it_makes_is_for_others_to_read_whatever_the_umask() {
    let home = Home::new();
    let mut command = home.command("sh");
    let script = "umask 000; exec \"$0\" --daemonize --pid-file pid --log-file l";
    command.args(["-c", script, LOVABLED]);
    check(&output(command).await, 0, &[]);
    let daemon = Detached::of(&home.at("pid"));
    let made = ["pid", "l", "run/lovable", "run/lovable/lovabled.sock", "state/lovable"];
    for name in made {
        assert_eq!(mode(&home.at(name)) & 0o077, 0, "{name}: {:o}", mode(&home.at(name)));
    }
    kill_process(daemon.0, Signal::TERM).unwrap();
    daemon.gone().await;
}

#[tokio::test]
async fn a_full_disk_keeps_nobody_from_asking() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    fs::create_dir(home.at("full")).unwrap();
    let full = |args: &[&str]| {
        let script =
            "mount -t tmpfs -o size=64k none full; head -c 1M /dev/zero 2>&- >full/zeros; exec \"$@\"";
        let mut command = home.command("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", LOVABLED, "--daemonize"]).args(args);
        command
    };
    let no_room = output(full(&["--pid-file", "full/pid"])).await;
    check(&no_room, 1, &["pid file", "full/pid", "No space left"]);
    assert!(!home.socket().exists());
    let args = ["--log-file", "full/l", "--state-dir", "full/state", "--pid-file", "pid"];
    check(&output(full(&args)).await, 0, &[]);
    let daemon = Detached::of(&home.at("pid"));
    let status = home.status().await;
    assert_eq!(status["store"]["ok"], false, "{status:#}");
    assert!(status["reasons"].to_string().contains("No space left"), "{status:#}");
    kill_process(daemon.0, Signal::TERM).unwrap();
    daemon.gone().await;
}
