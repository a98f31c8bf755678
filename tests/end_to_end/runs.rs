//! Deadlines, cancels and retries of many runs, labels, and pauses of a tenant and of all hosts.

use super::inn::{Host, wat_command};
use serde_json::{Value, json};

/// Ids of the runs that these arguments list.
fn ids(host: &Host, arguments: &[&str]) -> Vec<String> {
    let listed = host.json(&[&["runs", "ls"], arguments].concat());
    let id = |run: &Value| run["id"].as_str().expect("an id").to_string();
    listed.as_array().expect("a list").iter().map(id).collect()
}

#[test]
fn a_run_is_ended_at_its_deadline_and_none_begins_late() {
    let host = Host::start();
    let endless = host.file("endless.wasm", &wat_command("(loop (br 0))"));
    let options = ["--deadline", "700ms", "--attempts", "5", "--backoff", "1ms"];
    host.ok(&[&["task", "create", "endless", "--component", &endless][..], &options].concat());
    assert_eq!(host.json(&["task", "show", "endless"])["spec"]["deadline"], json!(0.7));
    let ended = host.inn(&["run", "endless", "--wait", "-o", "json"]);
    let run: Value = serde_json::from_str(&ended.stdout).expect("a run");
    assert_eq!((ended.code, &run["failure"]["kind"], &run["attempt"]), (1, &json!("deadline"), &json!(1)));
    assert_eq!(run["attempts"][0]["failure"]["kind"], json!("deadline"));
    // One that can't begin in time never does.
    host.ok(&["hosts", "pause", "--note", "mending"]);
    let late = host.inn(&[
        "run",
        "endless",
        "--start-deadline",
        "300ms",
        "--deadline",
        "1h",
        "--wait",
        "-o",
        "json",
    ]);
    let run: Value = serde_json::from_str(&late.stdout).expect("a run");
    assert_eq!((&run["failure"]["kind"], &run["attempt"]), (&json!("start-deadline"), &json!(0)));
    assert_eq!(
        ids(&host, &["--failure-kind", "start-deadline", "--since", "1h"]),
        [run["id"].as_str().unwrap()]
    );
    assert_eq!(ids(&host, &["--failure-kind", "trap"]), [""; 0]);
    let refused = host.inn(&["run", "endless", "--deadline", "9999d"]);
    assert!(refused.code == 1 && refused.stderr.contains("a deadline of"), "{}", refused.stderr);
    let refused = host.inn(&["runs", "ls", "--failure-kind", "oom"]);
    assert!(refused.code == 1 && refused.stderr.contains("they are guest, exit"), "{}", refused.stderr);
}

#[test]
fn what_failed_is_retried_one_and_all() {
    let host = Host::start();
    let broken = host.file("broken.wasm", &wat_command("unreachable"));
    host.ok(&["task", "create", "work", "--component", &broken, "--label", "team=a"]);
    for customer in ["customer=x", "customer=x", "customer=y"] {
        assert_eq!(host.inn(&["run", "work", "--label", customer, "--wait"]).code, 1);
    }
    let failed = ids(&host, &["--state", "failed"]);
    let one = host.json(&["runs", "retry", &failed[0]]);
    assert_eq!(
        (&one["state"], &one["attempt"], &one["failure"]),
        (&json!("queued"), &json!(1), &Value::Null)
    );
    host.until("it fails again", || host.json(&["runs", "show", &failed[0]])["attempts"][1] != Value::Null);
    let mended = host.file("mended.wasm", &wat_command(""));
    host.ok(&["task", "update", "work", "--component", &mended]);
    let x = ["--label", "customer=x", "--label", "team=a"];
    assert_eq!(ids(&host, &x).len(), 2);
    let retry =
        [&["runs", "retry", "--task", "work", "--failure-kind", "trap", "--since", "1h"][..], &x].concat();
    assert_eq!(host.json(&[&retry[..], &["--dry-run"]].concat()), json!({"dry_run": true, "runs": 2}));
    let asked = host.inn(&retry);
    assert!(asked.code == 2 && asked.stderr.contains("say --yes"), "{}", asked.stderr);
    let done = host.json(&[&retry[..], &["--latest", "--yes"]].concat());
    assert_eq!(done, json!({"retried": 2, "left_out": 0, "refused": null}));
    host.until("both succeed", || ids(&host, &["--state", "succeeded"]).len() == 2);
    let succeeded = host.json(&["runs", "show", &ids(&host, &["--state", "succeeded"])[0]]);
    assert_eq!(succeeded["revision"], json!(2));
    let again = host.inn(&["runs", "retry", succeeded["id"].as_str().unwrap()]);
    assert!(again.code == 1 && again.stderr.contains("the run succeeded"), "{}", again.stderr);
    assert_eq!(host.inn(&["runs", "retry"]).code, 2);
    assert_eq!(host.inn(&["runs", "retry", "01890a5d-ac96-774b-bcce-b302099a8057"]).code, 3);
    // Who is billed: 3 runs, one of them twice before it was mended, two of them again after.
    assert_eq!(host.json(&["usage", "--by", "none"])[0]["runs"], json!(6));
    assert_eq!(host.json(&["task", "ls", "--label", "team=a"]).as_array().map(Vec::len), Some(1));
    assert_eq!(host.json(&["task", "ls", "--label", "team=b"]), json!([]));
}

#[test]
fn a_pause_outlasts_the_host_and_what_waits_can_be_cancelled() {
    let mut host = Host::start();
    let work = host.file("work.wasm", &wat_command(""));
    host.ok(&["task", "create", "work", "--component", &work]);
    host.ok(&["hosts", "pause", "--note", "mending the network"]);
    host.kill();
    host.restart(&[]);
    let listed = host.ok(&["hosts", "ls"]);
    assert!(listed.stderr.contains("mending the network"), "{}", listed.stderr);
    for _ in 0..3 {
        host.ok(&["run", "work"]);
    }
    assert_eq!(ids(&host, &["--state", "queued"]).len(), 3);
    let cancel = ["runs", "cancel", "--task", "work", "--state", "queued"];
    assert_eq!(host.json(&[&cancel[..], &["--dry-run"]].concat())["runs"], json!(3));
    assert_eq!(host.inn(&cancel).code, 2);
    let all = ["runs", "cancel", "--all", "--all-tenants", "--yes"];
    assert_eq!(host.json(&all), json!({"cancelled": 3, "told": 0}));
    host.ok(&["hosts", "unpause"]);
    assert_eq!(host.inn(&["run", "work", "--wait"]).code, 0);

    host.ok(&["tenant", "pause", "--note", "moving"]);
    assert_eq!(host.json(&["tenant", "ls"])[0]["state"], json!("paused"));
    assert!(host.ok(&["whoami"]).stdout.contains("moving"));
    host.ok(&["trigger", "create", "work", "--every", "1s"]);
    host.until("a time is skipped", || host.json(&["trigger", "show", "work-1"])["skipped"] != json!(0));
    assert!(host.ok(&["trigger", "show", "work-1"]).stdout.contains("paused"));
    host.ok(&["tenant", "unpause"]);
    host.until("it runs", || !ids(&host, &["--trigger", "work-1", "--state", "succeeded"]).is_empty());
    let audit = host.json(&["audit", "ls", "--all"]).to_string();
    assert!(audit.contains("3 runs") && audit.contains("the fleet") && audit.contains("moving"), "{audit}");
}
