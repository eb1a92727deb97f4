use std::{
    future::Future,
    io::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use flate2::{Compression, write::GzEncoder};
use reqwest::header::HeaderName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello";

/// A listener where no lovable looks by itself, on a port of remote screens: one
/// may well run on this machine, and what comes here is counted.
async fn quiet() -> TcpListener {
    for port in 5900..5984 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener;
        }
    }
    panic!("84 ports are taken")
}

/// A server that plays `play(socket, number of the connection)` on each connection.
async fn server<F, R>(play: F) -> Endpoint
where
    F: Fn(TcpStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = quiet().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(play(socket, number));
        }
    });
    Endpoint::tcp(address.ip(), address.port())
}

/// A server that reads one request per connection and answers these bytes.
async fn answering(bytes: impl Into<Vec<u8>>) -> Endpoint {
    let bytes = bytes.into();
    server(move |mut socket, _| {
        let bytes = bytes.clone();
        async move {
            read_request(&mut socket).await;
            // The client may have seen enough before all is written.
            let _ = socket.write_all(&bytes).await;
        }
    })
    .await
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).await.unwrap();
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return text.into_owned();
            }
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |it| it.parse().unwrap());
        if body.len() >= length || count == 0 {
            return text.into_owned();
        }
    }
}

fn call(endpoint: &Endpoint) -> Call<'_> {
    Call {
        endpoint,
        path: "/v1/chat/completions",
        body: Bytes::from_static(b"{}"),
        headers: HeaderMap::new(),
        key: None,
        connect: Duration::from_secs(2),
        bounds: Bounds::default(),
        again: true,
        permit: None,
    }
}

fn upstream() -> Upstream {
    Upstream::new(Settings::default()).unwrap()
}

const HERE: Bounds = Bounds { reach: Zone::Machine, check: Check::Authorities };
const LIMITS: Limits =
    Limits { time: Duration::from_secs(5), connect: Duration::from_secs(1), bounds: HERE, bytes: 1024 };

async fn whole(mut reply: Reply) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    while let Some(chunk) = reply.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// What comes of one request to a server that answers `bytes`.
async fn outcome(bytes: impl Into<Vec<u8>>) -> String {
    let endpoint = answering(bytes).await;
    match upstream().send(call(&endpoint)).await {
        Err(fault) => format!("{:?} {:?}", fault.stage, fault.cause),
        Ok(reply) => {
            let status = reply.status();
            match whole(reply).await {
                Ok(body) => format!("{status} {}", String::from_utf8_lossy(&body)),
                Err(fault) => format!("{status} {:?} {:?}", fault.stage, fault.cause),
            }
        }
    }
}

#[tokio::test]
async fn what_is_forbidden_while_a_connection_is_made_is_not_sent() {
    let listener = quiet().await;
    let endpoint = Endpoint::tcp([127, 0, 0, 1].into(), listener.local_addr().unwrap().port());
    let upstream = upstream();
    let permit = |allowed| -> Permit {
        let asked = AtomicUsize::new(0);
        Arc::new(move || asked.fetch_add(1, Ordering::Relaxed) < allowed)
    };
    for allowed in [0, 1] {
        let call = Call { permit: Some(permit(allowed)), ..call(&endpoint) };
        let sent = upstream.send(call).await.map(drop);
        let question = Question::post("/tokenize", Bytes::from_static(b"a prompt"));
        let asked = upstream.ask_if(permit(allowed), &endpoint, &question, None, LIMITS).await.map(drop);
        for fault in [sent.unwrap_err(), asked.unwrap_err()] {
            assert_eq!((fault.stage, fault.cause), (Stage::Connect, Cause::Barred), "{allowed}");
        }
    }
    // The first were not even dialled; the second hung up without a byte.
    let mut said = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_to_end(&mut said).await.unwrap();
    }
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn what_servers_do_wrong_has_a_name() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (bytes, expected) in [
        (HELLO.to_owned(), "200 hello"),
        (String::new(), "Head Reset"),
        ("HTTP/1.1 200 O".to_owned(), "Head Reset"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "Head BadHead"),
        ("HTTP/1.1 200 OK\r\nno colon here\r\n\r\n".to_owned(), "Head BadHead"),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(4 << 20)), "Head BadHead"),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(5000)), "Head BadHead"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".to_owned(), "200 FirstToken EarlyEnd"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhello".to_owned(), "200 hell"),
        ("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n".to_owned(), "Head BadHead"),
        (format!("{chunked}5\r\nhello\r\n0\r\n\r\n"), "200 hello"),
        (format!("{chunked}5\r\nhello\r\n"), "200 FirstToken EarlyEnd"),
        (format!("{chunked}5\r\nhel"), "200 FirstToken EarlyEnd"),
        (format!("{chunked}zz\r\nhello\r\n"), "200 FirstToken Unreadable"),
        (format!("{chunked}5\r\nhelloworld\r\n"), "200 FirstToken Unreadable"),
        ("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned(), "503 "),
    ] {
        let shown: String = bytes.chars().take(80).collect();
        assert_eq!(outcome(bytes).await, expected, "for {shown:?}");
    }
}

#[tokio::test]
async fn a_port_without_listener_refuses_and_a_socket_without_file_is_unreachable() {
    let listener = quiet().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = upstream().send(call(&Endpoint::tcp(address.ip(), address.port()))).await.unwrap_err();
    assert_eq!(refused, Fault::new(Stage::Connect, Cause::Refused));

    let missing = Endpoint::parse("unix:/nowhere/at.sock").unwrap();
    let missing = upstream().send(call(&missing)).await.unwrap_err();
    assert_eq!(missing, Fault::new(Stage::Connect, Cause::Unreachable));

    let nameless = Endpoint::parse("http://no-such-host.invalid:1").unwrap();
    let nameless = upstream().send(call(&nameless)).await.unwrap_err();
    assert_eq!(nameless, Fault::new(Stage::Connect, Cause::Unreachable));
}

#[tokio::test]
async fn a_full_backlog_is_a_connect_timeout() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let connecting = TcpStream::connect(address);
        waiting.push(timeout(Duration::from_millis(50), connecting).await);
    }
    let endpoint = Endpoint::tcp(address.ip(), address.port());
    let mut call = call(&endpoint);
    call.connect = Duration::from_millis(50);
    let fault = upstream().send(call).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Connect, Cause::ConnectTimeout));
}

#[tokio::test]
async fn a_kept_connection_that_died_is_nobodys_fault() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let endpoint = server(move |mut socket, _| {
        let counter = counter.clone();
        async move {
            read_request(&mut socket).await;
            counter.fetch_add(1, Ordering::SeqCst);
            socket.write_all(HELLO.as_bytes()).await.unwrap();
            // Takes a second request on the same connection, and hangs up on it.
            read_request(&mut socket).await;
        }
    })
    .await;
    let upstream = upstream();
    for _ in 0..5 {
        let reply = upstream.send(call(&endpoint)).await.unwrap();
        assert_eq!(whole(reply).await.unwrap(), b"hello");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn what_comes_the_second_time_is_judged_as_strictly() {
    let endpoint = server(|mut socket, number| async move {
        read_request(&mut socket).await;
        if number > 0 {
            socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
            return;
        }
        socket.write_all(HELLO.as_bytes()).await.unwrap();
        read_request(&mut socket).await;
    })
    .await;
    let upstream = upstream();
    whole(upstream.send(call(&endpoint)).await.unwrap()).await.unwrap();
    let fault = upstream.send(call(&endpoint)).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Head, Cause::BadHead));
}

#[tokio::test]
async fn a_new_connection_that_dies_is_a_fault_and_nothing_is_sent_twice() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let endpoint = server(move |mut socket, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            read_request(&mut socket).await;
        }
    })
    .await;
    let fault = upstream().send(call(&endpoint)).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Head, Cause::Reset));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_whose_server_is_gone_refuses() {
    let listener = quiet().await;
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint::tcp(address.ip(), address.port());
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(listener);
        read_request(&mut socket).await;
        socket.write_all(HELLO.as_bytes()).await.unwrap();
        read_request(&mut socket).await;
    });
    let upstream = upstream();
    whole(upstream.send(call(&endpoint)).await.unwrap()).await.unwrap();
    let fault = upstream.send(call(&endpoint)).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Connect, Cause::Refused));
    serving.await.unwrap();
}

/// Runs `client` against a server that notes how its connection ended.
async fn closed_by<R: Future<Output = ()>>(answer: &'static str, client: impl FnOnce(Endpoint) -> R) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let endpoint = server(move |mut socket, _| {
        let tell = tell.lock().unwrap().take();
        async move {
            read_request(&mut socket).await;
            socket.write_all(answer.as_bytes()).await.unwrap();
            let end = socket.read(&mut [0; 16]).await;
            tell.unwrap().send(matches!(end, Ok(0) | Err(_))).unwrap();
        }
    })
    .await;
    client(endpoint).await;
    assert!(timeout(Duration::from_secs(5), told).await.expect("closed in time").unwrap());
}

#[tokio::test]
async fn dropping_a_reply_closes_its_connection() {
    let upstream = upstream();
    closed_by("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", async |endpoint| {
        let mut reply = upstream.send(call(&endpoint)).await.unwrap();
        assert_eq!(reply.chunk().await.unwrap().unwrap(), "hello");
        drop(reply);
    })
    .await;
    closed_by("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n", async |endpoint| {
        drop(upstream.send(call(&endpoint)).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn dropping_a_request_before_its_head_closes_the_connection() {
    let upstream = upstream();
    closed_by("", async |endpoint| {
        let sent = timeout(Duration::from_millis(100), upstream.send(call(&endpoint))).await;
        assert!(sent.is_err(), "no head came");
    })
    .await;
}

#[tokio::test]
async fn a_redirect_is_a_reply_and_nothing_goes_where_it_points() {
    let elsewhere = quiet().await;
    let location = elsewhere.local_addr().unwrap();
    let endpoint =
        answering(format!("HTTP/1.1 307 T\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n"))
            .await;
    let reply = upstream().send(call(&endpoint)).await.unwrap();
    assert_eq!(reply.status(), 307);
    let answer = upstream().ask(&endpoint, &Question::get("/"), None, LIMITS).await.unwrap();
    assert_eq!(answer.status, 307);
    assert!(timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err());
}

#[tokio::test]
async fn a_request_carries_what_it_was_given_and_little_else() {
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    let endpoint = server(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            tell.send(read_request(&mut socket).await).await.unwrap();
            socket.write_all(HELLO.as_bytes()).await.unwrap();
        }
    })
    .await;
    let key = Key::new(" sesame\n").unwrap();
    let mut sent = call(&endpoint);
    sent.key = Some(&key);
    sent.body = Bytes::from_static(b"{\"model\":\"m\"}");
    sent.headers.insert(HeaderName::from_static("x-request-id"), HeaderValue::from_static("r1"));
    whole(upstream().send(sent).await.unwrap()).await.unwrap();
    let port = endpoint.port().unwrap();
    assert_eq!(
        told.recv().await.unwrap(),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nx-request-id: r1\r\nauthorization: Bearer sesame\r\n\
             accept: */*\r\nhost: 127.0.0.1:{port}\r\ncontent-length: 13\r\n\r\n{{\"model\":\"m\"}}"
        )
    );
    for (question, expected) in [
        (Question::get("/"), "GET / HTTP/1.1\r\naccept-encoding: gzip\r\naccept: */*\r\nhost: "),
        (
            Question::get("/v1/models"),
            "GET /v1/models HTTP/1.1\r\naccept-encoding: identity\r\naccept: */*\r\nhost: ",
        ),
        (
            Question::post("/api/show", "{}"),
            "POST /api/show HTTP/1.1\r\naccept-encoding: identity\r\ncontent-type: application/json\r\naccept: */*\r\nhost: ",
        ),
    ] {
        upstream().ask(&endpoint, &question, None, LIMITS).await.unwrap();
        let request = told.recv().await.unwrap();
        assert!(request.starts_with(expected), "{request}");
    }
}

#[test]
fn a_key_is_never_shown() {
    assert_eq!(format!("{:?}", Key::new("sesame").unwrap()), "Key(…)");
    assert_eq!(Key::new("  "), None);
    assert_eq!(Key::new("a\nb"), None);
}

async fn asked(bytes: impl Into<Vec<u8>>) -> Result<Answer, Fault> {
    let endpoint = answering(bytes).await;
    upstream().ask(&endpoint, &Question::get("/"), None, LIMITS).await
}

#[tokio::test]
async fn a_probe_tells_http_from_tls_and_from_the_rest() {
    let answer = asked(HELLO).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let alert = asked([0x15, 3, 3, 0, 2, 2, 0x46]).await.unwrap_err();
    assert_eq!(alert.cause, Cause::Tls);
    assert_eq!(asked("SSH-2.0-OpenSSH_9.2\r\n").await.unwrap_err().cause, Cause::BadHead);
    assert_eq!(asked("+").await.unwrap_err().cause, Cause::BadHead);
    assert_eq!(asked("").await.unwrap_err(), Fault::new(Stage::Head, Cause::Reset));
}

#[tokio::test]
async fn a_probe_reads_no_more_than_it_may() {
    let page = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n{}", "x".repeat(9_999_999));
    assert_eq!(asked(page).await.unwrap().body.len(), LIMITS.bytes);
}

#[tokio::test]
async fn a_packed_page_is_read_as_what_it_says_and_no_further_than_it_may() {
    let packed = |page: &[u8]| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(page).unwrap();
        packer.finish().unwrap()
    };
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n").into_bytes()
    };
    let page = b"<title>Open WebUI</title>";
    let body = packed(page);
    let answer = asked([head(body.len()), body.clone()].concat()).await.unwrap();
    assert_eq!(answer.body, &page[..]);
    // A small body may stand for a giant one, be cut off by our own limit, or be no such thing.
    let bomb = packed(&vec![b'x'; 9_999_999]);
    assert_eq!(asked([head(bomb.len()), bomb].concat()).await.unwrap().body.len(), LIMITS.bytes);
    let noise: Vec<u8> = (0..9_999_999_u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let long = packed(&noise);
    let answer = asked([head(long.len()), long].concat()).await.unwrap();
    assert!(!answer.body.is_empty() && noise.starts_with(&answer.body));
    assert_eq!(asked([head(5), b"hello".to_vec()].concat()).await.unwrap().body, "");
}

#[tokio::test]
async fn a_probe_waits_no_longer_than_it_may() {
    let endpoint = server(|mut socket, _| async move {
        read_request(&mut socket).await;
        std::future::pending().await
    })
    .await;
    let limits = Limits { time: Duration::from_millis(50), ..LIMITS };
    let fault = upstream().ask(&endpoint, &Question::get("/"), None, limits).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Head, Cause::FirstTokenTimeout));
}

#[tokio::test]
async fn a_unix_socket_is_asked_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(HELLO.as_bytes()).await;
        }
    });
    let endpoint = Endpoint::parse(&format!("unix:{}", path.display())).unwrap();
    let reply = upstream().send(call(&endpoint)).await.unwrap();
    assert_eq!(whole(reply).await.unwrap(), b"hello");
}

#[tokio::test]
async fn tls_to_a_server_that_speaks_none_is_a_tls_fault() {
    let plain = server(|mut socket, _| async move {
        socket.write_all(HELLO.as_bytes()).await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
    })
    .await;
    let endpoint = Endpoint::parse(&plain.to_string().replace("http:", "https:")).unwrap();
    let fault = upstream().send(call(&endpoint)).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Connect, Cause::Tls));
}

#[tokio::test]
async fn an_address_beyond_the_bounds_is_not_connected_to_however_it_is_written() {
    for host in ["192.0.2.1", "[2001:db8::1]", "3221225985", "0xc0000201", "0300.0.2.1"] {
        let endpoint = Endpoint::parse(&format!("http://{host}:9")).unwrap();
        for reach in [Zone::Machine, Zone::Lan] {
            let mut call = call(&endpoint);
            call.bounds.reach = reach;
            let fault = upstream().send(call).await.unwrap_err();
            assert_eq!(fault, Fault::new(Stage::Connect, Cause::TooFar), "{host}");
        }
    }
    let near = Endpoint::parse("http://192.168.77.1:9").unwrap();
    let fault = upstream().send(call(&near)).await.unwrap_err();
    assert_eq!(fault, Fault::new(Stage::Connect, Cause::TooFar));
}

/// The names that this machine itself has, which lead here.
#[tokio::test]
async fn a_name_is_followed_within_its_bounds_and_says_where_it_led() {
    let endpoint = answering(HELLO).await;
    let named = Endpoint::parse(&format!("http://localhost:{}", endpoint.port().unwrap())).unwrap();
    whole(upstream().send(call(&named)).await.unwrap()).await.unwrap();
    let answer = upstream().ask(&named, &Question::get("/"), None, LIMITS).await.unwrap();
    assert_eq!(answer.at.map(Zone::of), Some(Zone::Machine));
}

#[tokio::test]
async fn a_connection_that_was_kept_is_not_used_within_narrower_bounds() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let endpoint = server(move |mut socket, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                if read_request(&mut socket).await.is_empty() {
                    return;
                }
                socket.write_all(HELLO.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let named = Endpoint::parse(&format!("http://localhost:{}", endpoint.port().unwrap())).unwrap();
    let upstream = upstream();
    for (reach, made) in [(Zone::Lan, 1), (Zone::Lan, 1), (Zone::Machine, 2), (Zone::Lan, 2)] {
        let mut call = call(&named);
        call.bounds.reach = reach;
        whole(upstream.send(call).await.unwrap()).await.unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), made, "{reach:?}");
    }
}

/// A server that speaks TLS with a certificate of its own making, and that key's pin.
async fn self_signed() -> (Endpoint, Pin) {
    let made = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let key = rcgen::PublicKeyData::subject_public_key_info(&made.signing_key);
    let digest = ring::digest::digest(&ring::digest::SHA256, &key);
    let pin = Pin::from(<[u8; 32]>::try_from(digest.as_ref()).unwrap());
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let plain = server(move |socket, _| {
        let acceptor = acceptor.clone();
        async move {
            // Whoever does not like the certificate hangs up.
            let Ok(mut socket) = acceptor.accept(socket).await else { return };
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(HELLO.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    })
    .await;
    (Endpoint::parse(&plain.to_string().replace("http:", "https:")).unwrap(), pin)
}

#[tokio::test]
async fn a_pinned_key_is_enough_and_no_other_is() {
    let (endpoint, pin) = self_signed().await;
    let upstream = upstream();
    let send = async |check| {
        let mut call = call(&endpoint);
        call.bounds.check = check;
        whole(upstream.send(call).await?).await
    };
    assert_eq!(send(Check::Pin(pin)).await.unwrap(), b"hello");
    let other = Pin::from([7; 32]);
    assert_eq!(send(Check::Pin(other)).await.unwrap_err(), Fault::new(Stage::Connect, Cause::WrongPin));
    // Nobody vouches for it, and what went well with the pin opens no door without it.
    assert_eq!(send(Check::Authorities).await.unwrap_err(), Fault::new(Stage::Connect, Cause::Tls));
    assert_eq!(send(Check::Pin(pin)).await.unwrap(), b"hello");
    assert_eq!(upstream.tls_key(&endpoint, LIMITS).await.unwrap(), pin);
}

#[tokio::test]
async fn anybody_may_answer_a_question_that_holds_no_secret() {
    let (endpoint, _) = self_signed().await;
    let anybody = Limits { bounds: Bounds { check: Check::Nobody, ..HERE }, ..LIMITS };
    assert_eq!(upstream().ask(&endpoint, &Question::get("/"), None, anybody).await.unwrap().status, 200);
    let fault = upstream().ask(&endpoint, &Question::get("/"), None, LIMITS).await.unwrap_err();
    assert_eq!(fault.cause, Cause::Tls);
}

#[tokio::test]
async fn who_speaks_no_tls_has_no_key_to_show() {
    let plain = server(|mut socket, _| async move {
        socket.write_all(HELLO.as_bytes()).await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
    })
    .await;
    let endpoint = Endpoint::parse(&plain.to_string().replace("http:", "https:")).unwrap();
    assert_eq!(upstream().tls_key(&endpoint, LIMITS).await.unwrap_err().cause, Cause::Tls);
}
