//! Events, and what they start.

use super::inn::{Host, guest, wat_command};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

/// A host with a task `hello`, and one `quiet` that does nothing.
fn host() -> Host {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let quiet = host.data().join("quiet.wasm");
    std::fs::write(&quiet, wat_command("")).unwrap();
    host.ok(&["task", "create", "quiet", "--component", &quiet.to_string_lossy()]);
    host
}

fn succeeded(host: &Host, task: &str) -> Vec<Value> {
    let runs = host.json(&["runs", "ls", "--state", "succeeded", "--task", task]);
    let ids = runs.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_string());
    ids.map(|id| host.json(&["runs", "show", &id])).collect()
}

#[test]
fn an_event_starts_a_run_and_its_output_starts_another() {
    let mut host = host();
    let on = ["--on-event", "orders.*", "--filter", "data.total > 100 && topic.startsWith('orders.')"];
    let from = ["--input-from", "{'name': data.customer}"];
    let created = host.json(&[&["trigger", "create", "hello"][..], &on, &from].concat());
    assert_eq!(
        (&created["event"]["pattern"], &created["overlap"]),
        (&json!("orders.*"), &json!("allow-all"))
    );
    host.ok(&["trigger", "create", "quiet", "--after", "hello"]);
    let circle = host.inn(&["trigger", "create", "hello", "--after", "quiet", "--when", "any"]);
    assert_eq!(circle.code, 1);
    assert!(circle.stderr.contains("quiet -> hello -> quiet"), "{}", circle.stderr);
    let publish = |host: &Host, topic: &str, data: &str, id: &str| {
        host.inn(&["event", "publish", topic, "--data", data, "--id", id, "-o", "json"])
    };
    for (topic, total, id) in [("orders.new", 120, "1"), ("orders.new", 90, "2"), ("other", 500, "3")] {
        let data = format!(r#"{{"customer": "you", "total": {total}}}"#);
        assert_eq!(publish(&host, topic, &data, id).code, 0);
    }
    let again = publish(&host, "orders.new", r#"{"customer": "you", "total": 120}"#, "1");
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).unwrap()["existed"], true);
    let conflict = publish(&host, "orders.new", "1", "1");
    assert_eq!(conflict.code, 1);
    assert!(conflict.stderr.contains("with another topic or other data"), "{}", conflict.stderr);
    let own = publish(&host, "innkeeper.run.failed", "1", "4");
    assert!(own.stderr.contains("the host's own"), "{}", own.stderr);
    host.until("the chain has run", || succeeded(&host, "quiet").len() == 1);
    let (hello, quiet) = (succeeded(&host, "hello"), succeeded(&host, "quiet"));
    assert_eq!((hello.len(), &hello[0]["input"]), (1, &json!({"name": "you"})));
    assert_eq!(quiet[0]["input"], hello[0]["output"]);
    // What was acknowledged is delivered by the next process.
    assert_eq!(publish(&host, "orders.late", r#"{"customer": "me", "total": 101}"#, "5").code, 0);
    host.kill();
    host.restart(&[]);
    host.until("the event was delivered", || succeeded(&host, "quiet").len() == 2);
    assert_eq!(host.json(&["trigger", "show", "hello-1"])["started"], 2);
    let topics = |listed: &Value| -> Vec<String> {
        listed.as_array().unwrap().iter().map(|event| event["topic"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(
        topics(&host.json(&["event", "ls", "orders.**"])),
        ["orders.new", "orders.new", "orders.late"]
    );
    let ends = topics(&host.json(&["event", "ls", "innkeeper.**"]));
    assert_eq!(ends, ["innkeeper.run.succeeded"; 2], "only those that somebody waits for");
    let told = host.ok(&["event", "tail", "orders.**", "--from", "0", "-n", "3", "-o", "json"]);
    assert_eq!(told.stdout.lines().count(), 3, "{}", told.stdout);
    let first: Value = serde_json::from_str(told.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["id"], &first["sequence"], &first["data"]["total"]),
        (&json!("1"), &json!(1), &json!(120))
    );
}

#[test]
fn a_tail_outlives_a_host_that_is_killed() {
    let mut host = Host::start();
    let address = std::fs::read_to_string(host.data().join("address")).unwrap();
    let address = address.trim().trim_start_matches("http://");
    host.ok(&["event", "publish", "a.b", "--data", "1"]);
    let mut tail = host.begin(&["event", "tail", "--from", "0", "-n", "2"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("a.b"));
    host.kill();
    host.restart(&["--listen", address]);
    host.ok(&["event", "publish", "c.d", "--data", "2"]);
    assert!(lines.next().unwrap().unwrap().contains("c.d"));
    assert!(tail.wait().unwrap().success());
}

#[test]
fn what_is_no_event_is_refused() {
    let host = Host::start();
    let publish = |more: &[&str]| host.inn(&[&["event", "publish", "a.b"], more].concat());
    let none = publish(&["--id", ""]);
    assert!(none.code == 2 && none.stderr.contains("without --id"), "{}", none.stderr);
    let bad = publish(&["--content-type", "application/json", "--data", "{bad"]);
    assert!(bad.code == 1 && bad.stderr.contains("is not JSON"), "{}", bad.stderr);
    let twice = publish(&["--payload", "1", "--data", "2"]);
    assert!(twice.code == 2 && twice.stderr.contains("--data and --payload"), "{}", twice.stderr);
    let large = format!("@{}", host.file("large", &vec![b'x'; 300 << 10]));
    let large = publish(&["--data", &large]);
    assert!(large.code == 2 && large.stderr.contains("262144 bytes"), "{}", large.stderr);
    host.ok(&["event", "-o", "json", "publish", "a.b", "--data", "{}"]);
}

#[test]
fn events_that_come_soon_after_each_other_make_one_run() {
    let host = host();
    host.ok(&[
        "trigger",
        "create",
        "quiet",
        "--on-event",
        "a",
        "--batch",
        "3",
        "--batch-wait",
        "200ms",
        "--name",
        "b",
    ]);
    host.ok(&["trigger", "create", "quiet", "--on-event", "a", "--debounce", "100ms", "--name", "d"]);
    for n in ["1", "2", "3", "4"] {
        host.ok(&["event", "publish", "a", "--data", n]);
    }
    host.until("nothing waits", || {
        ["b", "d"].iter().all(|name| host.json(&["trigger", "show", name])["behind"] == 0)
    });
    host.until("all have run", || {
        host.json(&["runs", "ls", "--task", "quiet"])
            .as_array()
            .unwrap()
            .iter()
            .all(|run| run["state"] == "succeeded")
    });
    let of = |trigger: &str| -> Vec<Value> {
        let mut runs: Vec<Value> =
            succeeded(&host, "quiet").into_iter().filter(|run| run["trigger"] == trigger).collect();
        runs.sort_by_key(|run| run["nominal_at"].to_string());
        runs.into_iter().map(|run| run["input"].clone()).collect()
    };
    let batched: Vec<i64> = of("b")
        .iter()
        .flat_map(|input| input["events"].as_array().unwrap().clone())
        .map(|event| event["data"].as_i64().unwrap())
        .collect();
    assert_eq!(batched, [1, 2, 3, 4]);
    assert_eq!(of("d").last().unwrap()["data"], 4, "the last one always runs");
}

#[test]
fn a_trigger_that_makes_no_sense_is_refused() {
    let host = host();
    for (options, words) in [
        (&["--on-event", "orders.**.x"][..], "only be the last segment"),
        (&["--on-event", "a", "--filter", "nonsense > 1"], "names `nonsense`"),
        (&["--on-event", "a", "--input", "{}"], "is what starts it"),
        (&["--on-event", "a", "--cron", "* * * * *"], "cannot be used with"),
        (&["--on-event", "a", "--jitter", "5s"], "jitter was asked for"),
        (&["--after", "nonesuch"], "there is no task `nonesuch`"),
    ] {
        let refused = host.inn(&[&["trigger", "create", "hello"][..], options].concat());
        assert_ne!(refused.code, 0, "{options:?}");
        assert!(refused.stderr.contains(words), "{options:?}: {}", refused.stderr);
    }
    host.ok(&["trigger", "create", "hello", "--on-event", "a"]);
    let next = host.inn(&["trigger", "next", "hello-1"]);
    assert!(next.stderr.contains("has no schedule"), "{}", next.stderr);
}
