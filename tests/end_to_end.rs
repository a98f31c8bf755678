//! The real binary, used as people use it. Needs the plugins (`make guests`).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "end_to_end/backfills.rs"]
mod backfills;
#[path = "end_to_end/backup.rs"]
mod backup;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "end_to_end/events.rs"]
mod events;
#[path = "end_to_end/fleet.rs"]
mod fleet;
#[path = "end_to_end/grants.rs"]
mod grants;
#[path = "end_to_end/holidays.rs"]
mod holidays;
#[path = "end_to_end/hosts.rs"]
mod hosts;
#[path = "end_to_end/inn.rs"]
mod inn;
#[path = "end_to_end/runs.rs"]
mod runs;
#[path = "end_to_end/secrets.rs"]
mod secrets;
#[path = "end_to_end/tenants.rs"]
mod tenants;
#[path = "end_to_end/triggers.rs"]
mod triggers;
#[path = "end_to_end/uploads.rs"]
mod uploads;
#[path = "end_to_end/webhooks.rs"]
mod webhooks;

use inn::{Host, guest, wat_command};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_task_from_upload_to_output() {
    let host = Host::start();
    let created = host.json(&[
        "task",
        "create",
        "hello",
        "--component",
        &guest("hello"),
        "--timeout",
        "2s",
        "--memory",
        "64MiB",
    ]);
    assert_eq!((created["revision"].as_u64(), created["spec"]["timeout"].as_f64()), (Some(1), Some(2.0)));
    let run = host.json(&["run", "hello", "--input", r#"{"name": "you"}"#, "--wait"]);
    assert_eq!((&run["state"], &run["output"]), (&json!("succeeded"), &json!({"greeting": "Hello, you!"})));
    // The output alone, as it is; a failure is the exit code and words on stderr.
    let plain = host.inn(&["run", "hello", "--input", r#"{"name": "you"}"#, "--wait"]);
    assert_eq!((plain.code, plain.stdout.as_str()), (0, r#"{"greeting":"Hello, you!"}"#));
    let failed = host.inn(&["run", "hello", "--input", r#"{"name": ""}"#, "--wait"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""));
    assert!(failed.stderr.contains("nobody: the name is empty"), "{}", failed.stderr);
    let id = run["id"].as_str().unwrap();
    let log = host.json(&["runs", "logs", id]);
    assert_eq!((log[0]["text"].as_str(), log[0]["level"].as_str()), (Some("greeting you"), Some("info")));
    let succeeded = host.json(&["runs", "ls", "--task", "hello", "--state", "succeeded", "--limit", "1"]);
    assert_eq!(succeeded.as_array().map(Vec::len), Some(1));
}

#[test]
fn access_log_reads_a_real_log_and_says_when_there_is_none() {
    let host = Host::start();
    host.ok(&[
        "task",
        "create",
        "report",
        "--component",
        &guest("access-log"),
        "--arg",
        "--top",
        "--arg",
        "3",
    ]);
    let log = concat!("@", env!("CARGO_MANIFEST_DIR"), "/../../plugins/access-log/testdata/access.log");
    let run = host.json(&["run", "report", "--input", log, "--wait"]);
    let expected = include_str!("../plugins/access-log/testdata/report.json");
    assert_eq!(run["output"], serde_json::from_str::<Value>(expected).unwrap());
    let run = host.inn(&["run", "report", "--input", "no log\nat all", "--wait", "-o", "json"]);
    let run: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&run["state"], &run["failure"]["kind"]), (&json!("failed"), &json!("exit")));
    assert!(run["failure"]["message"].as_str().unwrap().contains("no line is of the common"), "{run}");
}

/// A web site of one page.
fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nWelcome");
        }
    });
    port
}

#[test]
fn http_check_reaches_what_it_is_granted_and_nothing_else() {
    let host = Host::start_with(&["--open-network", "127.0.0.0/8"]);
    let (granted, other) = (site(), site());
    let allow = format!("127.0.0.1:{granted}");
    host.ok(&["task", "create", "check", "--component", &guest("http-check"), "--allow-http", &allow]);
    let check = |port: u16, more: &str| {
        let input = format!(r#"{{"url": "http://127.0.0.1:{port}/"{more}}}"#);
        let run = host.inn(&["run", "check", "--input", &input, "--wait", "-o", "json"]);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let well = check(granted, r#", "body_pattern": "^Wel", "max_latency_ms": 10000"#);
    assert_eq!(
        (&well["output"]["status"], &well["output"]["body_bytes"]),
        (&json!(200), &json!(7)),
        "{well}"
    );
    assert_eq!(check(granted, r#", "expect_status": 404"#)["failure"]["code"], "bad-status");
    let denied = check(other, "");
    assert_eq!(denied["failure"]["code"], "denied", "{denied}");
    let log = host.ok(&["runs", "logs", denied["id"].as_str().unwrap()]).stdout;
    assert!(log.contains(&format!("--allow-http 127.0.0.1:{other}")), "{log}");
}

#[test]
fn a_closed_network_is_opened_by_the_tenants_quota() {
    let host = Host::start();
    let input = format!(r#"{{"url": "http://localhost:{}/"}}"#, site());
    host.ok(&["task", "create", "check", "--component", &guest("http-check"), "--allow-http", "*:*"]);
    let check = || {
        let run = host.inn(&["run", "check", "--input", &input, "--wait", "-o", "json"]);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let denied = check();
    assert_eq!(denied["failure"]["code"], "denied", "{denied}");
    let log = host.ok(&["runs", "logs", denied["id"].as_str().unwrap()]).stdout;
    let set = ["quota", "set", "--tenant", "default", "open-networks=loopback"];
    assert!(log.contains("network `loopback`") && log.contains(&set.join(" ")), "{log}");
    assert!(host.ok(&set).stdout.contains("loopback"));
    let opened = check();
    assert_eq!(opened["output"]["status"], json!(200), "{opened}");
    host.ok(&["quota", "set", "open-networks=none"]);
    assert_eq!(check()["failure"]["code"], "denied");
}

#[test]
fn what_cannot_be_run_is_refused_with_words() {
    let host = Host::start();
    let whole = std::fs::read(guest("hello")).unwrap();
    let world =
        wat::parse_str(r#"(component (instance $i) (export "acme:other/thing@1.0.0" (instance $i)))"#)
            .unwrap();
    let imports = wat::parse_str(r#"(module (import "env" "f" (func)) (func (export "_start")))"#).unwrap();
    let large = vec![0; 65 << 20];
    for (bytes, code, words) in [
        (&whole[..whole.len() / 2], 1, "cut off or damaged"),
        (b"echo hello\n", 1, "text file, not WebAssembly"),
        (&imports, 1, "imports from `env`"),
        (&world, 1, "acme:other/thing@1.0.0 and no task"),
        (&large, 2, "larger than 64.0 MiB"),
        (b"", 1, "the file is empty"),
    ] {
        let refused = host.push(bytes);
        assert_eq!(refused.code, code, "{}", refused.stderr);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    assert_eq!(host.json(&["component", "ls"]), json!([]));
    // What was refused left nothing behind that is in the way.
    assert_eq!(host.push(&whole).code, 0);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let host = Host::start();
    assert_eq!(host.inn(&["task", "show", "none"]).code, 3);
    assert_eq!(host.inn(&["task", "ls", "--token", "inn_wrong"]).code, 4);
    assert_eq!(host.inn(&["task", "ls", "--host", "http://127.0.0.1:9"]).code, 5);
    assert_eq!(host.inn(&["task", "frobnicate"]).code, 2);
    assert_eq!(host.inn(&["trigger", "create", "none", "--every", "5x"]).code, 2);
    assert_eq!(host.inn(&["runs", "ls", "--state", "odd"]).code, 2);
    let denied = host.inn(&["task", "ls", "--token", "inn_wrong"]).stderr;
    assert!(denied.contains("token"), "{denied}");
}

#[test]
fn next_times_need_no_host() {
    let cron = [
        "trigger",
        "next",
        "--cron",
        "30 2 * * *",
        "--tz",
        "America/New_York",
        "--from",
        "2026-03-07T00:00:00Z",
    ];
    let times = inn::run_without_host(&[&cron[..], &["--count", "3", "-o", "json"]].concat());
    let expected = json!(["2026-03-07T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
    assert_eq!(serde_json::from_str::<Value>(&times.stdout).unwrap(), expected);
    let mistaken = inn::run_without_host(&["trigger", "next", "--cron", "61 * * * *"]);
    assert!(mistaken.code == 2 && mistaken.stderr.contains("61"), "{}", mistaken.stderr);
}

#[test]
fn an_idempotency_key_starts_one_run() {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let start = |input: &str| host.inn(&["run", "hello", "--idempotency-key", "k", "--input", input]);
    let first = start(r#"{"name": "a"}"#);
    assert_eq!(start(r#"{"name": "a"}"#).stdout, first.stdout);
    let other = start(r#"{"name": "b"}"#);
    assert!(other.code == 1 && other.stderr.contains("another input"), "{}", other.stderr);
}

#[test]
fn a_guest_that_never_ends_is_ended() {
    let host = Host::start();
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    host.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "300ms"]);
    let run = host.inn(&["run", "loop", "--wait"]);
    assert!(run.code == 1 && run.stderr.contains("timeout: over its timeout of 300ms"), "{}", run.stderr);
    host.ok(&["task", "update", "loop", "--timeout", "1h"]);
    let id = host.ok(&["run", "loop"]).stdout.trim().to_string();
    host.until("it runs", || host.json(&["runs", "show", &id])["state"] == "running");
    host.ok(&["runs", "cancel", &id]);
    let watched = host.inn(&["runs", "watch", &id]);
    assert!(watched.code == 1 && watched.stdout.contains("cancelled"), "{}", watched.stdout);
}

/// The promise that matters most: what was acknowledged is there after kill -9, and goes on.
#[test]
fn killed_and_started_again_it_goes_on_with_everything() {
    let mut host = Host::start();
    let hello = guest("hello");
    host.ok(&["task", "create", "hello", "--component", &hello, "--config", "KEY=value"]);
    host.ok(&[
        "trigger",
        "create",
        "hello",
        "--every",
        "1s",
        "--name",
        "tick",
        "--input",
        r#"{"name": "t"}"#,
        "--catch-up",
        "all",
        "--overlap",
        "allow-all",
    ]);
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(400) {
            let key = format!("{round}-{}", acknowledged.len());
            let started =
                host.inn(&["run", "hello", "--idempotency-key", &key, "--input", r#"{"name": "x"}"#]);
            if started.code == 0 {
                acknowledged.push((key, started.stdout.trim().to_string()));
            }
        }
        host.kill();
        host.restart(&[]);
    }
    assert!(acknowledged.len() > 20);
    for (key, id) in &acknowledged {
        let again = host.ok(&["run", "hello", "--idempotency-key", key, "--input", r#"{"name": "x"}"#]);
        assert_eq!(again.stdout.trim(), id);
        host.until("every acknowledged run ends well", || {
            host.json(&["runs", "show", id])["state"] == "succeeded"
        });
    }
    assert_eq!(host.json(&["task", "show", "hello"])["spec"]["config"], json!({"KEY": "value"}));
    // The trigger accounts for every second since it began, each once.
    let runs = host.json(&["runs", "ls", "--trigger", "tick", "--limit", "1000"]);
    let times: Vec<&str> =
        runs.as_array().unwrap().iter().map(|run| run["nominal_at"].as_str().unwrap()).collect();
    assert_eq!(times.iter().collect::<HashSet<_>>().len(), times.len());
    let trigger = host.json(&["trigger", "show", "tick"]);
    let second = |text: &&str| text.parse::<innkeeper_domain::Timestamp>().unwrap().as_second();
    let (first, last) = (times.iter().map(second).min().unwrap(), times.iter().map(second).max().unwrap());
    assert_eq!(last - first + 1, times.len() as i64, "no second is missing: {trigger}");
}

#[test]
fn a_paused_trigger_starts_nothing() {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let created =
        host.json(&["trigger", "create", "hello", "--cron", "* * * * * *", "--input", r#"{"name": "t"}"#]);
    assert_eq!(created["next_times"].as_array().map(Vec::len), Some(5));
    let started = || host.json(&["trigger", "show", "hello-1"])["started"].as_u64().unwrap();
    host.until("it fires", || started() > 0);
    host.ok(&["trigger", "pause", "hello-1", "--note", "maintenance"]);
    let paused = started();
    thread::sleep(Duration::from_millis(2_100));
    assert_eq!(started(), paused);
    host.ok(&["trigger", "resume", "hello-1"]);
    host.until("it fires again", || started() > paused);
    let shown = host.json(&["trigger", "show", "hello-1"]);
    assert_eq!(shown["skips"][0]["reason"], "paused", "{shown}");
    let deleted = host.inn(&["task", "rm", "hello"]);
    assert_eq!((deleted.code, host.inn(&["trigger", "show", "hello-1"]).code), (0, 3));
}

#[test]
fn told_to_stop_it_ends_what_runs_and_goes() {
    let mut host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    host.ok(&["run", "hello", "--input", r#"{"name": "x"}"#, "--wait"]);
    assert!(host.terminate().success());
    let gone = host.inn(&["task", "ls"]);
    assert!(gone.code == 5 && gone.stderr.contains("inn serve"), "{}", gone.stderr);
}

#[test]
fn who_waits_is_told_when_the_host_is_gone() {
    let mut host = Host::start();
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    host.ok(&["task", "create", "loop", "--component", &forever]);
    thread::scope(|scope| {
        let data = host.data();
        let waiting = scope.spawn(move || inn::run_with(&["run", "loop", "--wait"], &data));
        host.until("it runs", || host.json(&["runs", "ls", "--state", "running"]) != json!([]));
        host.kill();
        let told = waiting.join().unwrap();
        assert!(told.code == 5 && told.stderr.contains("inn runs watch"), "{}", told.stderr);
    });
}

#[test]
fn it_does_not_listen_where_others_could_hear() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    let refused = inn::run_without_host(&["serve", "--listen", "0.0.0.0:0", "--data", &data]);
    assert!(refused.code == 1 && refused.stderr.contains("not a loopback address"), "{}", refused.stderr);
}
