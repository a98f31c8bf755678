//! A backup of a host that works, and what is made of it.

use crate::cluster::{Cluster, Durability};
use crate::inn::{Host, guest, run_with, wat_command};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const INN: &str = env!("CARGO_BIN_EXE_inn");

fn runs(host: &Host) -> HashSet<String> {
    let runs = host.json(&["runs", "ls", "--limit", "1000"]);
    runs.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_string()).collect()
}

fn start(host: &Host, task: &str) -> String {
    host.ok(&["run", task, "--input", r#"{"name": "you"}"#]).stdout.trim().to_string()
}

/// Makes a backup of a host that is busy; gives the runs that were acknowledged before it began.
fn backup_under_load(host: &Host, file: &Path) -> Vec<String> {
    let (started, enough) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let id = start(host, "hello");
                    started.lock().unwrap().push(id);
                }
            });
        }
        host.until("there is a load", || started.lock().unwrap().len() > 20);
        let before = started.lock().unwrap().clone();
        let made = host.json(&["backup", file.to_str().unwrap()]);
        enough.store(true, Ordering::Relaxed);
        assert!(made["rows"]["run"].as_u64().unwrap() >= before.len() as u64, "{made}");
        assert_eq!(made["bytes"].as_u64(), Some(file.metadata().unwrap().len()));
        before
    })
}

/// `inn backup - | inn restore -`.
fn pipe(from: &Path, to: &Path) {
    let inn = |arguments: &[&str], data: &Path| {
        let mut command = Command::new(INN);
        command.args(arguments).arg("--data").arg(data).stderr(Stdio::null());
        command
    };
    let mut backup = inn(&["backup", "-"], from).stdout(Stdio::piped()).spawn().unwrap();
    let rows =
        inn(&["restore", "-", "-o", "json"], to).stdin(backup.stdout.take().unwrap()).output().unwrap();
    assert!(backup.wait().unwrap().success() && rows.status.success());
    let rows: Value = serde_json::from_slice(&rows.stdout).unwrap();
    assert_eq!(rows["rows"]["task"], json!(2), "{rows}");
}

#[test]
fn a_host_goes_on_elsewhere_from_its_backup_and_on_a_database() {
    let cluster = Cluster::start(Durability::None);
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let forever = host.file("loop.wasm", &wat_command("(loop (br 0))"));
    host.ok(&["task", "create", "loop", "--component", &forever, "--timeout", "1h"]);
    host.ok(&["trigger", "create", "hello", "--every", "1s", "--input", r#"{"name": "clock"}"#]);
    let executing = start(&host, "loop");
    host.until("it runs", || host.json(&["runs", "show", &executing])["state"] == "running");

    let file = host.data().join("backup");
    let acknowledged = backup_under_load(&host, &file);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let path = file.to_str().unwrap();
    let again = host.inn(&["backup", path]);
    assert!(again.code == 1 && again.stderr.contains("--force"), "{}", again.stderr);
    let leftovers = std::fs::read_dir(host.data()).unwrap().flatten();
    assert!(!leftovers.into_iter().any(|file| file.file_name().to_string_lossy().starts_with(".inn")));

    let folder = tempfile::tempdir().unwrap();
    let restored = run_with(&["restore", path, "-o", "json"], folder.path());
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    let taken = run_with(&["restore", path], folder.path());
    assert!(taken.code == 1 && taken.stderr.contains("there is a store already"), "{}", taken.stderr);
    let mut copy = Host::start_in(folder, &[]);
    let found = runs(&copy);
    assert!(acknowledged.iter().all(|id| found.contains(id)), "what was acknowledged is there");
    for id in &acknowledged {
        copy.until("it is done", || copy.json(&["runs", "show", id])["state"] == "succeeded");
    }
    let interrupted = copy.json(&["runs", "show", &executing]);
    assert_eq!(interrupted["attempts"][0]["failure"]["kind"], "host-lost", "{interrupted}");
    copy.until("it runs again", || copy.json(&["runs", "show", &executing])["attempt"] == 2);
    let token = std::fs::read_to_string(host.data().join("admin.token")).unwrap();
    copy.ok(&["task", "ls", "--token", token.trim()]);

    // The lock of the folder says that a host has it.
    let url = cluster.database().replace("innkeeper@", "innkeeper:secret@");
    let used = copy.inn(&["move", "--to", &url]);
    assert!(used.code == 1 && used.stderr.contains("another process"), "{}", used.stderr);
    assert!(copy.terminate().success());
    let moved = copy.json(&["move", "--to", &url]);
    assert_eq!(moved["rows"]["trigger"], json!(1), "{moved}");
    let mistaken = copy.inn(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(mistaken.code, 1);
    assert!(mistaken.stderr.contains("was moved to postgres://innkeeper@127.0.0.1"), "{}", mistaken.stderr);
    assert!(mistaken.stderr.contains("/moved") && !mistaken.stderr.contains("secret"), "{}", mistaken.stderr);
    copy.restart(&["--database-url", &url]);
    let before = runs(&copy);
    assert!(before.is_superset(&found), "every run has moved along");
    copy.until("the trigger goes on", || runs(&copy).len() > before.len());
    let once_more = start(&copy, "hello");
    copy.until("it is done", || copy.json(&["runs", "show", &once_more])["state"] == "succeeded");

    // A backup of the database goes into a folder again, as does one through a pipe.
    let path = copy.data().join("fleet");
    copy.ok(&["backup", path.to_str().unwrap(), "--database-url", &url]);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run_with(&["restore", path.to_str().unwrap()], folder.path()).code, 0);
    let third = Host::start_in(folder, &[]);
    assert!(runs(&third).contains(&once_more));
    pipe(&host.data(), tempfile::tempdir().unwrap().path());
}

#[test]
fn backups_that_cannot_be_have_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (text, empty) = (file("text", b"hello\n"), folder.path().join("empty").to_str().unwrap().to_string());
    let nowhere = "postgres://a:secret@127.0.0.1:1/b";
    for (arguments, code, words) in [
        (&["backup", "/dev/null", "--force", "--data", &empty][..], 1, "is no file"),
        (&["backup", "-", "--data", &empty], 3, "no store"),
        (&["backup", &format!("{empty}.backup"), "--data", &empty], 3, "no store"),
        (&["backup", "-", "--database-url", nowhere], 5, "database"),
        (&["restore", "/nonexistent", "--data", &empty], 1, "can't read /nonexistent"),
        (&["restore", &text, "--data", &empty], 1, "no backup"),
        (&["restore", "-", "--data", &empty], 1, "no backup"),
        (&["move", "--to", "mysql://a@b/c", "--data", &empty], 2, "postgres://"),
        (&["move", "--to", nowhere, "--data", &empty], 3, "no store"),
        (&["move"], 2, "--to"),
    ] {
        let refused = run_with(arguments, folder.path());
        assert_eq!(refused.code, code, "{arguments:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(words) && refused.stdout.is_empty(),
            "{arguments:?}: {}",
            refused.stderr
        );
        assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    }
    assert!(!Path::new(&empty).join("innkeeper.db").exists());
}
