//! Probing does no harm: what strangers are asked, how often, and who is left alone.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::Instant,
};

use super::{
    at,
    listener::{Deed, Heard, Listener, http, http_with, json_of, openai},
    looking, until_said, until_up,
};

/// What any stranger may be asked before it is known.
fn assert_gentle(heard: &[Heard], port: u16) {
    assert!(!heard.is_empty());
    let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")];
    for request in heard {
        assert!(request.line().starts_with("GET /"), "{}", request.text);
        let host = request.header("host").unwrap_or_default();
        assert!(hosts.iter().any(|it| it == host), "{}", request.text);
        let harmful =
            ["/health", "/unload", "/upstream", "/slots", "/load", "/running", "/sleep", "/api/generate"];
        assert!(
            !harmful.iter().any(|it| request.line().starts_with(&format!("GET {it}"))),
            "{}",
            request.text
        );
        for header in ["authorization", "origin", "referer", "cookie", "x-forwarded-for"] {
            assert_eq!(request.header(header), None, "{}", request.text);
        }
    }
}

#[tokio::test]
async fn a_stranger_gets_few_gentle_requests_and_is_left_alone_until_its_listener_changes() {
    let daemon = looking().start().await;
    let page = |line: &str| match line {
        "GET /" => http(200, "text/html; charset=utf-8", "<!doctype html><title>Shop</title>"),
        _ => http(404, "text/html; charset=utf-8", "<!doctype html><title>Not found</title>"),
    };
    // An application that answers its page to every path, and one that knows none.
    let shop = Listener::start(page).of(&daemon);
    let single = Listener::start(|_| http(200, "text/html", "<!doctype html><title>App</title>")).of(&daemon);
    let api = Listener::start(|_| json_of(404, &json!({"error": "not found"}))).of(&daemon);
    let strangers = [&shop, &single, &api];
    for it in strangers {
        until_said(&daemon, &it.url(), "something else").await;
        let heard = it.heard();
        assert_eq!(heard[0].line(), "GET /");
        assert_eq!(it.asked("GET /"), 1);
        assert!(heard.len() <= 4, "{heard:?}");
        assert_gentle(&heard, it.port());
    }
    let before = strangers.map(|it| it.heard().len());
    daemon.ctl(&["servers", "probe"]).await;
    // Whatever would be asked again has been when this one is found.
    let server = Listener::start(openai("later"));
    until_up(&daemon, &server.url()).await;
    assert_eq!(strangers.map(|it| it.heard().len()), before);

    let port = shop.port();
    drop(shop);
    let again = loop {
        // The task that held it ends in a moment.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            break Listener::on(listener, openai("was a shop")).of(&daemon);
        }
        tokio::task::yield_now().await;
    };
    until_up(&daemon, &again.url()).await;
    assert_gentle(&again.heard(), port);
}

#[tokio::test]
async fn what_fails_is_asked_again_after_one_two_and_four_seconds() {
    let daemon = looking().start().await;
    let reset = Listener::start(|_| Deed::Reset).of(&daemon);
    let broken = Listener::start(|_| http(502, "text/html", "<h1>Bad gateway</h1>")).of(&daemon);
    let silent = Listener::start(|_| Deed::Hang(String::new())).of(&daemon);
    let first = broken.until_heard(1).await[0].at;
    // Silence is waited for, two seconds each time.
    for (it, patience) in [(&reset, 0), (&broken, 0), (&silent, 2)] {
        let heard = it.until_heard(3).await;
        let seconds: Vec<f64> = heard.windows(2).map(|it| (it[1].at - it[0].at).as_secs_f64()).collect();
        for (waited, pause) in seconds.iter().zip([1.0, 2.0]) {
            let expected = pause + f64::from(patience);
            // On a busy machine a connection is noted late.
            assert!(*waited > expected - 0.5 && *waited < expected + 2.0, "{seconds:?} with {patience}");
        }
        assert!(heard.iter().all(|it| it.line() == "GET /"), "{heard:?}");
        assert_gentle(&heard, it.port());
    }
    assert!(first.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn what_listens_before_its_server_is_there_is_found_when_it_comes() {
    let daemon = looking().start().await;
    let start = Instant::now();
    let server = openai("late");
    let proxy = Listener::start(move |line| {
        if start.elapsed() < Duration::from_millis(700) { Deed::Reset } else { server(line) }
    });
    until_up(&daemon, &proxy.url()).await;
}

#[tokio::test]
async fn ports_with_a_reason_are_never_connected_to() {
    let mine = TcpListener::bind("127.0.0.1:0").unwrap();
    let skip = format!("skip_ports = [{}]\n", mine.local_addr().unwrap().port());
    let daemon = looking().discovery(&skip).start().await;
    let mine = Listener::on(mine, openai("never")).of(&daemon);
    // PostgreSQL, a printer, Redis, a debugger, and something old below 1024.
    let usual = [5432, 9100, 6379, 9229, 777].map(|it| TcpListener::bind(("127.0.0.1", it)).ok());
    let usual = usual.into_iter().flatten().map(|it| Listener::on(it, openai("never"))).collect::<Vec<_>>();
    // What comes later is asked later.
    for model in ["first", "second"] {
        let server = Listener::start(openai(model));
        until_up(&daemon, &server.url()).await;
    }
    assert_eq!(mine.heard().len(), 0);
    for it in &usual {
        assert_eq!(it.connections(), 0, "{}", it.url());
    }
    for it in usual.iter().chain([&mine]) {
        assert!(!daemon.log().contains(&it.url()), "{}", it.url());
    }
}

#[tokio::test]
async fn a_debugger_keeps_its_one_connection() {
    const SCRIPT: &str = "use IO::Socket::INET; $| = 1;
        my $socket = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => $ARGV[0])
            // IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') // die;
        print $socket->sockport, \"\\n\";
        $socket->accept; print \"connected\\n\"; sleep 60;";
    let Ok(perl) = fs::canonicalize("/usr/bin/perl") else { return };
    let daemon = looking().start().await;
    let directory = tempfile::tempdir().unwrap();
    let gdbserver = directory.path().join("gdbserver");
    fs::copy(perl, &gdbserver).unwrap();
    let mut child = Command::new(gdbserver)
        .args(["-e", SCRIPT, "1234"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let port: u16 = said.next_line().await.unwrap().unwrap().parse().unwrap();
    for model in ["first", "second"] {
        let server = Listener::start(openai(model));
        until_up(&daemon, &server.url()).await;
    }
    let url = format!("http://127.0.0.1:{port}");
    assert!(at(&daemon.servers().await, &url).is_none());
    let log = daemon.log();
    assert!(!log.split_whitespace().any(|it| it == format!("endpoint={url}")), "{log}");
    // The connection is still there for somebody else.
    let _debugger = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(said.next_line().await.unwrap().as_deref(), Some("connected"));
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn whatever_a_listener_answers_the_daemon_stays_well() {
    let daemon = looking().start().await;
    let endless_list = |line: &str| match line {
        "GET /v1/models" => Deed::Pour(
            "HTTP/1.1 200 X\r\ncontent-type: application/json\r\n\r\n{\"object\":\"list\",\"data\":["
                .to_owned(),
            format!("{{\"id\":\"{}\"}},", "m".repeat(60)).repeat(500),
        ),
        _ => http(404, "text/plain", "no"),
    };
    let circle = Listener::start(|_| http_with(302, "location: /\r\n", ""));
    let own = circle.url();
    let hostile = [
        (
            "endless page",
            Listener::start(|_| Deed::Pour("HTTP/1.1 200 X\r\n\r\n".to_owned(), "x".repeat(8192))),
        ),
        ("endless list", Listener::start(endless_list)),
        (
            "endless header",
            Listener::start(|_| Deed::Pour("HTTP/1.1 200 X\r\nx: ".to_owned(), "y".repeat(8192))),
        ),
        (
            "endless headers",
            Listener::start(|_| Deed::Pour("HTTP/1.1 200 X\r\n".to_owned(), "x: y\r\n".repeat(1000))),
        ),
        ("half a head", Listener::start(|_| Deed::Hang("HTTP/1.1 200 X\r\ncontent-le".to_owned()))),
        (
            "half a body",
            Listener::start(|_| Deed::Hang("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nx".to_owned())),
        ),
        (
            "endless interim answers",
            Listener::start(|_| Deed::Pour(String::new(), "HTTP/1.1 100 Continue\r\n\r\n".repeat(100))),
        ),
        ("noise", Listener::start(|_| Deed::Pour(String::new(), "\u{1}\u{7f}noise".repeat(1000)))),
        ("a circle", circle),
        (
            "a way elsewhere",
            Listener::start(move |_| http_with(307, &format!("location: {own}/elsewhere\r\n"), "")),
        ),
    ];
    for (what, it) in &hostile {
        let end = format!("endpoint={}", it.url());
        let ended = ["no answer", "something else", "recognised"];
        daemon
            .until(&format!("the probe of {what} ends"), |_| {
                let log = daemon.log();
                log.lines().any(|line| {
                    ended.iter().any(|it| line.contains(it)) && line.split(' ').any(|it| it == end)
                })
            })
            .await;
        assert!(at(&daemon.servers().await, &it.url()).is_none(), "{what}");
    }
    let circle = &hostile[8].1;
    assert!(circle.heard().iter().all(|it| it.line() != "GET /elsewhere"), "a redirect was followed");
    let server = Listener::start(openai("still here"));
    until_up(&daemon, &server.url()).await;
    let resident = resident_kib(daemon.pid());
    assert!(resident < 96 << 10, "{resident} KiB");
}
