//! Hosts as their operator sees them: what they are told, and how they stop.

use crate::inn::{Host, guest, wat_command};
use serde_json::{Value, json};

fn only(hosts: &Value) -> &Value {
    assert_eq!(hosts.as_array().map(Vec::len), Some(1), "{hosts}");
    &hosts[0]
}

#[test]
fn a_host_that_is_cordoned_or_drained_claims_nothing() {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    host.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "2s"]);
    let listed = host.json(&["hosts", "ls"]);
    let name = only(&listed)["name"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["state"], &listed[0]["capacity"], &listed[0]["roles"]),
        (&json!("active"), &json!(64), &json!(["api", "scheduler", "worker"]))
    );
    assert!(listed[0]["lease_left"].as_f64().unwrap() > 0.0, "{listed}");

    let runs = host.ok(&["run", "loop"]).stdout;
    host.until("it runs", || host.json(&["runs", "show", runs.trim()])["state"] == "running");
    let drained = host.ok(&["hosts", "drain", name, "-o", "json"]);
    assert!(drained.stderr.contains("still executes 1"), "{}", drained.stderr);
    let drained: Value = serde_json::from_str(&drained.stdout).unwrap();
    assert_eq!((&only(&drained)["state"], &drained[0]["running"]), (&json!("draining"), &json!(0)));

    let waits = host.ok(&["run", "hello", "--input", r#"{"name": "x"}"#]).stdout;
    let state = || host.json(&["runs", "show", waits.trim()])["state"].clone();
    assert_eq!(state(), "queued");
    assert_eq!(only(&host.json(&["hosts", "cordon", name]))["state"], "cordoned");
    assert_eq!(state(), "queued");
    assert_eq!(only(&host.json(&["hosts", "uncordon", name]))["state"], "active");
    host.until("it claims again", || state() == "succeeded");

    let unknown = host.inn(&["hosts", "drain", "nobody"]);
    assert!(unknown.code == 3 && unknown.stderr.contains("host `nobody`"), "{}", unknown.stderr);
    let text = host.ok(&["hosts", "ls"]).stdout;
    assert!(text.contains("0/64") && text.contains("api,scheduler,worker"), "{text}");
}
