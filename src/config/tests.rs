//! Whole files and environments, and what comes of them.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::{
    registry::Lookup,
    server::{Endpoint, Zone},
    upstream::Key,
};

/// A home with a configuration file in it.
struct Home(tempfile::TempDir);

impl Home {
    fn with(text: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write("config.toml", text, 0o600);
        home
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load(&self, variables: &[(&str, &str)], flags: Flags) -> Result<Loaded, String> {
        let config = self.0.path().join("config.toml");
        let env = |name: &str| match name {
            "LOVABLE_CONFIG" => Some(OsString::from(&config)),
            name => variables.iter().find(|it| it.0 == name).map(|it| OsString::from(it.1)),
        };
        let around = Surroundings {
            system: System::Linux,
            uid: 1000,
            home: Some(self.0.path().to_owned()),
            env: &env,
        };
        load(&flags, &around, None).map_err(|error| error.to_string())
    }
}

fn loaded(text: &str) -> Loaded {
    Home::with(text).load(&[], Flags::default()).unwrap()
}

fn problem(text: &str) -> String {
    Home::with(text).load(&[], Flags::default()).unwrap_err()
}

fn check_problem(text: &str, line: usize, expected: &str) {
    let problem = problem(text);
    assert!(problem.contains(&format!("config.toml:{line}:")), "{problem}");
    assert!(problem.contains(expected), "{problem}");
}

#[test]
fn without_any_file_everything_has_a_default() {
    let env = |_: &str| None;
    let around = Surroundings { system: System::Linux, uid: 1000, home: Some("/nowhere".into()), env: &env };
    let loaded = load(&Flags::default(), &around, None).unwrap();
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.config.limits, Limits::default());
    assert!(loaded.settings.iter().all(|it| it.from == Origin::Default));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let env = |_: &str| None;
    let around = Surroundings { system: System::Linux, uid: 1000, home: Some("/nowhere".into()), env: &env };
    let paths = PathFlags { config: Some("/nowhere/x.toml".into()), ..PathFlags::default() };
    let error = load(&Flags { paths, ..Flags::default() }, &around, None).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the configuration /nowhere/x.toml"), "{error}");
}

#[test]
fn settings_are_read() {
    let loaded = loaded(
        r#"
        aliases = { "gpt-5" = "qwen3:8b" }
        [patience]
        connect = "500ms"
        before_commit = "2m"
        [limits]
        body = "1MiB"
        [discovery]
        ports = [9000, 9001]
        socket_table = false
        trust = ["10.0.0.0/8"]
        [fallback]
        default = "none"
        chains = { "big" = ["a", " b "] }
        [listen]
        address = "127.0.0.1:8080"
        hosts = ["Box.local"]
        origins = ["https://chat.example/"]
        [log]
        level = "debug"
        format = "json"
        [stats]
        tracking = false
        "#,
    );
    let config = loaded.config;
    assert_eq!(config.patience.connect, Duration::from_millis(500));
    assert_eq!(config.patience.before_commit, Duration::from_secs(120));
    assert_eq!(config.patience.gap, Patience::default().gap);
    assert_eq!(config.limits.body, Size::mib(1));
    assert_eq!(config.discovery.ports, [9000, 9001]);
    assert!(!config.discovery.socket_table);
    assert_eq!(config.aliases["gpt-5"], "qwen3:8b");
    assert_eq!(config.fallback.default, Fallback::None);
    assert_eq!(config.fallback.chains["big"], ["a", "b"]);
    let shown = loaded.settings.iter().find(|it| it.key == "fallback.chains.big").unwrap();
    assert_eq!((&shown.value, shown.from), (&json!(["a", "b"]), Origin::File));
    assert_eq!(config.listen.hosts, ["box.local"]);
    assert_eq!(config.listen.origins, ["https://chat.example"]);
    assert_eq!(config.log, Log { format: LogFormat::Json, level: "debug".to_owned() });
    assert!(!config.stats.tracking);
}

#[test]
fn fleets_in_dns_are_read_and_have_bounds() {
    let loaded = loaded(
        r#"
        [[discovery.dns]]
        name = "_vLLM._tcp.Lab.example."
        [[discovery.dns]]
        name = "pool.lab.example"
        port = 8000
        kind = "vllm"
        resolver = "127.0.0.1:8600"
        ttl_min = "1s"
        ttl_max = "10m"
        keep = "1h"
        [[discovery.dns]]
        name = "pool.lab.example"
        port = 8001
        resolver = "fd00::53"
        "#,
    );
    let lookup = |name: &str, port| Lookup { name: name.to_owned(), port };
    let [plain, pool, other] = &loaded.config.discovery.fleets[..] else { panic!("{loaded:?}") };
    assert_eq!(*plain, Fleet::named(lookup("_vllm._tcp.lab.example", None)));
    assert_eq!(
        *pool,
        Fleet {
            lookup: lookup("pool.lab.example", Some(8000)),
            kind: Some("vllm".into()),
            resolver: Some("127.0.0.1:8600".parse().unwrap()),
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(600),
            keep: Duration::from_secs(3600),
        }
    );
    assert_eq!(other.resolver, Some("[fd00::53]:53".parse().unwrap()));
    let wrong = |line: &str, words: &str| check_problem(&format!("[[discovery.dns]]\n{line}\n"), 2, words);
    for name in
        ["10.0.0.7", "localhost", "a..b", "a b.example", "http://pool.example", "pool.example:8000", "."]
    {
        wrong(&format!("name = \"{name}\""), "`discovery.dns[0].name` must be a name in DNS");
    }
    wrong(
        "resolver = \"dns.example\"\nname = \"a.b\"",
        "`discovery.dns[0].resolver` must be the address of a resolver",
    );
    let wrong = |lines: &str, words: &str| {
        check_problem(&format!("[[discovery.dns]]\nname = \"a.b\"\n{lines}\n"), 1, words);
    };
    wrong("ttl_min = \"10ms\"", "`discovery.dns[0].ttl_min` must be at least a second");
    wrong("ttl_max = \"2s\"", "`discovery.dns[0].ttl_min` must not be longer than `ttl_max`");
    wrong("keep = \"30s\"", "`discovery.dns[0].keep` must not be shorter than `ttl_max`");
    wrong("kind = \"openai\"", "`discovery.dns[0].kind` cannot be one that sells answers");
    check_problem("[[discovery.dns]]\nport = 8000\n", 1, "`discovery.dns[0].name` is missing");
    check_problem(
        "[[discovery.dns]]\nname = \"a.b\"\n[[discovery.dns]]\nname = \"A.b\"\n",
        3,
        "`discovery.dns[1].name` is there twice: a.b",
    );
}

#[test]
fn a_wrong_name_is_refused_with_its_line_and_the_nearest() {
    check_problem(
        "[patience]\nconect = \"5s\"\n",
        2,
        "unknown setting `patience.conect`; did you mean `patience.connect`?",
    );
    check_problem("\n[patiance]\n", 2, "unknown setting `patiance`; did you mean `patience`?");
    check_problem("[[servers]]\nurl = \"http://a\"\nlimits = 3\n", 3, "did you mean `servers[0].limit`?");
    check_problem("[zzz]\n", 1, "known here: servers, aliases");
    // Sections of later versions are unknown in this one.
    check_problem("[hardware]\nenabled = true\n", 1, "unknown setting `hardware`");
}

#[test]
fn a_wrong_value_is_refused_with_its_line_and_what_is_expected() {
    check_problem("[patience]\n\ngap = 5\n", 3, "`patience.gap` must be a duration");
    check_problem("[patience]\ngap = \"0s\"\n", 1, "`patience.gap` must be longer than nothing");
    check_problem("[limits]\nbody = \"64\"\n", 2, "`limits.body` must be a size");
    check_problem("[discovery]\nports = [1, 0]\n", 2, "`discovery.ports` entry 2: must be a port");
    check_problem("[discovery]\nports = 7\n", 2, "`discovery.ports` must be a list");
    check_problem("[fallback]\nlimit = \"cloud\"\n", 1, "cloud servers are not enabled");
    check_problem("[fallback]\nchains = 3\n", 2, "`fallback.chains` must be a table");
    for wrong in ["3", "[]", "[\"\"]", "[3]", "\"b\""] {
        let text = format!("[fallback.chains]\n\nbig = {wrong}\n");
        check_problem(&text, 3, "`fallback.chains.big` must be a list of names of models");
    }
    check_problem("[fallback.chains]\na = [\"b\", \"a\"]\n", 2, "cannot have `a` in it");
    check_problem("[fallback.chains]\nauto = [\"b\"]\n", 2, "`fallback.chains.auto` has no use");
    check_problem("[fallback.chains]\na = [\"auto\"]\n", 2, "cannot have `auto` in it");
    check_problem("[listen]\naddress = \"80\"\n", 2, "`listen.address` must be an address and port");
    check_problem("[listen]\norigins = [\"*\"]\n", 1, "name an origin");
    check_problem("[log]\nlevel = \"loud\"\n", 1, "`log.level` must be one of");
    check_problem("[stats]\ntracking = \"no\"\n", 2, "`stats.tracking` must be true or false");
    check_problem(
        "[stats]\notlp = \"http://me:pw@localhost\"\n",
        2,
        "`stats.otlp` must be the URL of a collector such as \"http://127.0.0.1:4318\": it has a name or a \
         password in it, which would be shown and logged",
    );
    check_problem("[stats]\nmax_size = \"1MiB\"\n", 1, "`stats.max_size` must be at least 8MiB");
    check_problem("[aliases]\na = \"a\"\n", 2, "`aliases.a` stands for itself");
    check_problem("patience = 3\n", 1, "`patience` must be a table");
    check_problem("[servers]\nurl = \"http://a\"\n", 1, "must be a list of tables: [[servers]]");
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = problem("[patience]\ngap = 5\nlod = \"5s\"\n[log]\nformat = \"xml\"\n");
    assert_eq!(problems.lines().count(), 3, "{problems}");
}

#[test]
fn broken_toml_names_the_line_and_does_not_quote_it() {
    let problem = problem("[patience]\nkey = \"sk-secret\n");
    assert!(problem.contains("config.toml:2:"), "{problem}");
    assert!(!problem.contains("sk-secret"), "{problem}");
}

#[test]
fn servers_are_read() {
    let home = Home::with(
        r#"
        [[servers]]
        url = "http://me:hunter2@box:8000/v1"
        name = "big"
        kind = "vllm"
        key_file = "key"
        priority = -1
        limit = 4
        zone = "lan"
        [[servers]]
        url = "unix:/run/vllm.sock"
        enabled = false
        key_env = "MY_KEY"
        "#,
    );
    home.write("key", "sk-1\n", 0o600);
    let loaded = home.load(&[("MY_KEY", "sk-2")], Flags::default()).unwrap();
    let [big, socket] = &loaded.config.servers[..] else { panic!("{:?}", loaded.config.servers) };
    assert_eq!(big.endpoint.to_string(), "http://box:8000");
    assert_eq!((big.priority, big.limit, big.zone), (-1, Some(4), Some(Zone::Lan)));
    assert_eq!(big.key, Key::new("sk-1"));
    assert!(!socket.enabled);
    assert_eq!(socket.key, Key::new("sk-2"));
    let everything = format!("{} {:?}", loaded.show(), loaded);
    for secret in ["sk-1", "sk-2", "hunter2"] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

#[test]
fn a_server_that_makes_no_sense_is_refused() {
    check_problem("[[servers]]\nname = \"x\"\n", 1, "`servers[0].url` is missing");
    check_problem("[[servers]]\nurl = \"ftp://x\"\n", 2, "`servers[0].url` must be an address");
    check_problem(
        "[[servers]]\nurl = \"http://a\"\nkind = \"olama\"\n",
        3,
        "`servers[0].kind` must be one of lovable",
    );
    check_problem("[[servers]]\nurl = \"http://a\"\nlimit = 0\n", 3, "must be a whole number from 1");
    check_problem("[[servers]]\nurl = \"http://a\"\nkey_env = \"sk-1\"\n", 3, "it is not the key itself");
    check_problem(
        "[[servers]]\nurl = \"http://a\"\nkey_env = \"A\"\nkey_file = \"b\"\n",
        1,
        "exclude each other",
    );
    check_problem("[[servers]]\nurl = \"http://a\"\ntls = { ca = \"x\" }\n", 3, "needs an https address");
    check_problem("[[servers]]\nurl = \"https://a\"\ntls = { ca = \"x\" }\n", 3, "cannot read");
    check_problem(
        "[[servers]]\nurl = \"https://a\"\ntls = { pin = \"x\" }\n",
        3,
        "`servers[0].tls.pin` must be \"sha256/\"",
    );
    check_problem(
        "[[servers]]\nurl = \"http://localhost:1\"\n[[servers]]\nurl = \"http://127.0.0.1:1/v1\"\n",
        3,
        "is there twice",
    );
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let home = Home::with("[[servers]]\nurl = \"http://a\"\nkey_file = \"key\"\n");
    for mode in [0o640, 0o604, 0o660] {
        home.write("key", "sk-1", mode);
        let problem = home.load(&[], Flags::default()).unwrap_err();
        assert!(problem.contains("others may read or change it"), "{problem}");
    }
    home.write("key", "sk-1", 0o400);
    assert!(home.load(&[], Flags::default()).is_ok());
    home.write("key2", "sk-1", 0o400);
    fs::remove_file(home.0.path().join("key")).unwrap();
    let problem = home.load(&[], Flags::default()).unwrap_err();
    assert!(problem.contains("No such file"), "{problem}");
}

#[test]
fn an_unset_key_variable_is_a_warning() {
    let loaded = loaded("[[servers]]\nurl = \"http://a\"\nkey_env = \"NOT_SET\"\n");
    assert!(loaded.warnings[0].contains("the variable NOT_SET is not set"), "{:?}", loaded.warnings);
}

#[test]
fn the_environment_names_servers() {
    let home = Home::with("");
    let variables = [
        ("OLLAMA_HOST", "0.0.0.0"),
        ("VLLM_BASE_URL", "http://gpu:8000/v1"),
        ("VLLM_API_KEY", "sk-v"),
        ("LMSTUDIO_BASE_URL", "unix:/tmp/lm.sock"),
    ];
    let config = home.load(&variables, Flags::default()).unwrap().config;
    let urls: Vec<_> = config.servers.iter().map(|it| it.endpoint.to_string()).collect();
    assert_eq!(urls, ["http://127.0.0.1:11434", "http://gpu:8000", "unix:/tmp/lm.sock"]);
    let key = |url: &str| config.keys().get(&Endpoint::parse(url).unwrap()).cloned();
    assert_eq!(key("http://gpu:8000"), Key::new("sk-v"));
    assert_eq!(key("http://gpu:8001"), None);
    assert_eq!(key("https://gpu:8000"), None);
    assert_eq!(key("http://127.0.0.1:8000"), None);
}

#[test]
fn a_base_url_goes_before_the_host_variable() {
    let variables = [("OLLAMA_HOST", "a"), ("OLLAMA_BASE_URL", "http://b:1")];
    let config = Home::with("").load(&variables, Flags::default()).unwrap().config;
    assert_eq!(config.servers.len(), 1);
    assert_eq!(config.servers[0].endpoint.to_string(), "http://b:1");
}

#[test]
fn a_key_without_an_address_is_for_the_usual_address_only() {
    let config = Home::with("").load(&[("VLLM_API_KEY", "sk-v")], Flags::default()).unwrap().config;
    assert!(config.servers.is_empty());
    let key = |url: &str| config.keys().get(&Endpoint::parse(url).unwrap()).cloned();
    assert_eq!(key("http://127.0.0.1:8000"), Key::new("sk-v"));
    assert_eq!(key("http://[::1]:8000"), Key::new("sk-v"));
    assert_eq!(key("http://127.0.0.1:8001"), None);
}

#[test]
fn the_environment_switches_kinds_off() {
    let variables = [("OLLAMA_ENABLED", "false"), ("OLLAMA_HOST", "a"), ("VLLM_ENABLED", "maybe")];
    let loaded = Home::with("").load(&variables, Flags::default()).unwrap();
    assert!(loaded.config.servers.is_empty());
    assert!(loaded.config.disabled_kinds.contains("ollama"));
    assert!(loaded.warnings[0].starts_with("VLLM_ENABLED"), "{:?}", loaded.warnings);
}

#[test]
fn another_programs_wrong_variable_stops_nothing() {
    let loaded = Home::with("").load(&[("OLLAMA_HOST", "ftp://x")], Flags::default()).unwrap();
    assert!(loaded.warnings[0].starts_with("OLLAMA_HOST: unknown scheme"), "{:?}", loaded.warnings);
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let home = Home::with("[listen]\naddress = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\"\n");
    let level = |loaded: &Loaded, key: &str| {
        let setting = loaded.settings.iter().find(|it| it.key == key).unwrap().clone();
        (setting.value.as_str().unwrap().to_owned(), setting.from, setting.at.unwrap_or_default())
    };
    let file = home.load(&[], Flags::default()).unwrap();
    assert_eq!(level(&file, "listen.address").0, "127.0.0.1:1");
    assert!(level(&file, "listen.address").2.ends_with("config.toml:2"));
    let variables = [("LOVABLE_LISTEN", "127.0.0.1:2"), ("LOVABLE_LOG", "lovable::scan=debug")];
    let environment = home.load(&variables, Flags::default()).unwrap();
    assert_eq!(level(&environment, "listen.address").1, Origin::Environment);
    assert_eq!(environment.config.log.level, "lovable::scan=debug");
    let flags = Flags { listen: Some("127.0.0.1:3".into()), verbosity: 1, ..Flags::default() };
    let flag = home.load(&variables, flags).unwrap();
    assert_eq!(level(&flag, "listen.address"), ("127.0.0.1:3".into(), Origin::Flag, "--listen".into()));
    assert_eq!(level(&flag, "log.level"), ("debug".into(), Origin::Flag, "-v".into()));
}

#[test]
fn whoever_asks_not_to_be_tracked_is_not() {
    let tracking = |variables: &[(&str, &str)]| {
        Home::with("[stats]\ntracking = true\n")
            .load(variables, Flags::default())
            .unwrap()
            .config
            .stats
            .tracking
    };
    assert!(tracking(&[]));
    assert!(tracking(&[("DO_NOT_TRACK", "0")]));
    assert!(!tracking(&[("LOVABLE_TRACKING", "off")]));
    assert!(!tracking(&[("DO_NOT_TRACK", "1")]));
    assert!(!tracking(&[("DO_NOT_TRACK", "1"), ("LOVABLE_TRACKING", "on")]));
}

#[test]
fn a_wrong_flag_or_variable_is_named() {
    let home = Home::with("");
    let flags = Flags { listen: Some("8.8.8.8:80".into()), ..Flags::default() };
    let problem = home.load(&[], flags).unwrap_err();
    assert!(
        problem.starts_with("--listen: `listen.address`: 8.8.8.8:80 can be reached from other machines"),
        "{problem}"
    );
    let problem = home.load(&[("LOVABLE_TRACKING", "perhaps")], Flags::default()).unwrap_err();
    assert!(problem.starts_with("LOVABLE_TRACKING: must be true or false"), "{problem}");
}

const EXAMPLE: &str = include_str!("../../config/lovable.example.toml");

#[test]
fn the_example_changes_nothing_as_it_stands() {
    let example = loaded(EXAMPLE);
    assert!(example.warnings.is_empty(), "{:?}", example.warnings);
    let env = |_: &str| None;
    let around = Surroundings { system: System::Linux, uid: 1000, home: Some("/nowhere".into()), env: &env };
    let default = load(&Flags::default(), &around, None).unwrap();
    assert_eq!(format!("{:?}", example.config), format!("{:?}", default.config));
}

#[test]
fn the_example_shows_every_setting_with_its_default() {
    // Settings are comments of the form `# key = value`; sentences are not.
    let uncommented: String = EXAMPLE
        .lines()
        .filter_map(|line| {
            let setting = line.strip_prefix("# ").unwrap_or_default();
            let is_setting = setting.starts_with("[[")
                || setting.split_once(" = ").is_some_and(|(key, _)| !key.trim_matches('"').contains(' '));
            if line.starts_with('[') { Some(line) } else { is_setting.then_some(setting) }
        })
        .filter(|line| !line.starts_with("key_env") && !line.starts_with("tls"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let home = Home::with(&uncommented);
    home.write("vllm.key", "sk-1", 0o600);
    home.write("lovable.token", "sesame", 0o600);
    let example = home.load(&[], Flags::default()).unwrap();
    let ours = loaded("");
    for setting in &ours.settings {
        let shown = example.settings.iter().find(|it| it.key == setting.key).unwrap();
        let is_path = ["socket", "config", "state_dir"].contains(&setting.key.as_str());
        if !is_path {
            assert_eq!(shown.from, Origin::File, "{} is not in the example", setting.key);
        }
        // These are off by default, which TOML cannot write.
        let off = [
            "listen.address",
            "listen.token_file",
            "limits.gpu_memory",
            "cloud.daily_usd",
            "stats.postgres",
            "stats.otlp",
        ];
        if !is_path && !off.contains(&setting.key.as_str()) {
            assert_eq!(shown.value, setting.value, "{}", setting.key);
        }
    }
    let server = &example.config.servers[0];
    assert_eq!(server.key, Key::new("sk-1"));
    let of_servers = example.settings.iter().filter(|it| it.key.starts_with("servers[0]"));
    for setting in of_servers.filter(|it| !it.key.ends_with("key_env") && !it.key.contains(".tls.")) {
        assert_eq!(setting.from, Origin::File, "{} is not in the example", setting.key);
    }
}

const CLOUD_KEYS: [(&str, &str); 2] = [("OPENAI_API_KEY", "sk-open"), ("ANTHROPIC_API_KEY", "sk-ant")];

/// Servers in the cloud, and the keys that go to addresses.
fn clouds(text: &str) -> (Vec<String>, Vec<String>) {
    let config = Home::with(text).load(&CLOUD_KEYS, Flags::default()).unwrap().config;
    let clouds = config.servers.iter().filter(|it| it.in_cloud).map(|it| it.endpoint.to_string()).collect();
    (clouds, config.keys().keys().map(ToString::to_string).collect())
}

#[test]
fn keys_in_the_environment_name_nobody_while_the_cloud_is_not_enabled() {
    assert_eq!(clouds(""), (vec![], vec![]));
    let text = "[[servers]]\nurl = \"https://127.0.0.1:9\"\nkind = \"openai\"\n";
    let (servers, keys) = clouds(text);
    assert_eq!((servers, keys), (vec!["https://127.0.0.1:9".to_owned()], vec![]));
    let loaded = loaded(text);
    assert!(loaded.warnings[0].contains("[cloud] enabled is false"), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.fallback.limit, Fallback::Local);
    assert!(loaded.config.zones().bars(&Endpoint::parse("https://127.0.0.1:9").unwrap()));
    assert_eq!(loaded.config.cloud_ports(), [9]);
}

#[test]
fn a_key_in_the_environment_is_for_its_provider_wherever_the_file_says_that_is() {
    let enabled = "[cloud]\nenabled = true\n";
    let both = ["https://api.openai.com:443", "https://api.anthropic.com:443"].map(str::to_owned);
    let (servers, mut keys) = clouds(enabled);
    keys.reverse();
    assert_eq!((&servers[..], &keys[..]), (&both[..], &both[..]));
    let elsewhere = format!("{enabled}[[servers]]\nurl = \"https://127.0.0.1:9/v1\"\nkind = \"openai\"\n");
    let (servers, keys) = clouds(&elsewhere);
    assert_eq!(servers, ["https://127.0.0.1:9", "https://api.anthropic.com:443"]);
    assert_eq!(keys, ["https://127.0.0.1:9", "https://api.anthropic.com:443"]);
    // A server of any other kind gets none of them, even at the same address.
    let other = elsewhere.replace("kind = \"openai\"", "kind = \"openai-compatible\"\nzone = \"cloud\"");
    assert!(!clouds(&other).1.contains(&"https://127.0.0.1:9".to_owned()));
    let of_its_own = elsewhere.replace("[[servers]]\n", "[[servers]]\nkey_env = \"ANTHROPIC_API_KEY\"\n");
    let config = Home::with(&of_its_own).load(&CLOUD_KEYS, Flags::default()).unwrap().config;
    assert_eq!(config.servers[0].key, Key::new("sk-ant"));
    assert_eq!(config.servers[1].key, Key::bare("sk-ant", "x-api-key"), "as its kind wants it");
    assert_eq!(config.fallback.limit, Fallback::Cloud);
}

#[test]
fn a_provider_is_known_by_its_address_and_gemini_has_its_own_root() {
    let kind = |url: &str, more: &str| {
        let server =
            loaded(&format!("[cloud]\nenabled = true\n[[servers]]\nurl = \"{url}\"\n{more}")).config.servers;
        (server[0].kind.as_ref().map(ToString::to_string), server[0].endpoint.to_string(), server[0].in_cloud)
    };
    let openai = (Some("openai".to_owned()), "https://api.openai.com:443".to_owned(), true);
    assert_eq!(kind("https://api.openai.com/v1", ""), openai);
    assert_eq!(
        kind("https://api.example.com/v1", ""),
        (None, "https://api.example.com:443".to_owned(), true)
    );
    assert!(!kind("https://api.example.com/v1", "zone = \"lan\"\n").2);
    let gemini = "https://127.0.0.1:9/v1beta/openai";
    assert_eq!(kind("https://127.0.0.1:9", "kind = \"gemini\"\n").1, gemini);
    assert_eq!(kind(&format!("{gemini}/"), "kind = \"gemini\"\n").1, gemini);
    let plain = "[[servers]]\nurl = \"http://api.example.com\"\nkind = \"groq\"\n";
    check_problem(plain, 1, "by https only");
}

#[test]
fn prices_and_limits_are_amounts() {
    let text = "[cloud]\nenabled = true\ndaily_usd = 2.50\n[cloud.prices]\n\"a/b\" = { input = 1, output = 0.25, cached = 0.1 }\nembed = { input = 0.02 }\n";
    let loaded = loaded(text);
    assert_eq!(loaded.config.cloud.daily, Usd::from_dollars(2.5));
    let shown = loaded.settings.iter().find(|it| it.key == "cloud.prices.a/b").unwrap();
    assert_eq!(shown.value, json!({"input": 1.0, "output": 0.25, "cached": 0.1}));
    check_problem("[cloud]\ndaily_usd = -1\n", 2, "`cloud.daily_usd` must be an amount of US dollars");
    for wrong in ["5", "[1, 2]", "{ output = 1 }", "{ input = 1, outputs = 2 }", "{ input = \"1\" }"] {
        check_problem(&format!("[cloud.prices]\nm = {wrong}\n"), 2, "what a million tokens cost");
    }
}

const PIN: &str = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

#[test]
fn a_pin_is_for_https_and_stands_in_for_every_authority() {
    let server = |tls: &str, url: &str| format!("[[servers]]\nurl = \"{url}\"\ntls = {{ {tls} }}\n");
    let pin = format!("pin = \"{PIN}\"");
    let pinned = loaded(&server(&pin, "https://box:8443"));
    assert_eq!(pinned.config.servers[0].pin, Some(PIN.parse().unwrap()));
    check_problem(&server(&pin, "http://box:8443"), 3, "`servers[0].tls.pin` needs an https address");
    let both = Home::with(&server(&format!("{pin}, ca = \"ca.pem\""), "https://box:8443"));
    both.write("ca.pem", "", 0o600);
    let problem = both.load(&[], Flags::default()).unwrap_err();
    assert!(problem.contains("`servers[0].tls.ca` and `servers[0].tls.pin` exclude each other"), "{problem}");
}

#[test]
fn others_come_from_outside_only_where_both_settings_say_so() {
    let outside = "[listen]\naddress = \"0.0.0.0:8765\"\n";
    let wants_both = "needs both `allow_remote = true` and a `token_file`";
    check_problem(outside, 1, wants_both);
    check_problem(&format!("{outside}allow_remote = true\n"), 1, wants_both);
    let with = |text: &str, mode: u32| {
        let home = Home::with(&format!("{outside}{text}token_file = \"token\"\n"));
        home.write("token", "sesame-7\n", mode);
        home.load(&[], Flags::default())
    };
    assert!(with("", 0o600).unwrap_err().contains(wants_both));
    for mode in [0o644, 0o640, 0o604, 0o620] {
        let problem = with("allow_remote = true\n", mode).unwrap_err();
        assert!(problem.contains("`listen.token_file`") && problem.contains("chmod 600"), "{problem}");
        assert!(!problem.contains(wants_both), "one thing at a time: {problem}");
    }
    let listen = with("allow_remote = true\n", 0o600).unwrap().config.listen;
    assert!(listen.token.is_some_and(|it| it.is(b"sesame-7")));
    // The flag is asked the same, and named.
    let flags = || Flags { listen: Some("192.168.1.5:8765".into()), ..Flags::default() };
    let problem = Home::with("").load(&[], flags()).unwrap_err();
    assert!(problem.starts_with("--listen: `listen.address`: 192.168.1.5:8765 can be reached"), "{problem}");
    let home = Home::with("[listen]\nallow_remote = true\ntoken_file = \"token\"\n");
    home.write("token", " \n", 0o600);
    assert!(home.load(&[], flags()).unwrap_err().contains("holds no token"));
    home.write("token", "sesame-7", 0o600);
    assert!(home.load(&[], flags()).is_ok());
    assert!(!format!("{:?}", home.load(&[], flags()).unwrap()).contains("sesame"));
}
