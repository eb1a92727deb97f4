//! The daemon under a service manager that believes what it is told.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use lovable::simulate::{Offer, Script, Shape, Simulated};
use rustix::process::{Signal, kill_process};
use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};

use super::{
    supervisor::{Setup, Supervisor, places},
    unit::Unit,
};
use crate::{
    caller::Verdict,
    lifecycle::{Home, LOVABLED, check, until, upgrade::keep_asking},
    proof::{Table, times},
};

const SERVICE: &str = include_str!("../../../systemd/user/lovabled.service");
const SOCKET: &str = include_str!("../../../systemd/user/lovabled.socket");

/// The units of a user, with the built daemon in them.
fn units(home: &Home) -> Setup<'_> {
    let service = Unit::read(SERVICE, &places(home)).set("ExecStart", LOVABLED);
    Setup { home, service, socket: Some(Unit::read(SOCKET, &places(home))) }
}

async fn server(name: &str) -> Simulated {
    let script = Script { models: vec![Offer::named(name)], ..Script::default() };
    Simulated::start(Shape::Vllm, script).await.unwrap()
}

#[tokio::test]
async fn ready_is_said_when_requests_are_answered_and_servers_were_looked_for() {
    let server = server("one").await;
    let home = Home::with(&server);
    let supervisor = Supervisor::start(units(&home));
    supervisor.ready(1).await;
    // No second try: what was there is known when it says so.
    let answer = home.caller().chat("one", false).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{}", answer.text());
    assert_eq!(
        supervisor.said(),
        [
            "STATUS=opening the store",
            "STATUS=looking for model servers",
            "READY=1\nSTATUS=1 model on 1 server"
        ]
    );
    supervisor.stop().await;
    assert_eq!(supervisor.said().last().unwrap(), "STOPPING=1\nSTATUS=stopping");
    assert!(supervisor.ended().unwrap().success());
    // The socket is the manager's.
    assert!(home.socket().exists());
}

#[tokio::test]
async fn nobody_who_takes_a_connection_and_says_nothing_keeps_it_from_being_ready() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    home.configure(&format!("[[servers]]\nurl = \"http://{}\"\n", silent.local_addr().unwrap()));
    let begun = Instant::now();
    let supervisor = Supervisor::start(units(&home));
    supervisor.ready(1).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    supervisor.stop().await;
}

#[tokio::test]
async fn the_line_for_people_follows_the_servers_and_says_nothing_twice() {
    let (one, two) = (server("one").await, server("two").await);
    let home = Home::with(&one);
    let supervisor = Supervisor::start(units(&home));
    supervisor.ready(1).await;
    sleep(Duration::from_millis(1500)).await;
    let said = supervisor.said();
    assert_eq!(said.len(), 3, "nothing has changed: {said:?}");
    check(&home.ctl(&["servers", "add", &two.endpoint().to_string()]).await, 0, &[]);
    let says = async |line: &str| {
        until(line, async || (supervisor.said().last().unwrap() == line).then_some(())).await;
    };
    says("STATUS=2 models on 2 servers").await;
    two.stop().await;
    check(&home.ctl(&["servers", "probe"]).await, 0, &[]);
    says("STATUS=1 model on 1 server, 1 down").await;
    supervisor.stop().await;
}

#[tokio::test]
async fn a_stopped_daemon_gives_no_sign_of_life_and_is_replaced_without_a_lost_request() {
    let server = server("one").await;
    let home = Home::with(&server);
    let mut setup = units(&home);
    setup.service = setup.service.set("WatchdogSec", "2");
    let supervisor = Supervisor::start(setup);
    supervisor.ready(1).await;
    until("there were signs of life", async || {
        (supervisor.told().iter().filter(|it| *it == "WATCHDOG=1").count() >= 3).then_some(())
    })
    .await;
    assert_eq!(supervisor.lives(), 1);
    kill_process(supervisor.pid(), Signal::STOP).unwrap();
    // A signal takes its time on a busy machine.
    let status = format!("/proc/{}/status", supervisor.pid().as_raw_nonzero());
    let stands = || fs::read_to_string(&status).is_ok_and(|it| it.contains("State:\tT"));
    until("it stands still", async || stands().then_some(())).await;
    // It waits in the queue of the socket for whoever comes.
    let answer = home.caller().chat("one", true).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{}", answer.text());
    assert_eq!(supervisor.lives(), 2, "{:?}", supervisor.told());
    assert!(supervisor.told().contains(&"(no sign of life)".to_owned()));
    supervisor.stop().await;
}

#[tokio::test]
async fn what_crashed_is_started_again_and_what_cannot_work_is_not() {
    let home = Home::new();
    let supervisor = Supervisor::start(units(&home));
    supervisor.ready(1).await;
    kill_process(supervisor.pid(), Signal::KILL).unwrap();
    supervisor.ready(2).await;
    assert_eq!(home.caller().get("/healthz").await.status, 200);
    home.configure("[limitz]\n");
    kill_process(supervisor.pid(), Signal::KILL).unwrap();
    until("it gives up", async || supervisor.ended()).await;
    assert_eq!(supervisor.ended().unwrap().code(), Some(2), "{}", home.log());
    assert_eq!(supervisor.lives(), 3);
    // Another daemon has the state: 5.
    home.configure("");
    let other = home.at("other");
    let running = home.spawn(home.lovabled(&["--socket", other.to_str().unwrap()]));
    let running = home.answering(running, &other).await;
    let second = Supervisor::start(units(&home));
    until("the second gives up", async || second.ended()).await;
    assert_eq!(second.ended().unwrap().code(), Some(5), "{}", home.log());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_manager_restarts_it_under_load() {
    let words = 4;
    let script = Script { models: vec![Offer::named("quick")], words, ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let home = Home::with(&server);
    let supervisor = Supervisor::start(units(&home));
    supervisor.ready(1).await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..8).map(|_| tokio::spawn(keep_asking(home.caller(), "quick", words, over.clone()))).collect();
    let restarts = times(2, 20);
    for nth in 0..restarts {
        sleep(Duration::from_millis(700)).await;
        supervisor.restart().await;
        supervisor.ready(nth + 2).await;
    }
    sleep(Duration::from_millis(700)).await;
    over.store(true, Relaxed);
    let (mut requests, mut longest) = (0, Duration::ZERO);
    for caller in callers {
        let took = caller.await.unwrap();
        requests += took.len();
        longest = longest.max(took.into_iter().max().unwrap());
    }
    supervisor.stop().await;
    let mut table =
        Table::new("Restarts by the manager", &["restarts", "requests", "failed", "longest wait"]);
    table.row(&[&restarts, &requests, &0, &format!("{} ms", longest.as_millis())]);
    table.show();
    assert_eq!(supervisor.lives(), restarts + 1);
}

/// The real one, where it is installed.
#[tokio::test]
async fn systemds_own_tool_starts_it_at_the_first_request() {
    if !std::path::Path::new("/usr/bin/systemd-socket-activate").exists() {
        eprintln!("left out: there is no systemd-socket-activate");
        return;
    }
    let server = server("one").await;
    let home = Home::with(&server);
    fs::create_dir(home.at("run/lovable")).unwrap();
    let mut command = home.command("systemd-socket-activate");
    command.arg("-l").arg(home.socket());
    for name in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
        command.arg("-E").arg(name);
    }
    let running = home.spawn({
        command.arg(LOVABLED);
        command
    });
    until("it listens", async || home.socket().exists().then_some(())).await;
    sleep(Duration::from_millis(300)).await;
    assert!(!home.state().exists(), "nothing runs before there is a request");
    let answer = home.caller().chat("one", false).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{}\n{}", answer.text(), home.log());
    assert!(home.state().exists());
    running.stop().await;
}

#[tokio::test]
async fn a_socket_that_somebody_removed_is_no_reason_to_be_started_again_and_again() {
    let home = Home::new();
    let mut setup = units(&home);
    setup.service = setup.service.set("WatchdogSec", "1");
    let supervisor = Supervisor::start(setup);
    supervisor.ready(1).await;
    fs::remove_file(home.socket()).unwrap();
    until("it says so", async || home.log().contains("somebody removed").then_some(())).await;
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(supervisor.lives(), 1, "{:?}", supervisor.told());
    supervisor.stop().await;
    // Whoever made the socket itself makes it anew by starting again.
    let mut setup = units(&home);
    setup.service = setup.service.set("WatchdogSec", "1");
    setup.socket = None;
    let supervisor = Supervisor::start(setup);
    supervisor.ready(1).await;
    fs::remove_file(home.socket()).unwrap();
    supervisor.ready(2).await;
    assert!(UnixStream::connect(home.socket()).await.is_ok());
    drop(supervisor);
}
