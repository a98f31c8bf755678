//! Several hosts on one PostgreSQL, as their operator sees them.

use crate::cluster::{Cluster, Durability, database};
use crate::inn::{Host, guest, run_without_host, wat_command};
use innkeeper_domain::Timestamp;
use serde_json::{Value, json};
use std::process::Command;
use std::thread;

/// The key that the hosts of a fleet have in common.
const KEY: &[u8] = b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// A database, and hosts on it.
struct Fleet {
    url: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Fleet {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        Self { url: database(), key: key.to_string_lossy().into_owned(), _folder: folder }
    }

    fn host(&self, name: &str, options: &[&str]) -> Host {
        let usual = ["--database-url", &self.url, "--key-file", &self.key, "--name", name, "--lease", "2s"];
        Host::start_with(&[&usual[..], options].concat())
    }
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Writes a line to its log, and then does nothing but wait to be ended.
fn talks_and_waits() -> Vec<u8> {
    wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\08\00\00\00\0b\00\00\00still here\n")
            (func (export "_start")
                (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 100)))
                (loop (br 0))))"#,
    )
    .unwrap()
}

#[test]
fn what_is_uploaded_to_one_host_runs_on_all_and_is_compiled_once() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.host("one", &[]), fleet.host("two", &[]));
    one.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    one.until("both are there", || one.json(&["hosts", "ls"]).as_array().unwrap().len() == 2);
    let names: Vec<_> =
        two.json(&["hosts", "ls"]).as_array().unwrap().iter().map(|h| h["name"].clone()).collect();
    assert_eq!(names, ["one", "two"]);
    one.ok(&["hosts", "cordon", "one"]);
    let run = two.json(&["run", "hello", "--input", r#"{"name": "you"}"#, "--wait"]);
    assert_eq!(run["output"], json!({"greeting": "Hello, you!"}));
    assert_eq!(one.json(&["runs", "show", run["id"].as_str().unwrap()])["state"], "succeeded");
    let artifact = |host: &Host| {
        let file = std::fs::read_dir(host.data().join("artifacts")).unwrap().next().unwrap().unwrap().path();
        std::fs::read(file).unwrap()
    };
    assert!(artifact(&one) == artifact(&two), "the second host has compiled it again");
}

#[test]
fn logs_watches_and_cancels_reach_a_run_on_another_host() {
    let fleet = Fleet::new();
    let front = fleet.host("front", &["--roles", "api,scheduler"]);
    let _back = fleet.host("back", &["--roles", "api,worker"]);
    let talk = front.file("talk.wasm", &talks_and_waits());
    front.ok(&["task", "create", "talk", "--component", &talk, "--timeout", "60s"]);
    let id = front.ok(&["run", "talk"]).stdout.trim().to_string();
    thread::scope(|scope| {
        let watched = scope.spawn(|| front.inn(&["runs", "watch", &id]));
        front.until("its log is there while it runs", || {
            front.ok(&["runs", "logs", &id]).stdout.contains("still")
        });
        assert_eq!(front.json(&["runs", "show", &id])["state"], "running");
        front.ok(&["runs", "cancel", &id]);
        assert_eq!(watched.join().unwrap().code, 1);
    });
    assert_eq!(front.json(&["runs", "show", &id])["state"], "cancelled");
}

#[test]
fn runs_of_a_killed_and_of_a_drained_host_are_taken_up_by_others() {
    let fleet = Fleet::new();
    let front = fleet.host("front", &["--roles", "api,scheduler"]);
    let mut lost = fleet.host("lost", &["--roles", "api,worker"]);
    let forever = front.file("loop.wasm", &wat_command("(loop (br 0))"));
    front.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "60s"]);
    let id = front.ok(&["run", "loop"]).stdout.trim().to_string();
    let show = || front.json(&["runs", "show", &id]);
    front.until("it runs", || show()["state"] == "running");
    let _heir = fleet.host("heir", &["--roles", "worker,api"]);
    lost.kill();
    front.until("it runs again", || show()["attempt"] == 2);
    let run = show();
    assert_eq!(run["attempts"][0]["failure"]["kind"], "host-lost", "{run}");

    // Drained, the heir hands it on.
    let _next = fleet.host("next", &["--roles", "worker,api"]);
    front.ok(&["hosts", "drain", "heir", "--no-wait"]);
    front.until("the next has it", || show()["attempt"] == 3);
    front.ok(&["runs", "cancel", &id]);
}

/// Who was frozen for longer than its lease can commit nothing any more.
#[test]
fn a_frozen_host_does_not_commit_under_its_old_lease() {
    let fleet = Fleet::new();
    let front = fleet.host("front", &["--roles", "api,scheduler"]);
    let frozen = fleet.host("frozen", &["--roles", "api,worker"]);
    let forever = front.file("loop.wasm", &wat_command("(loop (br 0))"));
    front.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "4s"]);
    let id = front.ok(&["run", "loop"]).stdout.trim().to_string();
    let show = || front.json(&["runs", "show", &id]);
    front.until("it runs", || show()["state"] == "running");
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &frozen.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    let _heir = fleet.host("heir", &["--roles", "worker,api"]);
    front.until("the heir has it", || show()["attempt"] == 2);
    signal("-CONT");
    front.until("it ends", || show()["state"] == "failed");
    let run = show();
    let kinds: Vec<_> = run["attempts"].as_array().unwrap().iter().map(|a| &a["failure"]["kind"]).collect();
    assert_eq!(kinds, ["host-lost", "timeout"], "{run}");
    assert!(
        instant(&run["attempts"][0]["finished_at"]) <= instant(&run["attempts"][1]["started_at"]),
        "{run}"
    );
    front.until("the frozen host is there again", || {
        front.json(&["hosts", "ls"]).as_array().unwrap().iter().any(|host| host["name"] == "frozen")
    });
}

#[test]
fn a_database_that_is_away_for_a_moment_costs_no_attempt() {
    let database = Cluster::start(Durability::None);
    let url = database.database();
    let host = Host::start_with(&["--database-url", &url, "--lease", "9s"]);
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    host.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "5s"]);
    let id = host.ok(&["run", "loop"]).stdout.trim().to_string();
    host.until("it runs", || host.json(&["runs", "show", &id])["state"] == "running");
    database.stop_hard();
    let away = host.inn(&["task", "ls"]);
    assert!(away.code == 5 && !away.stderr.is_empty(), "{}", away.stderr);
    database.start_again();
    assert_eq!(host.inn(&["runs", "watch", &id]).code, 1);
    let run = host.json(&["runs", "show", &id]);
    let attempts = run["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["failure"]["kind"]), (1, &json!("timeout")), "{run}");
}

#[test]
fn hosts_can_start_at_once_on_an_empty_database() {
    let fleet = Fleet::new();
    let hosts: Vec<Host> = thread::scope(|scope| {
        let starts: Vec<_> = ["a", "b", "c", "d"].map(|name| scope.spawn(|| fleet.host(name, &[]))).into();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    for host in &hosts {
        host.until("all are there", || host.json(&["hosts", "ls"]).as_array().unwrap().len() == 4);
    }
}

#[test]
fn databases_that_cannot_be_used_are_refused_with_words() {
    let fleet = Fleet::new();
    drop(fleet.host("one", &[]));
    let newer = ["UPDATE schema_version SET version = 99", "-q", "-d", &fleet.url];
    assert!(Command::new("psql").arg("-c").args(newer).status().unwrap().success());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    for (url, code, words) in [
        (fleet.url.as_str(), 1, "schema version 99"),
        ("mysql://a@b/c", 2, "postgres://USER:PASSWORD@HOST:PORT/NAME"),
    ] {
        let refused = run_without_host(&["serve", "--data", &data, "--database-url", url]);
        assert!(refused.code == code && refused.stderr.contains(words), "{}", refused.stderr);
    }
}
