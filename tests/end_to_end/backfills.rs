//! Backfills: planned, killed midway, finished, and what they leave out.

use super::inn::{Host, guest};
use serde_json::{Value, json};
use std::collections::HashSet;

const RANGE: [&str; 4] = ["--from", "2025-01-01T00:00:00Z", "--to", "2025-01-01T01:59:59Z"];

#[test]
fn a_backfill_outlives_its_host_and_runs_each_time_once() {
    let mut host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let cron = ["--cron", "* * * * *", "--name", "minutes", "--input", r#"{"name": "t"}"#];
    host.ok(&[&["trigger", "create", "hello"][..], &cron].concat());
    let backfill = ["trigger", "backfill", "minutes"];
    let plan = host.json(&[&backfill[..], &RANGE, &["--dry-run"]].concat());
    assert_eq!((&plan["times"], &plan["runs"], &plan["ran"]), (&json!(120), &json!(120), &json!({})));
    assert_eq!(
        (&plan["first"][0], &plan["last"][4]),
        (&json!("2025-01-01T00:00:00Z"), &json!("2025-01-01T01:59:00Z"))
    );
    assert_eq!(host.json(&["backfill", "ls"]), json!([]), "a dry run creates nothing");
    assert_eq!(host.json(&["runs", "ls", "--trigger", "minutes", "--state", "succeeded"]), json!([]));

    let id = host.ok(&[&backfill[..], &RANGE, &["--concurrency", "2"]].concat()).stdout.trim().to_string();
    let shown = |host: &Host| host.json(&["backfill", "show", &id]);
    let mut kills = 0;
    while kills < 3 && shown(&host)["state"] == "active" {
        let before = shown(&host)["created"].as_u64().unwrap();
        host.until("it goes on", || {
            shown(&host)["created"].as_u64().unwrap() > before || shown(&host)["remaining"] == 0
        });
        host.kill();
        host.restart(&[]);
        kills += 1;
    }
    assert!(kills > 0);
    let watched = host.json(&["backfill", "watch", &id]);
    let expected = json!(["finished", 120, 120, 0, 0]);
    let of = |field: &str| watched[field].clone();
    assert_eq!(
        json!([of("state"), of("created"), of("succeeded"), of("left_out"), of("remaining")]),
        expected
    );
    let runs = host.json(&["runs", "ls", "--trigger", "minutes", "--limit", "1000"]);
    let runs: Vec<&Value> =
        runs.as_array().unwrap().iter().filter(|run| run["backfill"] == json!(id)).collect();
    let times: HashSet<&str> = runs.iter().map(|run| run["nominal_at"].as_str().unwrap()).collect();
    assert_eq!((runs.len(), times.len()), (120, 120));

    // What ran is left out, unless it is asked for.
    let plan = host.json(&[&backfill[..], &RANGE, &["--dry-run"]].concat());
    assert_eq!((&plan["runs"], &plan["ran"]), (&json!(0), &json!({"succeeded": 120})));
    let again = host.json(&[&backfill[..], &RANGE, &["--wait"]].concat());
    assert_eq!((&again["state"], &again["left_out"]), (&json!("finished"), &json!(120)));
    let all =
        host.json(&[&backfill[..], &RANGE, &["--again", "all", "--concurrency", "8", "--wait"]].concat());
    assert_eq!((&all["created"], &all["succeeded"]), (&json!(120), &json!(120)));
    assert_eq!(host.json(&["backfill", "ls", "--trigger", "minutes"]).as_array().map(Vec::len), Some(3));
}

#[test]
fn a_backfill_waits_for_its_paused_trigger_and_says_so() {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    host.ok(&["trigger", "create", "hello", "--cron", "* * * * *", "--input", r#"{"name": "t"}"#]);
    host.ok(&["trigger", "pause", "hello-1"]);
    let backfill = ["trigger", "backfill", "hello-1"];
    let id = host.ok(&[&backfill[..], &RANGE].concat()).stdout.trim().to_string();
    host.until("it waits", || host.json(&["backfill", "show", &id])["waits_for"] == "paused");
    let shown = host.ok(&["backfill", "show", &id]).stdout;
    assert!(shown.contains("waits: the trigger is paused"), "{shown}");
    let cancelled = host.json(&["backfill", "cancel", &id]);
    assert_eq!((&cancelled["state"], &cancelled["created"]), (&json!("cancelled"), &json!(0)));
    assert_eq!(host.inn(&["backfill", "watch", &id]).code, 1);
    for (arguments, words) in [
        (&["--from", "2025-01-02T00:00:00Z", "--to", "2025-01-01T00:00:00Z"][..], "before its start"),
        (&["--from", "2025-01-01T00:00:00Z", "--to", "2999-01-01T00:00:00Z"], "in the future"),
        (&["--from", "2020-01-01T00:00:00Z", "--to", "2025-01-01T00:00:00Z"], "split the range"),
        (&["--from", "2025-01-01T00:00:01Z", "--to", "2025-01-01T00:00:59Z"], "has no time from"),
        (&["--from", "1h", "--again", "some"], "known are: none, failed, all"),
        (&["--from", "1h", "--concurrency", "5000"], "it may be 1 to 1000"),
    ] {
        let refused = host.inn(&[&backfill[..], arguments, &["--dry-run"]].concat());
        assert!(refused.code == 1 && refused.stderr.contains(words), "{}", refused.stderr);
    }
    assert_eq!(host.inn(&["trigger", "backfill", "none", "--from", "1h"]).code, 3);
    assert_eq!(host.inn(&["backfill", "show", "01890a5d-ac96-774b-bcce-b302099a8057"]).code, 3);
    host.ok(&["trigger", "create", "hello", "--every", "1h", "--fixed-delay", "--name", "delay"]);
    let refused = host.inn(&["trigger", "backfill", "delay", "--from", "24h"]);
    assert!(refused.stderr.contains("a fixed delay has no times to backfill"), "{}", refused.stderr);
}
