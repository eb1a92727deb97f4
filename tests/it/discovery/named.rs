//! Servers that a person names: in the file, in the environment, at the command line; and their keys.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use lovable::simulate::{At, Offer, Script, Shape, Simulated};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;

use super::{
    at,
    listener::{Deed, Listener, json_of, openai},
    looking, until, until_said, until_up, url,
};
use crate::{
    caller::Verdict,
    daemon::{Daemon, Options},
};

fn offering(model: &str) -> Script {
    Script { models: vec![Offer::named(model)], ..Script::default() }
}

async fn answers(daemon: &Daemon, model: &str) {
    for stream in [false, true] {
        let answer = daemon.caller().chat(model, stream).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{model}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_server_on_a_unix_socket_is_used_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vllm.sock");
    let server = Simulated::start_at(Shape::Vllm, offering("sim"), At::Unix(path.clone())).await.unwrap();
    let daemon = Options::alone().simulated(&server, "sock", 0).start().await;
    let url = format!("unix:{}", path.display());
    let seen = until_up(&daemon, &url).await;
    assert_eq!(
        (&seen["kind"], &seen["zone"], &seen["found_by"]),
        (&json!("vllm"), &json!("machine"), &json!(["config"]))
    );
    answers(&daemon, "sim").await;

    server.kill().await;
    assert!(!path.exists());
    let answer = daemon.caller().chat("sim", false).await.unwrap();
    assert!(answer.status >= 500, "{}", answer.text());
    until(&daemon, &url, "is down", |it| it["standing"] == "down").await;
    server.revive().await;
    assert_eq!(until_up(&daemon, &url).await["id"], seen["id"]);
    answers(&daemon, "sim").await;
}

/// Makes an authority, and a certificate of it for this machine.
fn certificates(directory: &Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \\
            -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server \\
            -keyout server.key -out server.csr
        echo subjectAltName=IP:127.0.0.1,DNS:localhost > names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \\
            -extfile names -out server.pem";
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", script]).current_dir(directory);
    let output = shell.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The HTTP of an OpenAI-like server inside TLS, on threads of its own, for ever.
fn serve_tls(directory: &Path, listener: TcpListener, model: &str) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_file_iter(directory.join("server.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let act = Arc::new(openai(model));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, act) = (config.clone(), act.clone());
            thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream.unwrap());
                let mut buffer = [0; 8192];
                // A handshake that fails is what one of these servers is for.
                let count = stream.read(&mut buffer).unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..count]);
                if let Deed::Say(answer) = act(request.split(" HTTP").next().unwrap_or_default()) {
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            });
        }
    });
}

#[tokio::test]
async fn a_server_behind_tls_is_used_if_its_authority_is_named_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [0, 1].map(|it| listeners[it].local_addr().unwrap().port());
    for (listener, model) in listeners.into_iter().zip(["vouched", "unknown"]) {
        serve_tls(directory.path(), listener, model);
    }
    let ca = directory.path().join("ca.pem");
    let daemon = Options::alone()
        .env("LOVABLE_LOG", "lovable=debug")
        .config(&format!(
            "[[servers]]\nurl = \"https://127.0.0.1:{}/v1\"\ntls = {{ ca = \"{}\" }}\n\
             [[servers]]\nurl = \"https://127.0.0.1:{}\"\n",
            ports[0],
            ca.display(),
            ports[1]
        ))
        .start()
        .await;
    let urls = ports.map(|it| format!("https://127.0.0.1:{it}"));
    until_up(&daemon, &urls[0]).await;
    let answer = daemon.caller().chat("vouched", false).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{}", answer.text());
    until_said(&daemon, &urls[1], "no answer").await;
    assert!(at(&daemon.servers().await, &urls[1]).is_none());
}

#[tokio::test]
async fn the_environment_names_servers() {
    let ollama = Simulated::start(Shape::Ollama, offering("of-ollama")).await.unwrap();
    let vllm = Simulated::start(Shape::Vllm, Script { key: Some("sesame".into()), ..offering("of-vllm") });
    let vllm = vllm.await.unwrap();
    let studio = Simulated::start(Shape::LmStudio, offering("of-studio")).await.unwrap();
    let daemon = Options::alone()
        .env("OLLAMA_BASE_URL", &url(ollama.port()))
        .env("VLLM_BASE_URL", &format!("{}/v1", url(vllm.port())))
        .env("VLLM_API_KEY", "sesame")
        .env("LMSTUDIO_BASE_URL", &format!("http://localhost:{}/v1/", studio.port()))
        .start()
        .await;
    for url in [url(ollama.port()), url(vllm.port()), format!("http://localhost:{}", studio.port())] {
        let seen = until_up(&daemon, &url).await;
        assert_eq!((&seen["found_by"], &seen["problem"]), (&json!(["environment"]), &json!(null)), "{url}");
    }
    for model in ["of-ollama", "of-vllm", "of-studio"] {
        answers(&daemon, model).await;
    }
}

#[tokio::test]
async fn ollama_host_is_read_as_ollama_writes_it_and_a_kind_can_be_switched_off() {
    let ollama = Simulated::start(Shape::Ollama, Script::default()).await.unwrap();
    let vllm = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let daemon = looking()
        .env("OLLAMA_HOST", &format!("0.0.0.0:{}", ollama.port()))
        .env("VLLM_ENABLED", "false")
        .env("VLLM_BASE_URL", &url(vllm.port()))
        .start()
        .await;
    let seen = until_up(&daemon, &url(ollama.port())).await;
    assert!(seen["found_by"].as_array().unwrap().contains(&json!("environment")), "{seen}");
    until_said(&daemon, &url(vllm.port()), "recognised").await;
    assert!(at(&daemon.servers().await, &url(vllm.port())).is_none());
}

/// Wants a key for everything, as half the web does.
fn guarded(_: &str) -> Deed {
    json_of(
        401,
        &json!({"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}}),
    )
}

#[tokio::test]
async fn a_key_goes_to_its_own_endpoint_and_to_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    fs::write(&file, "from-file\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let keyed = |key: &str, model: &str| {
        let script = Script { key: Some(key.into()), ..offering(model) };
        Simulated::start(Shape::LlamaCpp, script)
    };
    let by_env = keyed("from-env", "by-env").await.unwrap();
    let by_file = keyed("from-file", "by-file").await.unwrap();
    let without = keyed("nobody-knows", "without").await.unwrap();
    let others = [Listener::start(guarded), Listener::start(guarded)];
    let daemon = looking()
        .env("MY_KEY", "from-env")
        .env("VLLM_BASE_URL", &others[0].url())
        .env("VLLM_API_KEY", "from-vllm")
        .config(&format!(
            "[[servers]]\nurl = \"{}\"\nkey_env = \"MY_KEY\"\n[[servers]]\nurl = \"{}\"\nkey_file = \"{}\"\n",
            url(by_env.port()),
            url(by_file.port()),
            file.display()
        ))
        .start()
        .await;
    for server in [&by_env, &by_file] {
        assert_eq!(until_up(&daemon, &url(server.port())).await["problem"], json!(null));
    }
    answers(&daemon, "by-env").await;
    answers(&daemon, "by-file").await;

    // Seen, shown, and not used.
    let seen = until_up(&daemon, &url(without.port())).await;
    assert_eq!((&seen["problem"], &seen["admission"]), (&json!("needs_key"), &json!("open")));
    let answer = daemon.caller().chat("without", false).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Refused(404 | 503)), "{}", answer.text());
    assert_eq!(without.counts().received, 0);

    for other in &others {
        until_said(&daemon, &other.url(), "recognised").await;
    }
    let shown = |it: &Listener| {
        it.heard().iter().filter_map(|it| it.header("authorization").map(str::to_owned)).collect::<Vec<_>>()
    };
    assert!(shown(&others[0]).iter().all(|it| it == "Bearer from-vllm") && !shown(&others[0]).is_empty());
    assert_eq!(shown(&others[1]), Vec::<String>::new());
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (file, config) = (directory.path().join("key"), directory.path().join("config.toml"));
    fs::write(&file, "secret").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(&config, "[[servers]]\nurl = \"http://127.0.0.1:9\"\nkey_file = \"key\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lovabled"));
    command.arg("--config").arg(&config).arg("--socket").arg(directory.path().join("s"));
    let output = command.arg("--state-dir").arg(directory.path().join("state")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("chmod 600") && !said.contains("secret"), "{said}");
}

/// An address of this machine by which others reach it, if it has one.
fn outer_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: this only asks which way it would go.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback()).then_some(ip)
}

#[tokio::test]
async fn servers_are_added_drained_resumed_probed_and_forgotten_by_hand() {
    let server = Simulated::start(Shape::Vllm, offering("by-hand")).await.unwrap();
    let daemon = looking().start().await;
    let url = url(server.port());
    let ctl = async |args: &[&str]| {
        let output = daemon.ctl(args).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let seen = until_up(&daemon, &url).await;
    let id = seen["id"].as_str().unwrap();

    assert!(ctl(&["servers", "add", &format!("{url}/v1")]).await.contains(id));
    let seen = until_up(&daemon, &url).await;
    assert_eq!(seen["found_by"], json!(["socket-table", "added"]));

    ctl(&["servers", "drain", id]).await;
    until(&daemon, &url, "is draining", |it| it["admission"] == "draining").await;
    let answer = daemon.caller().chat("by-hand", false).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Refused(503)), "{}", answer.text());
    ctl(&["servers", "resume", id]).await;
    until(&daemon, &url, "is open", |it| it["admission"] == "open").await;
    answers(&daemon, "by-hand").await;

    server.change(|script| script.models.push(Offer::named("pulled-now")));
    ctl(&["servers", "probe"]).await;
    until(&daemon, &url, "has its new model", |it| it["models"] == json!(["by-hand", "pulled-now"])).await;

    ctl(&["servers", "forget", id]).await;
    assert!(at(&daemon.servers().await, &url).is_none());
    ctl(&["servers", "probe"]).await;
    ctl(&["servers", "add", &url]).await;
    until_up(&daemon, &url).await;
    let refused = daemon.ctl(&["servers", "forget", "no-such"]).await;
    assert_eq!(refused.status.code(), Some(1));
}

#[tokio::test]
async fn a_unix_socket_of_ours_that_is_added_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("llama.sock");
    let _server =
        Simulated::start_at(Shape::LlamaCpp, offering("sock"), At::Unix(path.clone())).await.unwrap();
    let daemon = looking().start().await;
    let url = format!("unix:{}", path.display());
    daemon.ctl(&["servers", "add", &url]).await;
    let seen = until_up(&daemon, &url).await;
    assert_eq!((&seen["admission"], &seen["found_by"]), (&json!("open"), &json!(["added"])));
    answers(&daemon, "sock").await;
}

#[tokio::test]
async fn an_address_outside_is_only_known_when_added_and_used_when_trusted() {
    let Some(ip) = outer_address() else { return };
    let server = Listener::on(TcpListener::bind((ip, 0)).unwrap(), openai("outside"));
    for trusted in [false, true] {
        let trust = if trusted { format!("trust = [\"{ip}\"]\n") } else { String::new() };
        let mut daemon = Options::alone().discovery(&trust).start().await;
        let output = daemon.ctl(&["servers", "add", &server.url()]).await;
        assert!(output.status.success(), "{output:?}");
        let expected = if trusted { "open" } else { "untrusted" };
        for _ in 0..2 {
            let seen = until_up(&daemon, &server.url()).await;
            assert_eq!(seen["admission"], expected);
            // It stays so over a restart.
            daemon.kill().await;
            daemon.start_again();
            daemon.until_answering().await;
        }
        // What is trusted and still not near is the cloud's, which is another matter.
        let seen = until_up(&daemon, &server.url()).await;
        let answer = daemon.caller().chat("outside", false).await.unwrap();
        let used = answer.status == 200;
        assert_eq!(used, trusted && seen["zone"] != "cloud", "{}", answer.text());
    }
}
