//! What the programs say of themselves: to launchd, to shells, in manual pages and in the log.

use std::{collections::BTreeSet, fs, path::Path};

use lovable::simulate::{Offer, Script, Shape, Simulated};

use crate::{
    caller::{chat, request},
    lifecycle::{Home, LOVABLECTL, check, output, until},
};

#[tokio::test]
async fn the_agent_for_launchd_is_a_property_list_with_all_it_needs() {
    let home = Home::new();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("launchd/dev.lovable.lovabled.plist");
    let mut python = home.command("python3");
    let lint = "import plistlib, sys\n\
        it = plistlib.load(open(sys.argv[1], 'rb'))\n\
        socket = it['Sockets'][it['EnvironmentVariables']['LOVABLE_LAUNCHD_SOCKET']]\n\
        assert socket['SockPathName'].endswith('/Library/Caches/lovable/lovabled.sock'), it\n\
        assert socket['SockPathMode'] == 0o600 and it['Umask'] == 0o077, it\n\
        assert it['KeepAlive'] == {'SuccessfulExit': False} and it['RunAtLoad'] is True, it\n\
        assert it['ExitTimeOut'] > 30 and it['SoftResourceLimits']['Core'] == 0, it\n\
        assert it['StandardErrorPath'].endswith('/Library/Logs/lovable/lovabled.log'), it\n\
        assert it['Label'] + '.plist' == sys.argv[1].rsplit('/', 1)[1], it\n";
    python.args(["-c", lint]).arg(list);
    check(&output(python).await, 0, &[]);
}

/// What a shell would offer after this line.
async fn completed(home: &Home, line: &str) -> String {
    let bin = Path::new(LOVABLECTL).parent().unwrap();
    let script = format!(
        "source <(lovablectl completions bash); COMP_LINE='{line}' COMP_POINT={}; _lovablectl; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.len()
    );
    let mut bash = home.command("bash");
    bash.args(["-c", &script]).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let said = output(bash).await;
    check(&said, 0, &[]);
    String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn a_shell_completes_commands_and_the_names_that_the_daemon_knows() {
    let script =
        Script { models: vec![Offer::named("qwen3:8b"), Offer::named("other")], ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let home = Home::with(&server);
    // Without a daemon there are commands, and no names.
    assert_eq!(completed(&home, "lovablectl doc").await, "doctor");
    assert_eq!(completed(&home, "lovablectl models q").await, "");
    let running = home.start(&[]).await;
    home.ready().await;
    assert_eq!(completed(&home, "lovablectl models q").await, "qwen3:8b");
    assert_eq!(completed(&home, "lovablectl models qwen3:").await, "8b", "bash has the rest already");
    let all = completed(&home, "lovablectl generate -m ").await;
    assert_eq!(all.lines().collect::<BTreeSet<_>>(), ["other", "qwen3:8b"].into());
    let id = home.caller().get("/lovable/v1/servers").await.json()["servers"][0]["id"].clone();
    assert_eq!(completed(&home, "lovablectl servers drain v").await, id.as_str().unwrap());
    if Path::new("/usr/bin/fish").exists() {
        let mut fish = home.command("/usr/bin/fish");
        fish.args(["-c", "lovablectl completions fish | source; complete -C 'lovablectl models q'"]);
        fish.env("PATH", format!("{}:/usr/bin:/bin", Path::new(LOVABLECTL).parent().unwrap().display()));
        check(&output(fish).await, 0, &["qwen3:8b"]);
    }
    running.stop().await;
    for shell in ["zsh", "fish"] {
        check(&home.ctl(&["completions", shell]).await, 0, &["lovablectl"]);
        let program = Path::new("/usr/bin").join(shell);
        if !program.exists() {
            continue;
        }
        let file = home.at(format!("completions.{shell}"));
        fs::write(&file, home.ctl(&["completions", shell]).await.stdout).unwrap();
        let mut parse = home.command(program);
        parse.arg("-n").arg(file);
        check(&output(parse).await, 0, &[]);
    }
}

#[tokio::test]
async fn manual_pages_are_printed_and_written() {
    let home = Home::new();
    check(&home.ctl(&["man"]).await, 0, &["lovablectl", "doctor"]);
    check(&home.ctl(&["man", "lovabled"]).await, 0, &["daemonize"]);
    check(&home.ctl(&["man", "nonsense"]).await, 2, &["lovablectl-servers"]);
    check(&home.ctl(&["man", "--dir", "pages"]).await, 0, &[]);
    for name in ["lovabled.1", "lovablectl.1", "lovablectl-service-install.1"] {
        assert!(home.at("pages").join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_each_request_and_no_prompt() {
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let home = Home::with(&server);
    let running = home.start(&["--log-format", "json"]).await;
    home.ready().await;
    let body = chat("sim", false, "xylophone").to_string().into();
    let asked = request("POST", "/v1/chat/completions", body, &[("user-agent", "curl/8.5.0")]);
    home.caller().send(asked).await.unwrap();
    home.caller().chat("sim", true).await.unwrap();
    home.caller().chat("nonsense", true).await.unwrap();
    let lines = until("three lines", async || {
        let log = home.log();
        let lines: Vec<serde_json::Value> = log
            .lines()
            .filter_map(|it| serde_json::from_str(it).ok())
            .filter(|it: &serde_json::Value| it["fields"]["request"].is_string())
            .collect();
        (lines.len() == 3).then_some(lines)
    })
    .await;
    for (line, ending, status) in
        [(&lines[0], "delivered", 200), (&lines[1], "delivered", 200), (&lines[2], "refused", 404)]
    {
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["fields"]["message"], ending, "{line}");
        assert_eq!(line["fields"]["status"], status, "{line}");
    }
    assert!(
        lines[0]["fields"]["server"].is_string() && lines[0]["fields"]["total_ms"].is_u64(),
        "{}",
        lines[0]
    );
    assert_eq!(lines[0]["fields"]["caller"], "curl");
    assert!(!home.log().contains("xylophone"), "{}", home.log());
    running.stop().await;
}
