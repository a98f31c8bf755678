//! Hosts as their operator sees them: what they are told, and how they stop.

use crate::inn::{Host, guest, run_without_host, wat_command};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;

/// The hosts, once there is one: it answers before it has joined.
fn joined(host: &Host) -> Value {
    let hosts = || host.json(&["hosts", "ls"]);
    host.until("a host has joined", || hosts() != json!([]));
    hosts()
}

fn only(hosts: &Value) -> &Value {
    assert_eq!(hosts.as_array().map(Vec::len), Some(1), "{hosts}");
    &hosts[0]
}

#[test]
fn a_host_that_is_cordoned_or_drained_claims_nothing() {
    let host = Host::start_with(&["--drain-grace", "100ms"]);
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    host.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "1h"]);
    let listed = joined(&host);
    let name = only(&listed)["name"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["state"], &listed[0]["capacity"], &listed[0]["roles"]),
        (&json!("active"), &json!(64), &json!(["api", "scheduler", "worker"]))
    );
    assert!(listed[0]["lease_left"].as_f64().unwrap() > 0.0, "{listed}");

    let long = host.ok(&["run", "loop"]).stdout;
    let long = || host.json(&["runs", "show", long.trim()]);
    host.until("it runs", || long()["state"] == "running");
    let drained = host.ok(&["hosts", "drain", name, "-o", "json"]);
    assert!(drained.stderr.contains("still executes 1"), "{}", drained.stderr);
    let drained: Value = serde_json::from_str(&drained.stdout).unwrap();
    assert_eq!((&only(&drained)["state"], &drained[0]["running"]), (&json!("draining"), &json!(0)));
    // It didn't end in its grace.
    assert_eq!(long()["state"], "queued");

    let waits = host.ok(&["run", "hello", "--input", r#"{"name": "x"}"#]).stdout;
    let state = || host.json(&["runs", "show", waits.trim()])["state"].clone();
    assert_eq!(state(), "queued");
    assert_eq!(only(&host.json(&["hosts", "cordon", name]))["state"], "cordoned");
    assert_eq!(state(), "queued");
    assert_eq!(only(&host.json(&["hosts", "uncordon", name]))["state"], "active");
    host.until("it claims again", || state() == "succeeded" && long()["state"] == "running");
    assert_eq!(long()["attempt"], 2);

    let unknown = host.inn(&["hosts", "drain", "nobody"]);
    assert!(unknown.code == 3 && unknown.stderr.contains("host `nobody`"), "{}", unknown.stderr);
    let text = host.ok(&["hosts", "ls"]).stdout;
    assert!(text.contains("1/64") && text.contains("api,scheduler,worker"), "{text}");
}

/// What a host that stops hands back is executed again, and that it was cut off counts as no try.
#[test]
fn what_does_not_end_in_the_grace_is_executed_again() {
    let mut host = Host::start_with(&["--drain-grace", "100ms"]);
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    let twice = ["--attempts", "2", "--backoff", "10ms", "--timeout", "2s"];
    host.ok(&[&["task", "create", "loop", "--component", &forever], &twice[..]].concat());
    let id = host.ok(&["run", "loop"]).stdout.trim().to_string();
    host.until("it runs", || host.json(&["runs", "show", &id])["state"] == "running");
    assert!(host.terminate().success());
    host.restart(&[]);
    let watched = host.inn(&["runs", "watch", &id]);
    assert_eq!(watched.code, 1, "{}", watched.stderr);
    let run = host.json(&["runs", "show", &id]);
    let numbers: Vec<_> = run["attempts"].as_array().unwrap().iter().map(|a| &a["number"]).collect();
    // Both its tries came after the one that was handed back, which ended with nothing.
    assert_eq!((&run["failure"]["kind"], numbers), (&json!("timeout"), vec![&json!(2), &json!(3)]), "{run}");
}

/// One host answers and executes nothing, the other executes and answers nothing, on the same data in turn.
#[test]
fn hosts_play_the_parts_that_they_are_given() {
    let site = TcpListener::bind("127.0.0.1:0").unwrap();
    let page = site.local_addr().unwrap();
    let mut host = Host::start_with(&["--roles", "api", "--name", "front", "--label", "zone=eu"]);
    let listed = joined(&host);
    let front = only(&listed);
    assert_eq!(
        (&front["name"], &front["roles"], &front["capacity"], &front["labels"]),
        (&json!("front"), &json!(["api"]), &json!(0), &json!({"zone": "eu"}))
    );
    let granted = ["--allow-http", &page.to_string()];
    host.ok(&[&["task", "create", "check", "--component", &guest("http-check")], &granted[..]].concat());
    let id = host.ok(&["run", "check", "--input", &format!(r#"{{"url": "http://{page}/"}}"#)]).stdout;
    assert_eq!(host.json(&["runs", "show", id.trim()])["state"], "queued");
    assert!(host.terminate().success());

    // An address that a killed host left behind, and one that it would refuse to listen on.
    let left = host.file("address", b"http://127.0.0.1:9\n");
    let roles = ["--roles", "scheduler,worker", "--listen", "192.0.2.1:7070"];
    host.restart_unheard(&[&roles[..], &["--open-network", "127.0.0.0/8"]].concat());
    let (mut stream, _) = site.accept().unwrap();
    let _ = stream.read(&mut [0; 2048]).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    assert!(!std::path::Path::new(&left).exists(), "it tells an address");
    assert!(host.terminate().success());

    host.restart(&[]);
    assert_eq!(host.json(&["runs", "show", id.trim()])["state"], "succeeded");
}

#[test]
fn bad_flags_of_a_host_are_refused() {
    for (flags, words) in [
        (["--roles", "api,cook"], "api, scheduler, worker"),
        (["--lease", "500ms"], "1s to 600s"),
        (["--drain-grace", "25h"], "86400s"),
        (["--name", "My Host"], "a-z"),
        (["--keep-runs", "1s"], "60s"),
        (["--keep-logs", "31d"], "longer than their runs"),
        (["--label", "gpu"], "KEY=VALUE"),
    ] {
        let refused = run_without_host(&["serve", "--data", "/nonexistent/innkeeper", flags[0], flags[1]]);
        assert!(refused.code == 2 && refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[test]
fn a_task_waits_for_a_host_that_has_what_it_requires() {
    let mut host = Host::start_with(&["--label", "zone=eu"]);
    let create = ["task", "create", "hello", "--component", &guest("hello")];
    let created = host.json(&[&create[..], &["--require", "zone=eu", "--require", "gpu=a100"]].concat());
    assert_eq!(created["spec"]["requires"], json!({"zone": "eu", "gpu": "a100"}));
    let id = host.ok(&["run", "hello", "--input", r#"{"name": "x"}"#]).stdout;
    let shown = host.ok(&["task", "show", "hello"]).stdout;
    assert!(shown.contains("gpu=a100"), "{shown}");

    // The run keeps what its revision says; one of the next needs less.
    host.ok(&["task", "update", "hello", "--clear-requires", "--require", "zone=eu"]);
    let changed = host.json(&["task", "diff", "hello"]);
    assert_eq!(changed["requires"]["to"], json!({"zone": "eu"}), "{changed}");
    host.ok(&["run", "hello", "--input", r#"{"name": "y"}"#, "--wait"]);
    assert_eq!(host.json(&["runs", "show", id.trim()])["state"], "queued");
    assert!(host.terminate().success());
    host.restart(&["--label", "zone=eu", "--label", "gpu=a100"]);
    host.until("it runs", || host.json(&["runs", "show", id.trim()])["state"] == "succeeded");

    let nothing = host.inn(&["task", "update", "hello", "--require", "zone"]);
    assert!(nothing.code == 2 && nothing.stderr.contains("KEY=VALUE"), "{}", nothing.stderr);
    let bad = host.inn(&["task", "update", "hello", "--require", "zone=e u"]);
    assert!(bad.code == 1 && bad.stderr.contains("not a label"), "{}", bad.stderr);
}
