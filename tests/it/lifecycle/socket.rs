//! The socket: private, taken over when stale, never taken from anybody.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::lifecycle::{Home, LOVABLED, check, curl_as_nobody, is_root, mode, output, until};

#[tokio::test]
async fn what_it_makes_is_private_whatever_the_umask() {
    for umask in ["000", "777"] {
        let home = Home::new();
        let mut command = home.command("sh");
        command.args(["-c", "umask $1; exec $0", LOVABLED, umask]);
        let running = home.spawn(command);
        let running = home.answering(running, &home.socket()).await;
        assert_eq!(mode(&home.socket()), 0o600, "umask {umask}");
        assert_eq!(mode(home.socket().parent().unwrap()), 0o700, "umask {umask}");
        let state = all(&home.state());
        assert!(state.len() > 5, "{state:?}");
        for path in state {
            assert_eq!(mode(&path) & 0o077, 0, "umask {umask}: {}", path.display());
            assert_eq!(mode(&path) & 0o600, 0o600, "umask {umask}: {}", path.display());
        }
        running.stop().await;
    }
}

/// A directory and everything in it.
fn all(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        found.extend(fs::read_dir(path).unwrap().flat_map(|it| all(&it.unwrap().path())));
    }
    found
}

#[tokio::test]
async fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
    let home = Home::new();
    home.start(&[]).await.kill().await;
    assert!(home.socket().exists());
    let running = home.start(&[]).await;
    let socket = home.socket().display().to_string();
    // Its own state directory: the socket alone is in the way.
    for more in [&[][..], &["--daemonize"]] {
        let args = [&["--state-dir", "elsewhere"], more].concat();
        check(&output(home.lovabled(&args)).await, 5, &["already running", &socket]);
        assert_eq!(home.caller().get("/healthz").await.status, 200);
    }
    running.stop().await;
    assert!(!home.socket().exists());
}

#[tokio::test]
async fn of_many_that_start_at_once_one_stays() {
    let home = Home::new();
    // A stale socket is there for all of them to find.
    home.start(&[]).await.kill().await;
    let mut all: Vec<_> = (0..6).map(|_| home.spawn(home.lovabled(&[]))).collect();
    until("all but one have left", async || {
        all.retain_mut(|it| match it.0.try_wait().unwrap() {
            None => true,
            Some(status) => {
                assert_eq!(status.code(), Some(5), "{}", home.log());
                false
            }
        });
        (all.len() <= 1).then_some(())
    })
    .await;
    let last = home.answering(all.pop().expect("one stays"), &home.socket()).await;
    assert_eq!(home.status().await["pid"], last.pid().as_raw_nonzero().get());
    last.stop().await;
}

#[tokio::test]
async fn what_is_in_the_way_of_a_socket_is_left_alone_and_named() {
    let home = Home::new();
    let long = format!("{}/{}", home.0.path().display(), "x".repeat(120));
    check(&output(home.lovabled(&["--socket", &long])).await, 2, &["bytes", "--socket", &long]);
    let long = format!("/{}", "x".repeat(120));
    check(&output(home.lovabled(&["--socket", &long])).await, 2, &["bytes", "--socket"]);

    let file = home.at("file");
    fs::write(&file, "precious").unwrap();
    check(&output(home.lovabled(&["--socket", "file"])).await, 1, &["is no socket", "file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let directory = home.at("run/lovable");
    fs::create_dir(home.at("elsewhere")).unwrap();
    symlink(home.at("elsewhere"), &directory).unwrap();
    check(&output(home.lovabled(&[])).await, 1, &["symbolic link", "run/lovable"]);
    fs::remove_file(&directory).unwrap();

    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    check(&output(home.lovabled(&[])).await, 1, &["not safe", "0777"]);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
        check(&output(home.lovabled(&[])).await, 1, &["belongs to user 65534"]);
    }
    assert_eq!(fs::read_dir(home.at("elsewhere")).unwrap().count(), 0);
}

#[tokio::test]
async fn another_user_gets_nothing_and_root_gets_in() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let running = home.start(&[]).await;
    let socket = home.socket().display().to_string();
    let ask = || curl_as_nobody(&home, &["--unix-socket", &socket, "http://localhost/healthz"]);
    let answer = output(ask()).await;
    assert_eq!((answer.status.code(), answer.stdout.len()), (Some(7), 0), "{answer:?}");

    // Even if somebody opens every door, the daemon itself looks who comes.
    for path in [home.0.path(), &home.at("run"), &home.at("run/lovable"), &home.socket()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let answer = output(ask()).await;
    assert!(!answer.status.success() && answer.stdout.is_empty(), "{answer:?}");
    assert!(home.log().contains("turned away"), "{}", home.log());
    running.stop().await;

    // And the other way round: another user's daemon, and root who asks.
    let home = Home::new();
    let binary = home.at("lovabled");
    fs::copy(LOVABLED, &binary).unwrap();
    for path in all(home.0.path()) {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = home.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
    let running = home.spawn(command);
    home.answering(running, &home.socket()).await.stop().await;
}

#[tokio::test]
async fn an_inherited_socket_is_used_and_left_to_whoever_made_it() {
    let home = Home::new();
    let path = home.at("inherited.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for round in 0..2 {
        // As systemd has it: the socket is descriptor 3, and LISTEN_PID the one who may take it.
        let mut command = home.command("sh");
        let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec $0 --socket other.sock";
        command.args(["-c", script, LOVABLED]);
        command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        // Whoever comes before the daemon waits in the queue of the socket.
        let running = home.spawn(command);
        let caller = crate::caller::Caller::unix(&path);
        let status = caller.get("/lovable/v1/status").await.json();
        assert_eq!(status["socket"], path.display().to_string(), "round {round}");
        assert!(!home.at("other.sock").exists());
        running.stop().await;
        assert!(path.exists(), "round {round}");
    }
}
