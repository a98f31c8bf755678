//! Triggers and what they keep to.

use super::inn::{Host, guest, run_without_host};
use serde_json::{Value, json};

#[test]
fn a_trigger_ends_after_its_last_run_and_a_fixed_delay_counts_from_the_end_of_each() {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let create = ["trigger", "create", "hello", "--every", "1s", "--input", r#"{"name": "you"}"#];
    host.ok(&[&create[..], &["--name", "twice", "--max-runs", "2"]].concat());
    host.ok(&[&create[..], &["--name", "after", "--fixed-delay"]].concat());
    host.until("the trigger has finished", || {
        host.json(&["trigger", "show", "twice"])["state"] == "finished"
    });
    let twice = host.json(&["trigger", "show", "twice"]);
    assert_eq!((&twice["started"], &twice["next_times"]), (&json!(2), &json!([])));
    assert_eq!(host.json(&["trigger", "next", "twice"]), json!([]));
    host.until("two runs after each other", || {
        host.json(&["trigger", "show", "after"])["started"].as_u64() >= Some(2)
    });
    let runs = host.json(&["runs", "ls", "--state", "succeeded", "--task", "hello"]);
    let mut runs: Vec<&Value> =
        runs.as_array().unwrap().iter().filter(|run| run["trigger"] == "after").collect();
    runs.sort_by_key(|run| run["nominal_at"].to_string());
    let instant = |run: &Value, field: &str| {
        run[field].as_str().unwrap().parse::<innkeeper_domain::Timestamp>().unwrap()
    };
    for pair in runs.windows(2) {
        let apart = instant(pair[1], "nominal_at").duration_since(instant(pair[0], "finished_at"));
        assert_eq!(apart.as_micros(), 1_000_000, "{pair:?}");
    }
}

#[test]
fn a_trigger_says_when_it_is_due_and_when_it_starts() {
    let host = Host::start();
    host.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let cron = ["--cron", "30 2 * * *", "--tz", "Europe/Berlin", "--gap", "skip"];
    let window =
        ["--not-before", "2099-03-28T00:00:00Z", "--not-after", "2099-03-30T12:00:00Z", "--jitter", "10m"];
    let created = host.json(&[&["trigger", "create", "hello"][..], &cron, &window].concat());
    // The clock skips half past two on the 29th.
    let times = json!(["2099-03-28T01:30:00Z", "2099-03-30T00:30:00Z"]);
    assert_eq!(
        (&created["next_times"], &created["description"]),
        (&times, &json!("at 02:30 every day, Europe/Berlin"))
    );
    let start = created["next_start_at"].as_str().unwrap();
    assert!(("2099-03-28T01:30:00Z".."2099-03-28T01:40:00Z").contains(&start), "{start}");
    assert_eq!(host.json(&["trigger", "next", "hello-1"]), times);
    let never = ["trigger", "create", "hello", "--every", "5s", "--not-after", "2020-01-01T00:00:00Z"];
    let never = host.inn(&never);
    assert_eq!(never.code, 1);
    assert!(never.stderr.contains("it would never fire"), "{}", never.stderr);
}

#[test]
fn a_schedule_is_told_in_words_and_a_mistake_with_its_place() {
    let next = run_without_host(&["trigger", "next", "--cron", "0 9 * * 1-5", "--tz", "Europe/Berlin"]);
    assert_eq!((next.code, next.stdout.lines().count()), (0, 5));
    assert!(next.stderr.contains("at 09:00 on Monday to Friday, Europe/Berlin"), "{}", next.stderr);
    for (cron, zone, words) in [
        (
            "61 * * * *",
            "UTC",
            "the minute (field 1, character 1): `61` is out of range; 0 to 59 are possible",
        ),
        ("0 9 * * MON,", "UTC", "there is a comma with nothing beside it"),
        ("0 9 * * *", "Europe/Berln", "did you mean Europe/Berlin?"),
    ] {
        let refused = run_without_host(&["trigger", "next", "--cron", cron, "--tz", zone]);
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}
