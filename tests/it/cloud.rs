//! Whoever sells answers, through the whole daemon: nobody is asked unless that was said, each
//! is asked in its own words with its own key, and no day costs more than it may.

use std::time::Duration;

use lovable::simulate::{Fault, Offer, Plan, Script, Shape, Simulated};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    caller::{Answer, chat, request},
    daemon::{Daemon, Options},
    proof::{Table, times},
    sold::{PRICE_SET, Sold},
};

const KEYS: [(&str, &str); 5] = [
    ("OPENAI_API_KEY", "sk-openai"),
    ("ANTHROPIC_API_KEY", "sk-anthropic"),
    ("GEMINI_API_KEY", "sk-gemini"),
    ("GROQ_API_KEY", "sk-groq"),
    ("OPENROUTER_API_KEY", "sk-openrouter"),
];

/// All providers, each with a model of its own.
async fn all() -> Vec<Sold> {
    vec![
        Sold::start("openai", &["gpt-5-mini", "whisper-1"]).await,
        Sold::start("anthropic", &["claude-haiku-4-5"]).await,
        Sold::start("gemini", &["gemini-2.5-flash"]).await,
        Sold::start("groq", &["llama-3.1-8b-instant"]).await,
        Sold::start("openrouter", &["mistralai/mistral-small"]).await,
    ]
}

/// A daemon that may use these; keys come from the environment.
fn options(sold: &[&Sold], cloud: &str) -> Options {
    let mut options = Options::alone();
    for (name, key) in KEYS {
        // Nobody of the real ones is to be known to it.
        if sold.iter().any(|it| key.ends_with(it.kind)) {
            options = options.env(name, key);
        }
    }
    let entries: String = sold.iter().map(|it| it.entry("")).collect();
    options.config(&format!("[cloud]\n{cloud}\n{entries}"))
}

async fn start(sold: &[&Sold], cloud: &str) -> Daemon {
    until_up(options(sold, cloud).start().await, sold.len()).await
}

async fn until_up(daemon: Daemon, count: usize) -> Daemon {
    daemon
        .until("every provider has given its list", |servers| {
            servers.iter().filter(|it| it["zone"] == "cloud" && it["models"][0].is_string()).count() >= count
        })
        .await;
    daemon
}

async fn ask(daemon: &Daemon, model: &str, stream: bool, headers: &[(&str, &str)]) -> Answer {
    ask_with(daemon, model, stream, headers, json!({})).await
}

async fn ask_with(
    daemon: &Daemon,
    model: &str,
    stream: bool,
    headers: &[(&str, &str)],
    more: Value,
) -> Answer {
    let mut body = chat(model, stream, "Count for me.");
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let request = request("POST", "/v1/chat/completions", body.to_string().into(), headers);
    daemon.caller().send(request).await.unwrap()
}

/// What is recorded of a request.
async fn record(daemon: &Daemon, answer: &Answer) -> Value {
    let id = answer.header("x-lovable-request-id").unwrap();
    for _ in 0..200 {
        let record = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await;
        if record.status == 200 {
            return record.json();
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} is not recorded");
}

async fn spent(daemon: &Daemon) -> f64 {
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    status["cloud"]["spent_today_usd"].as_f64().unwrap_or_else(|| panic!("{status}"))
}

#[tokio::test]
async fn each_provider_is_asked_in_its_own_words_with_its_own_key() {
    let sold = all().await;
    let each: Vec<&Sold> = sold.iter().collect();
    let models = [
        "gpt-5-mini",
        "claude-haiku-4-5",
        "gemini-2.5-flash",
        "llama-3.1-8b-instant",
        "mistralai/mistral-small",
    ];
    let prices: Vec<String> = models.iter().map(|it| format!("\"{it}\" = {PRICE_SET}")).collect();
    let cloud = format!("enabled = true\ndaily_usd = 1\nprices = {{ {} }}", prices.join(", "));
    let daemon = start(&each, &cloud).await;
    let paths = [
        "POST /v1/chat/completions ",
        "POST /v1/messages ",
        "POST /v1beta/openai/chat/completions ",
        "POST /openai/v1/chat/completions ",
        "POST /api/v1/chat/completions ",
    ];
    for (at, model) in models.iter().enumerate() {
        for stream in [true, false] {
            let theirs = [("authorization", "Bearer callers-own"), ("x-api-key", "callers-own")];
            let answer = ask(&daemon, model, stream, &theirs).await;
            assert_eq!(answer.status, 200, "{model} {}", answer.text());
            let kind = sold[at].kind;
            let header = |name: &str| answer.header(name).unwrap().to_owned();
            assert_eq!(header("x-lovable-kind"), kind);
            assert_eq!(
                (header("x-lovable-zone").as_str(), header("x-lovable-substituted").as_str()),
                ("cloud", "no")
            );
            assert!(answer.text().contains("w5"), "{}", answer.text());
            let asked = sold[at].asked().pop().unwrap();
            assert!(asked.start.starts_with(paths[at]), "{}", asked.start);
            assert_eq!(asked.body["model"], *model);
            // There is a limit for the day, so there is one for the answer.
            let limit = if kind == "openai" { "max_completion_tokens" } else { "max_tokens" };
            assert_eq!(asked.body[limit], 4096, "{}", asked.body);
            let version = asked.header("anthropic-version");
            assert_eq!(version.as_deref(), (kind == "anthropic").then_some("2023-06-01"));
            let record = record(&daemon, &answer).await;
            let usage = &record["usage"];
            let (input, output) =
                (usage["input_tokens"].as_f64().unwrap(), usage["output_tokens"].as_f64().unwrap());
            assert_eq!(output, 5.0, "{record}");
            let cost = record["cost_usd"].as_f64().unwrap();
            assert!((cost - (input * 1e-6 + output * 4e-6)).abs() < 1e-9, "{record}");
            assert_eq!(
                (record["cost_is_bound"].as_bool(), record["zone"].as_str()),
                (Some(false), Some("cloud"))
            );
        }
    }
    let billed: u64 = sold.iter().map(Sold::billed).sum();
    assert!((spent(&daemon).await - billed as f64 / 1e9).abs() < 1e-9, "what is counted is what is billed");
    // Each key went to its own address and nothing else of that sort did.
    for provider in &sold {
        for seen in provider.seen() {
            let own = format!("sk-{}", provider.kind);
            for (_, key) in KEYS {
                assert_eq!(seen.head.contains(key), key == own, "{}", seen.head);
            }
            assert!(!seen.head.contains("callers-own"), "{}", seen.head);
        }
        let lists = provider.seen().len() - provider.asked().len();
        assert_eq!(lists, 1, "{} is asked for its list rarely", provider.kind);
    }
    let rows = daemon.caller().get("/lovable/v1/stats?by=zone").await.json();
    let row = &rows["rows"].as_array().unwrap().iter().find(|it| it["zone"] == "cloud").unwrap().clone();
    assert!((row["cost_usd"].as_f64().unwrap() - billed as f64 / 1e9).abs() < 1e-9, "{row}");
    let page = String::from_utf8(daemon.ctl(&["status"]).await.stdout).unwrap();
    assert!(page.contains("of $1.00 spent today"), "{page}");
    assert!(page.contains("up (cloud)"), "{page}");
    for path in ["/lovable/v1/config", "/lovable/v1/status", "/lovable/v1/servers"] {
        assert!(!daemon.caller().get(path).await.text().contains("sk-"), "{path}");
    }
    assert!(!daemon.log().contains("sk-openai"));
}

#[tokio::test]
async fn nobody_in_the_cloud_is_contacted_unless_it_is_enabled() {
    let sold = all().await;
    let mut options = Options::looking();
    for (name, key) in KEYS {
        options = options.env(name, key);
    }
    let entries: String = sold.iter().map(|it| it.entry("")).collect();
    let local = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let daemon = options.config(&entries).simulated(&local, "local", 0).start().await;
    for headers in [&[][..], &[("x-lovable-fallback", "cloud")]] {
        for model in ["gpt-5-mini", "openai/gpt-5-mini", "gpt-5-mini@openai", "claude-haiku-4-5"] {
            let answer = ask(&daemon, model, false, headers).await;
            assert_ne!(answer.header("x-lovable-zone"), Some("cloud"), "{}", answer.text());
        }
    }
    let port = sold[0].port();
    for url in ["https://api.openai.com/v1".to_owned(), format!("https://127.0.0.1:{port}")] {
        let answer = daemon.caller().post("/lovable/v1/servers", &json!({ "url": url })).await;
        assert_eq!(answer.status, 403, "{url} {}", answer.text());
    }
    // Longer than the table of sockets and all pauses between questions take.
    sleep(Duration::from_secs(3)).await;
    let _ = daemon.caller().post("/lovable/v1/probe", &json!({})).await;
    sleep(Duration::from_secs(1)).await;
    for provider in &sold {
        assert_eq!(provider.connections(), 0, "{}", provider.kind);
    }
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    assert_eq!(status["cloud"], Value::Null);
}

#[tokio::test]
async fn a_daemon_that_may_not_use_the_cloud_any_more_does_not_remember_it() {
    let openai = Sold::start("openai", &["gpt-5-mini"]).await;
    let mut daemon = start(&[&openai], "enabled = true").await;
    assert_eq!(ask(&daemon, "gpt-5-mini", false, &[]).await.status, 200);
    assert!(daemon.stop().await.success());
    let before = openai.connections();
    let text = std::fs::read_to_string(daemon.state().parent().unwrap().join("config.toml")).unwrap();
    let text = text.replace("enabled = true", "enabled = false");
    std::fs::write(daemon.state().parent().unwrap().join("config.toml"), text).unwrap();
    daemon.start_again();
    daemon.until_answering().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&daemon, "gpt-5-mini", false, &[]).await.status, 503);
    assert_eq!(openai.connections(), before);
}

#[tokio::test]
async fn what_is_here_answers_first_and_the_cloud_only_where_that_was_said() {
    let groq = Sold::start("groq", &["qwen/qwen3-8b", "llama-3.1-8b-instant"]).await;
    let offer = Offer { family: "qwen3".into(), parameters: "8.2B".into(), ..Offer::named("qwen3:8b") };
    let local =
        Simulated::start(Shape::Ollama, Script { models: vec![offer], ..Script::default() }).await.unwrap();
    let options = options(&[&groq], "enabled = true").simulated(&local, "local", 0);
    let daemon = until_up(options.start().await, 1).await;
    let cloud = [("x-lovable-fallback", "cloud")];
    for model in ["qwen3:8b", "auto"] {
        let answer = ask(&daemon, model, true, &cloud).await;
        assert_eq!(answer.header("x-lovable-zone"), Some("machine"), "{}", answer.text());
    }
    local.change(|script| script.plan = Plan::Always(Fault::ServerError));
    for (headers, expected) in [(&[][..], 502), (&[("x-lovable-fallback", "local")], 502), (&cloud, 200)] {
        let answer = ask(&daemon, "qwen3:8b", true, headers).await;
        assert_eq!(answer.status, expected, "{headers:?} {}", answer.text());
        if expected == 200 {
            assert_eq!(answer.header("x-lovable-zone"), Some("cloud"));
            assert_eq!(answer.header("x-lovable-substituted"), Some("cloud"));
            assert_eq!(answer.header("x-lovable-model"), Some("qwen/qwen3-8b"));
            assert!(answer.text().contains("\"model\":\"qwen/qwen3-8b\""), "{}", answer.text());
        }
    }
    assert_eq!(groq.asked().len(), 1);
}

#[tokio::test]
async fn refusals_mean_what_their_provider_means() {
    let openai = Sold::start("openai", &["gpt-5-mini"]).await;
    let quota = json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota",
        "code": "insufficient_quota"}});
    let daemon = start(&[&openai], "enabled = true").await;
    let refuse = |status: u16, body: Value| openai.change(|it| it.refuses = Some((status, body)));
    // The caller's own mistake is told in the provider's words, and asked once.
    refuse(400, json!({"error": {"message": "bad things", "type": "invalid_request_error", "code": null}}));
    let answer = ask(&daemon, "gpt-5-mini", false, &[]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("bad things"), "{}", answer.text());
    refuse(429, quota);
    let answer = ask(&daemon, "gpt-5-mini", false, &[]).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((500..=600).contains(&wait), "{wait}");
    let before = openai.asked().len();
    assert_eq!(ask(&daemon, "gpt-5-mini", false, &[]).await.status, 429);
    assert_eq!(openai.asked().len(), before, "it is left alone until somebody has paid");

    let anthropic = Sold::start("anthropic", &["claude-haiku-4-5"]).await;
    let daemon = start(&[&anthropic], "enabled = true").await;
    anthropic.change(|it| it.key.1 = "another".to_owned());
    assert_ne!(ask(&daemon, "claude-haiku-4-5", false, &[]).await.status, 200);
    let servers = daemon.servers().await;
    assert_eq!(servers[0]["problem"], "needs_key", "{servers:?}");
    assert_eq!((&servers[0]["id"], &servers[0]["zone"]), (&json!("anthropic"), &json!("cloud")));
}

#[tokio::test]
async fn what_may_not_be_paid_for_is_refused_with_a_reason_and_not_sent() {
    let openai = Sold::start("openai", &["gpt-5-mini", "gpt-5"]).await;
    let cloud =
        format!("enabled = true\ndaily_usd = 0.02\nprices = {{ \"openai/gpt-5-mini\" = {PRICE_SET} }}");
    let daemon = start(&[&openai], &cloud).await;
    let refused = async |model: &str, more: Value, why: &str| {
        let answer = ask_with(&daemon, model, false, &[], more).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.text().contains(why), "{why}: {}", answer.text());
    };
    refused("gpt-5", json!({}), "nobody said what `gpt-5` costs").await;
    refused("gpt-5-mini", json!({"max_tokens": 100_000}), "of $0.0200 for today $0.0200 are left").await;
    refused("gpt-5-mini", json!({"web_search_options": {}}), "`web_search_options`").await;
    assert_eq!(openai.asked().len(), 0);
    let answer = ask_with(&daemon, "gpt-5-mini", false, &[], json!({"max_tokens": 100})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(spent(&daemon).await > 0.0);
    // A stream that breaks counts with the most that it can have cost.
    openai.change(|it| it.dies = true);
    let answer = ask_with(&daemon, "gpt-5-mini", true, &[], json!({"max_tokens": 1000})).await;
    let told = record(&daemon, &answer).await;
    assert_eq!(told["cost_is_bound"], true, "{told}");
    assert!(told["cost_usd"].as_f64().unwrap() > 0.004, "{told}");
}

#[tokio::test]
async fn calls_that_gemini_does_not_number_reach_clients_that_need_it() {
    let gemini = Sold::start("gemini", &["gemini-2.5-flash"]).await;
    let daemon = start(&[&gemini], "enabled = true").await;
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {}}});
    let answer =
        ask_with(&daemon, "gemini-2.5-flash", true, &[], json!({"tools": [tool("one"), tool("two")]})).await;
    let text = answer.text();
    let events = text.lines().filter_map(|it| serde_json::from_str::<Value>(it.strip_prefix("data: ")?).ok());
    let calls = events.filter_map(|it| it["choices"][0]["delta"]["tool_calls"].as_array().cloned()).flatten();
    let numbers: Vec<_> = calls.map(|it| (it["index"].clone(), it["function"]["name"].clone())).collect();
    assert_eq!(numbers, [(json!(0), json!("one")), (json!(1), json!("two"))], "{text}");
}

#[tokio::test]
async fn any_other_provider_is_asked_for_its_list_with_its_key_and_counted_too() {
    let other = Sold::start("openai-compatible", &["deep-one"]).await;
    let entry = other.entry("zone = \"cloud\"\nname = \"deep\"\nkey_env = \"DEEP_KEY\"");
    let cloud =
        format!("[cloud]\nenabled = true\ndaily_usd = 1\nprices = {{ \"deep-one@deep\" = {PRICE_SET} }}");
    let options =
        Options::alone().env("DEEP_KEY", "sk-openai-compatible").config(&format!("{cloud}\n{entry}"));
    let daemon = until_up(options.start().await, 1).await;
    let answer = ask(&daemon, "deep-one", false, &[]).await;
    assert_eq!((answer.status, answer.header("x-lovable-zone")), (200, Some("cloud")), "{}", answer.text());
    assert_eq!(other.asked()[0].body["max_tokens"], 4096);
    assert!((spent(&daemon).await - other.billed() as f64 / 1e9).abs() < 1e-9);
    assert!(other.seen().iter().all(|it| !it.start.starts_with("GET / ")), "nobody is asked who they are");
}

#[tokio::test]
async fn without_a_store_nothing_is_bought() {
    let openai = Sold::start("openai", &["gpt-5-mini"]).await;
    let mut daemon = start(&[&openai], "enabled = true").await;
    assert!(daemon.stop().await.success());
    std::fs::remove_dir_all(daemon.state()).unwrap();
    std::fs::write(daemon.state(), "").unwrap();
    daemon.start_again();
    daemon.until_answering().await;
    let daemon = until_up(daemon, 1).await;
    let answer = ask(&daemon, "gpt-5-mini", false, &[]).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("nothing can be written down"), "{}", answer.text());
    assert_eq!(openai.asked().len(), 0);
}

/// Requests of all sizes without end; what becomes of them does not matter here.
async fn spend(caller: crate::caller::Caller, seed: u64) {
    let mut number = seed;
    loop {
        number += 1;
        let mut body = chat("gpt-5-mini", number.is_multiple_of(2), &"x".repeat((number % 7 * 100) as usize));
        if !number.is_multiple_of(5) {
            body["max_tokens"] = json!(10 + number % 50);
        }
        let _ = caller.try_post("/v1/chat/completions", &body).await;
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_never_costs_more_than_it_may_though_the_daemon_is_killed_again_and_again() {
    let rounds = times(6, 60);
    let openai = Sold::start("openai", &["gpt-5-mini"]).await;
    openai.change(|it| (it.words, it.between) = (40, Duration::from_millis(1)));
    let daily = 0.02 * rounds as f64;
    let cloud = format!("enabled = true\ndaily_usd = {daily}\nprices = {{ \"gpt-5-mini\" = {PRICE_SET} }}");
    let mut daemon = start(&[&openai], &cloud).await;
    for _ in 0..rounds {
        let load: Vec<_> = (0..6).map(|it| tokio::spawn(spend(daemon.caller(), it * 1000))).collect();
        sleep(Duration::from_millis(fastrand::u64(50..400))).await;
        daemon.kill().await;
        load.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(openai.billed() as f64 / 1e9 <= daily, "{} nanos are billed", openai.billed());
        daemon.start_again();
        daemon.until_answering().await;
        let counted = spent(&daemon).await;
        assert!(openai.billed() as f64 / 1e9 <= counted + 1e-9, "{} {counted}", openai.billed());
    }
    // Then all that is left is spent, and no more.
    let load: Vec<_> = (0..6).map(|it| tokio::spawn(spend(daemon.caller(), it * 1000))).collect();
    let refused = async {
        loop {
            let answer = ask_with(&daemon, "gpt-5-mini", false, &[], json!({"max_tokens": 40})).await;
            if answer.text().contains("are left") {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("the day's money is spent at last");
    load.iter().for_each(tokio::task::JoinHandle::abort);
    let billed = openai.billed() as f64 / 1e9;
    assert!(billed <= daily, "{billed} of {daily}");
    let mut table =
        Table::new("SIGKILL under load in the cloud", &["kills", "requests", "billed", "counted", "limit"]);
    let counted = spent(&daemon).await;
    table.row(&[&rounds, &openai.asked().len(), &billed, &counted, &daily]);
    table.show();
}
