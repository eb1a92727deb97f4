//! What systemd itself says of the units, where its tools are installed.

use std::{fs, path::Path, process::Output};

use crate::lifecycle::{Home, LOVABLED, check, output};

/// The most that `systemd-analyze security` may hold against the unit of the system. What is
/// left is the network, the owners of other sockets, and the table of sockets: its work.
const EXPOSURE: f64 = 1.5;

/// Copies the units of a scope, with the built daemon in them.
fn copy(home: &Home, scope: &str) -> Vec<String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(scope);
    let mut copied = Vec::new();
    for name in ["lovabled.service", "lovabled.socket"] {
        let text = fs::read_to_string(from.join(name)).unwrap();
        let path = home.at(name);
        fs::write(&path, text.replace("ExecStart=lovabled", &format!("ExecStart={LOVABLED}"))).unwrap();
        copied.push(path.display().to_string());
    }
    copied
}

async fn analyze(home: &Home, args: &[&str]) -> Option<Output> {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        eprintln!("left out: there is no systemd-analyze");
        return None;
    }
    let mut command = home.command("systemd-analyze");
    command.args(args);
    Some(output(command).await)
}

#[tokio::test]
async fn systemd_finds_no_fault_with_the_units() {
    for (scope, flag) in [("system", "--system"), ("user", "--user")] {
        let home = Home::new();
        let units = copy(&home, scope);
        let args = [&["verify", "--man=no", flag][..], &[&units[0], &units[1]]].concat();
        let Some(verified) = analyze(&home, &args).await else { return };
        check(&verified, 0, &[]);
        assert_eq!(String::from_utf8_lossy(&verified.stderr), "", "{scope}");
    }
}

#[tokio::test]
async fn the_unit_of_the_system_is_hardened() {
    let home = Home::new();
    let units = copy(&home, "system");
    let args = ["security", "--offline=true", "--no-pager", "--threshold=100", &units[0]];
    let Some(judged) = analyze(&home, &args).await else { return };
    check(&judged, 0, &[]);
    let text = String::from_utf8_lossy(&judged.stdout);
    let line = text.lines().find(|it| it.contains("Overall exposure level")).unwrap();
    let level: f64 = line.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(level <= EXPOSURE, "{text}");
}

/// Both units say the same of how it is stopped and started again.
#[test]
fn the_units_give_running_answers_their_time() {
    for scope in ["system", "user"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("systemd/{scope}/lovabled.service"));
        let text = fs::read_to_string(path).unwrap();
        for line in [
            "Type=notify",
            "TimeoutStopSec=40",
            "Restart=on-failure",
            "RestartPreventExitStatus=2 5",
            "RuntimeDirectory=lovable",
            "RuntimeDirectoryPreserve=yes",
            "LimitCORE=0",
        ] {
            assert!(text.lines().any(|it| it == line), "{scope}: {line}");
        }
    }
}
