//! Secrets from being set to being gone, and what of them is where.

use super::inn::{Host, guest};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const TEXT: &str = "correct horse battery staple";

/// A command that writes its environment to its log, and to its output with the last bit of each byte turned, so
/// that the store doesn't have it from there.
fn teller() -> Vec<u8> {
    wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
            (memory (export "memory") 2)
            (func $tell (param $fd i32)
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 32))))
            (func (export "_start") (local $at i32)
                (drop (call $sizes (i32.const 16) (i32.const 20)))
                (drop (call $get (i32.const 1024) (i32.const 8192)))
                (i32.store (i32.const 0) (i32.const 8192))
                (i32.store (i32.const 4) (i32.load (i32.const 20)))
                (call $tell (i32.const 2))
                (loop
                    (i32.store8 offset=8192 (local.get $at)
                        (i32.xor (i32.load8_u offset=8192 (local.get $at)) (i32.const 1)))
                    (br_if 0 (i32.lt_u
                        (local.tee $at (i32.add (local.get $at) (i32.const 1)))
                        (i32.load (i32.const 20)))))
                (call $tell (i32.const 1))))"#,
    )
    .unwrap()
}

fn set(host: &Host, name: &str, text: &str) -> Value {
    let file = host.file("secret.txt", format!("{text}\n").as_bytes());
    let set = host.json(&["secret", "set", name, "--from-file", &file]);
    fs::remove_file(file).unwrap();
    set
}

/// Runs the task `tell` and says what environment it had.
fn told(host: &Host) -> String {
    let run = host.json(&["run", "tell", "--wait"]);
    let output = run["output"].as_str().unwrap_or_else(|| panic!("{run}"));
    output.bytes().map(|byte| char::from(byte ^ 1)).collect()
}

fn is_in_any_file(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_any_file(&path, text);
        }
        fs::read(&path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes())
    })
}

#[test]
fn a_secret_is_shown_to_the_task_that_names_it_and_to_nobody_else() {
    let mut host = Host::start();
    let secret = set(&host, "api-token", TEXT);
    assert_eq!(secret["name"], json!("api-token"));
    let tell = host.file("tell.wasm", &teller());
    let nameless = host.inn(&["task", "create", "tell", "--component", &tell, "--secret", "other"]);
    assert!(nameless.code == 3 && nameless.stderr.contains("`other`"), "{}", nameless.stderr);
    let create = ["task", "create", "tell", "--component", &tell, "--secret", "TOKEN=api-token"];
    let created = host.json(&[&create[..], &["--config", "PLAIN=seen"]].concat());
    assert_eq!(created["spec"]["secrets"], json!({"TOKEN": "api-token"}));
    assert!(host.ok(&["task", "show", "tell"]).stdout.contains("TOKEN=api-token"));
    assert_eq!(told(&host), format!("PLAIN=seen\0TOKEN={TEXT}\0"));

    // Neither its log, nor a list, nor anything on the disk has it.
    let id = host.json(&["runs", "ls", "--task", "tell"])[0]["id"].as_str().unwrap().to_string();
    let log = host.ok(&["runs", "logs", &id]).stdout;
    assert!(log.contains("TOKEN=***") && log.contains("PLAIN=seen") && !log.contains("battery"), "{log}");
    let listed = host.ok(&["secret", "ls", "-o", "json"]).stdout;
    assert!(
        listed.contains("api-token") && listed.contains("tell") && !listed.contains("battery"),
        "{listed}"
    );
    let backup = host.data().join("all.innkeeper").to_string_lossy().into_owned();
    host.ok(&["backup", &backup]);
    assert!(is_in_any_file(&host.data(), "api-token") && !is_in_any_file(&host.data(), TEXT));

    // Set anew: the next attempt has the new text. Rotated: the same text, under another key, also afterwards.
    set(&host, "api-token", "a newer text");
    assert_eq!(told(&host), "PLAIN=seen\0TOKEN=a newer text\0");
    let rotated = host.json(&["secret", "rotate"]);
    assert_eq!(rotated["rotated"], 1);
    assert_ne!(rotated["key_id"], secret["key_id"]);
    assert_eq!(host.json(&["secret", "ls"])[0]["key_id"], rotated["key_id"]);
    assert_eq!(told(&host), "PLAIN=seen\0TOKEN=a newer text\0");
    let keys = fs::read_to_string(host.data().join("artifact.key")).unwrap();
    assert_eq!(keys.lines().count(), 1, "the old key is gone");
    host.kill();
    host.restart(&[]);
    assert_eq!(told(&host), "PLAIN=seen\0TOKEN=a newer text\0");

    let refused = host.inn(&["secret", "rm", "api-token"]);
    assert!(refused.code == 1 && refused.stderr.contains("tell"), "{}", refused.stderr);
    host.ok(&["task", "update", "tell", "--unset-secret", "TOKEN"]);
    host.ok(&["secret", "rm", "api-token"]);
    assert_eq!(host.json(&["secret", "ls"]), json!([]));
    // An older revision still names it.
    let back = host.inn(&["task", "rollback", "tell", "1", "--accept-permissions"]);
    assert!(back.code == 3 && back.stderr.contains("`api-token`"), "{}", back.stderr);
}

#[test]
fn keys_that_a_host_is_given_can_be_replaced() {
    let [old, new, other] = ["11", "22", "33"].map(|digits| format!("{}\n", digits.repeat(32)));
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    let given = ["--key-file", &key_file.to_string_lossy()];
    let keys = |text: &str| fs::write(&key_file, text).unwrap();
    keys(&old);
    let mut host = Host::start_with(&given);
    let first = set(&host, "api-token", TEXT)["key_id"].as_str().unwrap().to_string();
    let tell = host.file("tell.wasm", &teller());
    host.ok(&["task", "create", "tell", "--component", &tell, "--secret", "api-token", "--attempts", "3"]);
    let restart = |host: &mut Host, text: &str| {
        host.kill();
        keys(text);
        host.restart(&given);
    };
    restart(&mut host, &format!("{new}{old}"));
    assert_eq!(told(&host), format!("api-token={TEXT}\0"));
    let rotated = host.json(&["secret", "rotate"]);
    assert_eq!(rotated["rotated"], 1);
    assert_eq!(host.json(&["secret", "rotate"]), json!({"key_id": rotated["key_id"], "rotated": 0}));
    restart(&mut host, &new);
    assert_eq!(told(&host), format!("api-token={TEXT}\0"));

    // Without its key, it can't be read, and isn't lost.
    restart(&mut host, &other);
    let failed = host.inn(&["run", "tell", "--wait", "-o", "json"]);
    let failed: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!((&failed["failure"]["kind"], &failed["attempt"]), (&json!("secret"), &json!(1)), "{failed}");
    let current = rotated["key_id"].as_str().unwrap();
    assert!(failed["failure"]["message"].as_str().unwrap().contains(current), "{failed}");
    let refused = host.inn(&["secret", "rotate"]);
    assert!(refused.code == 1 && refused.stderr.contains(current), "{}", refused.stderr);
    assert!(refused.stderr.contains("Nothing is lost"), "{}", refused.stderr);
    restart(&mut host, &format!("{other}{new}"));
    assert_eq!(host.json(&["secret", "rotate"])["rotated"], 1);
    assert_eq!(told(&host), format!("api-token={TEXT}\0"));
    assert_ne!(host.json(&["secret", "ls"])[0]["key_id"], json!(first));
}

#[test]
fn a_handler_is_shown_its_secrets_as_config() {
    let host = Host::start();
    set(&host, "word", TEXT);
    host.ok(&["task", "create", "hello", "--component", &guest("hello"), "--secret", "greeting=word"]);
    let run = host.json(&["run", "hello", "--input", r#"{"name": "you"}"#, "--wait"]);
    assert_eq!(run["output"]["greeting"], format!("{TEXT}, you!"));
    let log = host.ok(&["runs", "logs", run["id"].as_str().unwrap()]).stdout;
    assert!(log.contains("with ***") && !log.contains(TEXT), "{log}");
}
