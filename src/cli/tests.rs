//! What a command line means, and how troubles end.

use super::{out::Look, *};

fn parse(args: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("lovablectl").chain(args.split_whitespace()))
}

#[test]
fn the_description_of_the_command_line_is_sound() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn flags_of_all_commands_work_before_and_after_them() {
    for args in [
        "--json --socket /s --timeout 5s --color never servers list",
        "servers --json --socket /s list --timeout 5s --color never",
        "servers list --json --socket /s --timeout 5s --color never",
        "servers --json --socket /s --timeout 5s --color never",
    ] {
        let global = parse(args).unwrap().global;
        assert!(global.json, "{args}");
        assert_eq!(global.socket.as_deref(), Some(std::path::Path::new("/s")), "{args}");
        assert_eq!(global.timeout, Some(Duration::from_secs(5)), "{args}");
        assert_eq!(global.color, Color::Never, "{args}");
    }
}

#[test]
fn command_lines_that_are_fine() {
    for args in [
        "status",
        "status --watch",
        "status --wait",
        "status --wait 30s",
        "status --wait --json",
        "servers",
        "servers list",
        "servers add http://box:1234",
        "servers forget ollama",
        "servers trust ollama",
        "servers trust ollama --pin",
        "servers distrust ollama",
        "servers drain ollama",
        "servers resume ollama",
        "servers probe",
        "models",
        "models org/name:tag",
        "generate hello",
        "generate hello world",
        "generate -",
        "generate",
        "generate -m m -s s --max-tokens 5 --temperature 0.2 --no-stream --file a --file b hello",
        "generate -- --not-a-flag",
        "generate --image a.png --image b.jpg --schema s.json hello",
        "chat",
        "chat -m m -s s --max-tokens 5 --temperature 0.2",
        "exec env",
        "exec -- env --json -x",
        "exec --socket /s env --not-ours",
        "stats",
        "stats --by caller --caller curl",
        "stats compare ollama vllm-8001 --since 7d",
        "stats compare model:a model:b --json",
        "stats export --format sqlite -o requests.db --since 24h --server ollama --model m --caller curl",
        "stats export --format csv",
        "stats clear",
        "why",
        "why last",
        "why req-0123 --json",
        "stats --by model --since 24h --until 2026-03-01T00:00:00Z --server ollama --model m",
        "events",
        "config show",
        "config check",
        "config path",
        "config edit",
    ] {
        assert!(parse(args).is_ok(), "{args}: {}", parse(args).unwrap_err());
    }
}

#[test]
fn command_lines_that_are_refused() {
    for args in [
        "",
        "stat",
        "servers trust",
        "servers distrust",
        "servers distrust ollama --pin",
        "servers add",
        "servers list extra",
        "status --watch --wait",
        "status --wait 30",
        "--timeout 5 status",
        "--timeout -5s status",
        "--color sometimes status",
        "generate --max-tokens 0 x",
        "generate --max-tokens many x",
        "generate --temperature NaN x",
        "stats --by colour",
        "stats --since yesterday",
        "config",
        "chat hello",
        "exec",
        "exec --not-ours env",
        "exec --",
    ] {
        let error = parse(args).expect_err(args);
        assert!(error.use_stderr(), "{args}");
    }
}

#[test]
fn what_follows_a_program_is_the_programs_own() {
    let cli = parse("exec prog --json --socket /s -- x").unwrap();
    assert!(!cli.global.json && cli.global.socket.is_none());
    let cli = parse("exec --socket /s -- prog --json").unwrap();
    assert!(!cli.global.json && cli.global.socket.is_some());
}

#[test]
fn help_and_version_are_data() {
    for args in ["--help", "--version", "servers --help", "generate -h"] {
        assert!(!parse(args).unwrap_err().use_stderr(), "{args}");
    }
}

#[test]
fn each_trouble_has_its_exit_code() {
    let socket = || PathBuf::from("/s");
    let api = |code: &str| ClientError::Api {
        status: 500,
        code: code.to_owned(),
        message: String::new(),
        raw: bytes::Bytes::new(),
    };
    let cases: [(Trouble, u8); 8] = [
        (ClientError::Unreachable { socket: socket(), source: io::ErrorKind::NotFound.into() }.into(), 3),
        (ClientError::Silent { socket: socket(), after: Duration::from_secs(2) }.into(), 3),
        (api("no_server").into(), 4),
        (api("all_servers_failed").into(), 1),
        (ClientError::Unreadable(String::new()).into(), 1),
        (Trouble::Usage(String::new()), 2),
        (Trouble::Output(io::ErrorKind::BrokenPipe.into()), 0),
        (Trouble::Output(io::ErrorKind::StorageFull.into()), 1),
    ];
    for (trouble, code) in cases {
        assert_eq!(trouble.exit().code(), code, "{trouble:?}");
    }
    assert_eq!(Exit::Interrupted.code(), 130);
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_how_to_start_it() {
    let error = ClientError::Unreachable { socket: "/a".into(), source: io::ErrorKind::NotFound.into() };
    let hint = hint::after(&error.into(), &["/a".into(), "/b".into()]).unwrap();
    assert!(hint.contains("  lovabled "), "{hint}");
    assert!(hint.contains("Looked at /a and /b"), "{hint}");
}

#[test]
fn the_status_page_fits_60_and_120_cells() {
    for width in [60, 120] {
        let look = Look { width: Some(width), color: false };
        insta::assert_snapshot!(
            format!("status_{width}"),
            status::page(&sample::status(), &sample::servers(), look)
        );
        insta::assert_snapshot!(
            format!("status_nothing_{width}"),
            status::page(&sample::nothing_found(), &[], look)
        );
    }
}

#[test]
fn no_page_gives_power_over_the_terminal() {
    let look = Look { width: Some(120), color: false };
    let mut status = sample::status();
    status.reasons = vec!["\u{1b}]0;title\u{7}".into()];
    let page = status::page(&status, &sample::servers(), look);
    assert!(page.chars().all(|it| it == '\n' || !it.is_control()), "{page:?}");
}
