//! The TCP door, and daemons that meet each other.

use std::{fs, net::SocketAddr};

use bytes::Bytes;
use lovable::simulate::{Script, Shape, Simulated};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    caller::{Answer, Caller, Verdict, chat, request},
    lifecycle::{Home, Running, curl_as_nobody, is_root, output, until},
};

/// A daemon with a door, and who calls there.
async fn with_door(lines: &str) -> (Home, Running, Caller) {
    let home = Home::new();
    home.configure(lines);
    let running = home.start(&["--listen", "127.0.0.1:0"]).await;
    let listen = home.status().await["listen"].as_str().unwrap().parse::<SocketAddr>().unwrap();
    (home, running, Caller::port(listen.port()))
}

async fn ask(caller: &Caller, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let body = if method == "POST" { Bytes::from_static(b"{}") } else { Bytes::new() };
    let mut asked = request(method, path, body, &[]);
    for (name, value) in headers {
        asked
            .headers_mut()
            .insert(hyper::header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    caller.send(asked).await.unwrap()
}

const STATUS: &str = "/lovable/v1/status";

#[tokio::test]
async fn the_door_lets_in_no_foreign_name_and_no_web_page() {
    let (home, running, caller) = with_door("").await;
    for (headers, status) in [
        (&[][..], 200),
        (&[("host", "127.0.0.1:4711")], 200),
        (&[("host", "[::1]")], 200),
        (&[("host", "evil.example")], 403),
        (&[("host", "localhost.evil.example")], 403),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("origin", "http://localhost")], 200),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "none")], 200),
    ] {
        for path in [STATUS, "/v1/models", "/healthz"] {
            let answer = ask(&caller, "GET", path, headers).await;
            assert_eq!(answer.status, status, "{headers:?} {path}: {}", answer.text());
            let cors = answer.headers.keys().any(|it| it.as_str().starts_with("access-control"));
            assert!(!cors, "{headers:?}");
        }
    }
    let asked = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    assert_eq!(ask(&caller, "OPTIONS", "/v1/chat/completions", &asked).await.status, 403);
    assert_eq!(ask(&caller, "OPTIONS", "/v1/models", &[]).await.status, 405);
    // Over the socket any name is fine.
    assert_eq!(ask(&home.caller(), "GET", STATUS, &[("host", "evil.example")]).await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn the_door_changes_something_only_where_that_is_configured() {
    for (lines, status) in [("", 403), ("[listen]\ncontrol = true\n", 404)] {
        let (home, running, caller) = with_door(lines).await;
        for (method, path) in [
            ("POST", "/lovable/v1/servers/none/drain"),
            ("POST", "/lovable/v1/servers/none/resume"),
            ("DELETE", "/lovable/v1/servers/none"),
        ] {
            let answer = ask(&caller, method, path, &[]).await;
            assert_eq!(answer.status, status, "{lines} {method} {path}: {}", answer.text());
            assert_eq!(ask(&home.caller(), method, path, &[]).await.status, 404, "{path}");
        }
        let probe = ask(&caller, "POST", "/lovable/v1/probe", &[]).await.status;
        assert_eq!(probe, if status == 403 { 403 } else { 202 });
        running.stop().await;
    }
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_ask_and_read() {
    let (_home, running, caller) =
        with_door("[listen]\norigins = [\"https://chat.example\"]\nhosts = [\"box.local\"]\n").await;
    let page = ("origin", "https://chat.example");
    let asked = [
        page,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let before = ask(&caller, "OPTIONS", "/v1/chat/completions", &asked).await;
    assert_eq!(before.status, 204, "{}", before.text());
    assert_eq!(before.header("access-control-allow-origin"), Some(page.1));
    assert_eq!(before.header("access-control-allow-headers"), Some("authorization"));
    assert!(before.header("access-control-allow-methods").unwrap().contains("POST"));
    // A failure as well: the page has to be able to say what it was.
    for (path, status) in [(STATUS, 200), ("/v1/models/none", 404)] {
        let answer =
            ask(&caller, "GET", path, &[page, ("sec-fetch-site", "cross-site"), ("host", "box.local")]).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(page.1));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    let other = ask(&caller, "GET", STATUS, &[("origin", "https://other.example")]).await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (403, None));
    let none = ask(&caller, "GET", STATUS, &[]).await;
    assert_eq!((none.status, none.header("access-control-allow-origin")), (200, None));
    running.stop().await;
}

#[tokio::test]
async fn another_user_is_turned_away_at_the_door() {
    if !is_root() {
        return;
    }
    let (home, running, caller) = with_door("").await;
    let Caller::Tcp(address) = caller else { unreachable!("it has a door") };
    for path in [STATUS, "/v1/models", "/healthz", "/nowhere"] {
        let answer =
            output(curl_as_nobody(&home, &["-w", "%{http_code}", &format!("http://{address}{path}")])).await;
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(said.ends_with("403") && said.contains("your user"), "{path}: {answer:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn daemons_side_by_side_are_no_servers_to_each_other_unless_a_person_says_so() {
    let (first, first_running, first_caller) = with_door("").await;
    let Caller::Tcp(address) = first_caller else { unreachable!("it has a door") };
    let second = Home::new();
    // This one looks at all that listens.
    fs::write(second.at("config/lovable/config.toml"), "[discovery]\nmdns = false\n").unwrap();
    let url = format!("http://{address}");
    let second_running = second.start(&["--listen", "127.0.0.1:0"]).await;
    // Once it has found one that came later, it has seen the other.
    let server = Simulated::start(Shape::LlamaCpp, Script::default()).await.unwrap();
    let servers = until("a later server is found", async || {
        let servers = second.caller().get("/lovable/v1/servers").await.json();
        let servers = servers["servers"].as_array().unwrap().clone();
        servers.iter().any(|it| it["url"] == server.endpoint().to_string()).then_some(servers)
    })
    .await;
    assert!(servers.iter().all(|it| it["kind"] != "lovable" && it["url"] != url), "{servers:?}");
    let socket = format!("unix:{}", first.socket().display());
    let lines = format!("[discovery]\nmdns = false\n[[servers]]\nurl = \"{socket}\"\n");
    fs::write(second.at("config/lovable/config.toml"), lines).unwrap();
    until("the one that is named is a server", async || {
        let servers = second.caller().get("/lovable/v1/servers").await.json();
        let servers = servers["servers"].as_array().unwrap().clone();
        servers.iter().any(|it| it["url"] == socket && it["kind"] == "lovable").then_some(())
    })
    .await;
    first_running.stop().await;
    second_running.stop().await;
}

#[tokio::test]
async fn a_request_that_went_through_us_is_refused() {
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let home = Home::with(&server);
    let running = home.start(&[]).await;
    home.ready().await;
    let caller = home.caller();
    let instance = caller.get("/healthz").await.header("x-lovable-instance").unwrap().to_owned();
    let body = Bytes::from(chat("sim", false, "Count for me.").to_string());
    let via = |lines: &[&str]| {
        let headers: Vec<_> = lines.iter().map(|it| ("x-lovable-via", *it)).collect();
        request("POST", "/v1/chat/completions", body.clone(), &headers)
    };
    let between = format!("before, {instance} ,after");
    for (lines, status) in [
        (&["another", "and another"][..], 200),
        (&[&instance], 508),
        (&[&between], 508),
        (&["another", &instance], 508),
    ] {
        let answer = caller.send(via(lines)).await.unwrap();
        assert_eq!(answer.status, status, "{lines:?}: {}", answer.text());
        assert!(matches!(answer.verdict(), Verdict::Whole(8) | Verdict::Refused(508)));
    }
    running.stop().await;
}

/// Looks like a server, and sends prompts elsewhere.
async fn gateway(looks_like: &Simulated, prompts_to: SocketAddr, listener: TcpListener) {
    let front = looks_like.port();
    while let Ok((mut caller, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut first = [0; 4];
            if caller.read_exact(&mut first).await.is_err() {
                return;
            }
            let to = if &first == b"POST" { prompts_to } else { ([127, 0, 0, 1], front).into() };
            let mut behind = TcpStream::connect(to).await.unwrap();
            behind.write_all(&first).await.unwrap();
            let _ = copy_bidirectional(&mut caller, &mut behind).await;
        });
    }
}

#[tokio::test]
async fn a_request_in_a_circle_comes_to_an_end() {
    let server = Simulated::start(Shape::OpenAi, Script::default()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (home, running, caller) =
        with_door(&format!("[[servers]]\nurl = \"{url}\"\nname = \"circle\"\n")).await;
    let Caller::Tcp(door) = caller else { unreachable!("it has a door") };
    tokio::spawn(async move { gateway(&server, door, listener).await });
    home.ready().await;
    for stream in [false, true] {
        let answer = home.caller().chat("sim", stream).await.unwrap();
        assert!(
            matches!(answer.verdict(), Verdict::Refused(502 | 508)),
            "{} {}",
            answer.status,
            answer.text()
        );
    }
    let good = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let add = home.ctl(&["servers", "add", &good.endpoint().to_string()]).await;
    assert_eq!(add.status.code(), Some(0), "{add:?}");
    let answer = home.caller().chat("sim", true).await.unwrap();
    assert_eq!(answer.verdict(), Verdict::Whole(8), "{}", answer.text());
    running.stop().await;
}
