//! Nothing leaves the machine: the daemon runs in a network of its own whose only way out is
//! a wire that counts, and any packet on it is a failure.
//!
//! The wire is one end of a veth pair with a default route and no neighbours to be asked for,
//! so that whatever is sent anywhere but to loopback is counted there, a question for a name
//! as well. It takes root to make such a network; without it the test says that it was left out.

use std::{fs, process::Stdio, time::Duration};

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
use serde_json::json;
use tokio::{process::Command, time::sleep};

use crate::{
    caller::{chat, request},
    daemon::{Daemon, Options},
    sold::Sold,
};

/// Set in the process that runs inside.
const INSIDE: &str = "LOVABLE_TEST_INSIDE";

const CLOUDS: &str = r#"
[[servers]]
url = "https://api.openai.com/v1"
kind = "openai"
[[servers]]
url = "https://generativelanguage.googleapis.com/v1beta/openai/"
kind = "gemini"
[[servers]]
url = "https://203.0.113.7/v1"
kind = "openai-compatible"
"#;

#[tokio::test]
async fn no_packet_leaves_the_machine_while_the_cloud_is_not_enabled() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: a network of its own needs root");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.arg("--net").arg(test).args(["--exact", "namespace::inside", "--nocapture"]).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).output().await.expect("unshare of util-linux is there");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// What the test above runs in a network of its own.
#[tokio::test]
async fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    make_network().await;
    let (ollama, vllm) = (server(Shape::Ollama).await, server(Shape::Vllm).await);
    // One more in the cloud, as far as anybody is told, who would notice whoever comes.
    let near = Sold::start_anywhere("groq", &["llama-3.1-8b-instant"]).await;
    let daemon = start(&near.entry(""), &ollama, &vllm).await;
    use_it(&daemon, &ollama, &vllm).await;
    drop(daemon);
    assert_eq!(packets(), 0, "packets have left the machine");
    assert_eq!(near.connections(), 0, "somebody in the cloud was asked");

    // Whoever listens to the network asks it, by multicast DNS and nothing else.
    vllm.revive().await;
    let listening = start(LISTENING, &ollama, &vllm).await;
    use_it(&listening, &ollama, &vllm).await;
    drop(listening);
    assert!(packets() > 0, "nobody was asked");
    assert!(packets() <= multicasts(), "something else than multicast has left the machine");

    // The wire does count: the same daemon, allowed to, asks for the lists of providers.
    vllm.revive().await;
    let before = packets();
    let _daemon = start("[cloud]\nenabled = true\n", &ollama, &vllm).await;
    for _ in 0..500 {
        if packets() > before {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the wire counts nothing");
}

async fn server(shape: Shape) -> Simulated {
    Simulated::start(shape, Script { words: 5, ..Script::default() }).await.unwrap()
}

async fn start(more: &str, ollama: &Simulated, vllm: &Simulated) -> Daemon {
    let mut options = Options::looking().config(CLOUDS);
    options = if more == LISTENING { options.hears_network() } else { options.config(more) };
    let keys =
        ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY", "OPENROUTER_API_KEY"];
    for name in keys {
        options = options.env(name, "sk-secret");
    }
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        options = options.env(name, "http://198.51.100.1:3128");
    }
    options.simulated(ollama, "ollama", 0).simulated(vllm, "vllm", 1).start().await
}

/// All that a person does with it, and more.
async fn use_it(daemon: &Daemon, ollama: &Simulated, vllm: &Simulated) {
    let models = ["sim", "auto", "gpt-5", "openai/gpt-5", "gpt-5@openai", "claude-sonnet-4-5"];
    let elsewhere = "http://192.0.2.1/v1/chat/completions".to_owned();
    for fault in [None, Some(Fault::Redirect), Some(Fault::DieMidStream), Some(Fault::ServerError)] {
        ollama.change(|it| {
            it.plan = fault.map_or(Plan::Never, Plan::Always);
            it.elsewhere.clone_from(&elsewhere);
        });
        for model in models {
            for stream in [true, false] {
                let body = chat(model, stream, "Count for me.").to_string();
                let headers = [("x-lovable-fallback", "cloud")];
                let ask = request("POST", "/v1/chat/completions", body.into(), &headers);
                let answer = daemon.caller().send(ask).await.unwrap();
                assert_ne!(answer.header("x-lovable-zone"), Some("cloud"));
                assert!(answer.status == 200 || !["sim", "auto"].contains(&model), "{}", answer.text());
            }
        }
    }
    vllm.kill().await;
    for url in ["https://api.openai.com", "https://api.groq.com/openai/v1", "https://203.0.113.7/v1"] {
        let answer = daemon.caller().post("/lovable/v1/servers", &json!({ "url": url })).await;
        assert_eq!(answer.status, 403, "{url} {}", answer.text());
    }
    for command in ["status", "models", "servers", "stats"] {
        let _ = daemon.ctl(&[command]).await;
    }
    let _ = daemon.caller().post("/lovable/v1/probe", &json!({})).await;
    // Longer than any pause between two questions to somebody who does not answer.
    sleep(Duration::from_secs(5)).await;
}

/// In place of more lines: multicast DNS is on.
const LISTENING: &str = "";
const WIRE: &str = "way-out";

async fn make_network() {
    ip("link set lo up").await;
    ip(&format!("link add {WIRE} type veth peer name other-end")).await;
    // Before it is up, since the system itself says hello on IPv6.
    for end in [WIRE, "other-end"] {
        let path = format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6");
        assert!(fs::write(&path, "1").is_ok() || !fs::exists("/proc/sys/net/ipv6").unwrap(), "{path}");
    }
    ip(&format!("link set {WIRE} arp off")).await;
    ip(&format!("addr add 10.99.0.2/24 dev {WIRE}")).await;
    ip("link set other-end up").await;
    ip(&format!("link set {WIRE} up")).await;
    ip(&format!("route add default via 10.99.0.1 dev {WIRE}")).await;
    assert_eq!(packets(), 0, "the network is not quiet by itself");
}

async fn ip(args: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("ip");
    command.args(args.split(' ')).env("PATH", path);
    let output = command.output().await.expect("ip of iproute2 is there");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How many packets have gone to groups: questions of multicast DNS, and that we are in its group.
fn multicasts() -> u64 {
    let table = fs::read_to_string("/proc/self/net/netstat").unwrap();
    let mut lines = table.lines().filter_map(|it| it.strip_prefix("IpExt: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "OutMcastPkts").unwrap().1.parse().unwrap()
}

/// How many packets have gone into the wire.
fn packets() -> u64 {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap();
    let line = table.lines().find_map(|it| it.trim().strip_prefix(&format!("{WIRE}:"))).unwrap();
    // Eight columns of what came, then bytes and packets of what went.
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}
