//! A new daemon in the place of an old one: whoever comes meanwhile waits in the queue of the
//! socket, which is the service manager's and stays.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use lovable::simulate::{Offer, Script, Shape, Simulated};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    caller::{Caller, Verdict, chat, request},
    lifecycle::{Home, LOVABLED, Running, entry},
    proof::{Table, times},
};

/// How long the longest answer runs here.
const LONGEST: Duration = Duration::from_millis(1000);
/// What a daemon takes to leave and another one to come, on a machine that is busy.
const CHANGE: Duration = Duration::from_millis(2000);

/// A daemon that has its socket from us, as from systemd.
fn inherit(home: &Home, listener: &UnixListener) -> Running {
    let mut command = home.command("sh");
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec $0";
    command.args(["-c", script, LOVABLED]);
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    home.spawn(command)
}

/// Asks again and again on fresh connections until told to stop; how long each answer took.
pub(crate) async fn keep_asking(
    caller: Caller,
    model: &'static str,
    words: usize,
    over: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut took = Vec::new();
    while !over.load(Relaxed) {
        let begun = Instant::now();
        let body = chat(model, took.len() % 2 == 0, "Count for me.").to_string();
        let answer = caller.send(request("POST", "/v1/chat/completions", body.into(), &[])).await;
        let answer = answer.unwrap_or_else(|error| panic!("no answer: {error}"));
        assert_eq!(answer.verdict(), Verdict::Whole(words), "{}", answer.text());
        took.push(begun.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_one_daemon_follows_another_and_the_wait_is_bounded() {
    let quick = Script { models: vec![Offer::named("quick")], words: 4, ..Script::default() };
    let words = 20;
    let slow = Script {
        models: vec![Offer::named("slow")],
        words,
        between: LONGEST / words as u32,
        ..Script::default()
    };
    let quick = Simulated::start(Shape::Vllm, quick).await.unwrap();
    let slow = Simulated::start(Shape::Vllm, slow).await.unwrap();
    let home = Home::new();
    home.configure(&(entry(&quick) + &entry(&slow)));
    let path = home.at("inherited.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let caller = Caller::unix(&path);
    let mut running = inherit(&home, &listener);
    super::until("both are up", async || {
        let answer = caller.try_get("/lovable/v1/status").await.ok()?;
        (answer.json()["servers"]["up"] == 2).then_some(())
    })
    .await;
    let over = Arc::new(AtomicBool::new(false));
    let ask = |model, words| tokio::spawn(keep_asking(caller.clone(), model, words, over.clone()));
    let (short, long): (Vec<_>, Vec<_>) =
        ((0..6).map(|_| ask("quick", 4)).collect(), (0..3).map(|_| ask("slow", words)).collect());
    let restarts = times(3, 20);
    for _ in 0..restarts {
        sleep(Duration::from_millis(1500)).await;
        running.signal(Signal::TERM);
        assert_eq!(running.ended().await.code(), Some(0), "{}", home.log());
        running = inherit(&home, &listener);
    }
    sleep(Duration::from_millis(1500)).await;
    over.store(true, Relaxed);
    let mut took = Vec::new();
    for worker in short {
        took.extend(worker.await.unwrap());
    }
    let mut whole = took.len();
    for worker in long {
        whole += worker.await.unwrap().len();
    }
    running.stop().await;
    assert!(!home.log().contains("were cut"), "{}", home.log());
    took.sort_unstable();
    let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
    let mut table = Table::new(
        "Restarts with an inherited socket",
        &["restarts", "requests", "failed", "longest answer", "usual wait", "longest wait"],
    );
    let ms = |it: Duration| format!("{} ms", it.as_millis());
    table.row(&[&restarts, &whole, &0, &ms(LONGEST), &ms(middle), &ms(longest)]);
    table.show();
    assert!(longest < LONGEST + CHANGE, "{longest:?}");
}
