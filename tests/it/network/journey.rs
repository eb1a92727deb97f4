//! One server of another machine, from its announcement to its return at another address.

use std::time::Duration;

use lovable::simulate::Shape;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{FAR, FOR_SURE, at, at_home, cabled, listening, until, url};
use crate::{
    caller::{Answer, chat, request},
    daemon::Daemon,
};

const PORT: u16 = 11434;
const LATER: &str = "10.77.0.3";

async fn ask(daemon: &Daemon) -> Answer {
    let body = chat("sim", false, "Count for me.").to_string();
    let patience = [("x-lovable-timeout-ms", "1500")];
    daemon.caller().send(request("POST", "/v1/chat/completions", body.into(), &patience)).await.unwrap()
}

#[tokio::test]
async fn a_server_is_found_waits_is_trusted_serves_is_lost_and_comes_back_elsewhere() {
    at_home("journey::a_server_is_found_waits_is_trusted_serves_is_lost_and_comes_back_elsewhere", async {
        let far = cabled().await;
        far.serve(Shape::Ollama, PORT).await;
        let mut daemon = listening().start().await;
        far.announce("_ollama", "desk", PORT).await;

        // Found, and not used.
        let there = url(FAR, PORT);
        let server = until(&daemon, &there, "is found", |it| it["standing"] == "up").await;
        let id = server["id"].clone();
        assert_eq!(server["admission"], "untrusted", "{server}");
        assert_eq!((&server["zone"], &server["kind"]), (&"lan".into(), &"ollama".into()));
        assert_eq!(server["found_by"], serde_json::json!(["mdns"]));
        let refused = ask(&daemon).await;
        assert!(refused.status >= 400, "{}", refused.text());
        sleep(FOR_SURE).await;
        let got = far.got(PORT).await;
        assert_eq!(got.prompts, 0, "{got:?}");
        // Who is not trusted is asked what it is, and not reached for besides.
        assert!(got.connections <= got.probes, "{got:?}");

        // Trusted, and used.
        trust(&mut daemon, FAR).await;
        let server = until(&daemon, &there, "is trusted", |it| it["admission"] == "open").await;
        assert_eq!(server["id"], id);
        until(&daemon, &there, "is up", |it| it["standing"] == "up").await;
        let answer = ask(&daemon).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-lovable-zone"), Some("lan"));
        assert_eq!(far.got(PORT).await.prompts, 1);

        // Lost.
        far.unplug().await;
        let pulled = Instant::now();
        until(&daemon, &there, "is gone", |it| it["standing"] == "down").await;
        let took = pulled.elapsed();
        assert!(took < Duration::from_secs(4), "gone after {took:?}");
        assert!(ask(&daemon).await.status >= 500);

        // Back at the same address.
        far.plug().await;
        until(&daemon, &there, "is back", |it| it["standing"] == "up").await;
        assert_eq!(ask(&daemon).await.status, 200);

        // Gone, and back at another one: the same server, which nobody trusts there.
        far.unplug().await;
        until(&daemon, &there, "is gone", |it| it["standing"] == "down").await;
        far.ip(&format!("addr del {FAR}/24 dev lan")).await;
        far.ip(&format!("addr add {LATER}/24 dev lan")).await;
        far.plug().await;
        let moved = url(LATER, PORT);
        let server = until(&daemon, &moved, "has moved", |it| it["standing"] == "up").await;
        assert_eq!((&server["id"], &server["admission"]), (&id, &Value::from("untrusted")));
        let servers = daemon.servers().await;
        assert!(at(&servers, &there).is_none() && servers.len() == 1, "{servers:#?}");
        let before = far.got(PORT).await.prompts;
        assert!(ask(&daemon).await.status >= 400);
        assert_eq!(far.got(PORT).await.prompts, before);

        // Withdrawn, and silent after that.
        far.withdraw("_ollama", "desk").await;
    })
    .await;
}

/// Trusts an address in the configuration.
pub(super) async fn trust(daemon: &mut Daemon, ip: &str) {
    let file = daemon.configuration();
    let config = std::fs::read_to_string(&file).unwrap();
    let line = format!("[discovery]\ntrust = [\"{ip}\"]");
    std::fs::write(&file, config.replacen("[discovery]", &line, 1)).unwrap();
    daemon.kill().await;
    daemon.start_again();
    daemon.until_answering().await;
}
