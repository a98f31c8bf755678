//! Holiday calendars and the forecast.

use super::inn::{Host, wat_command};
use innkeeper_domain::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// The dates of today and tomorrow, wherever in the test midnight may come.
#[allow(clippy::disallowed_methods, reason = "the host keeps to the machine's clock")]
fn today_and_tomorrow() -> [String; 2] {
    let now = Timestamp::try_from(SystemTime::now()).unwrap();
    [0, 1].map(|days| (now + Duration::from_secs(days * 86_400)).to_string()[..10].to_string())
}

/// A host with a task `nothing` that does nothing.
fn host() -> Host {
    let host = Host::start();
    let component = host.file("nothing.wasm", &wat_command(""));
    host.ok(&["task", "create", "nothing", "--component", &component]);
    host
}

#[test]
fn a_holiday_is_skipped_on_record_and_left_out_of_what_is_next() {
    let host = host();
    let [today, tomorrow] = today_and_tomorrow();
    let file = host.file("closed.txt", format!("{today} off # really\n{tomorrow}\n").as_bytes());
    let put = host.json(&["holidays", "put", "closed", &file]);
    assert_eq!((&put["count"], &put["holidays"][0]), (&json!(2), &json!({"day": today, "title": "off"})));
    let create = ["trigger", "create", "nothing", "--every", "1s", "--name", "off", "--exclude", "closed"];
    let created = host.json(&create);
    assert_eq!(created["exclude"], json!(["closed"]));
    assert!(created["next_times"][0].as_str().unwrap() > tomorrow.as_str(), "{created}");
    assert_eq!(host.json(&["trigger", "next", "off", "--count", "1"])[0], created["next_times"][0]);
    let listed = host.json(&["trigger", "ls"]);
    assert!(listed[0]["next_times"][0].as_str().unwrap() > tomorrow.as_str(), "{listed}");
    host.until("two times are skipped", || {
        host.json(&["trigger", "show", "off"])["skipped"].as_u64() >= Some(2)
    });
    let shown = host.json(&["trigger", "show", "off"]);
    assert_eq!((&shown["started"], &shown["skips"][0]["reason"]), (&json!(0), &json!("holiday")));

    let used = host.inn(&["holidays", "rm", "closed"]);
    assert!(used.code == 1 && used.stderr.contains("trigger `off` excludes"), "{}", used.stderr);
    // What is put counts from the next decision on.
    let file = host.file(
        "later.ics",
        b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20991225\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
    );
    host.ok(&["holidays", "put", "closed", &file]);
    host.until("it runs", || host.json(&["trigger", "show", "off"])["started"].as_u64() >= Some(1));
    host.ok(&["trigger", "rm", "off"]);
    host.ok(&["holidays", "rm", "closed"]);
    assert_eq!(host.json(&["holidays", "ls"]), json!([]));
}

#[test]
fn a_mistake_in_a_calendar_has_its_line_and_an_unknown_one_says_what_to_do() {
    let host = host();
    let put = |bytes: &[u8]| {
        let done = host.inn(&["holidays", "put", "bad", &host.file("bad", bytes)]);
        assert_eq!(done.code, 1);
        done.stderr
    };
    let told = put(b"2026-12-25\n2026-12-32\n");
    assert!(told.contains("line 2: `2026-12-32` is not a date; write it as 2026-12-25"), "{told}");
    let monthly =
        b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20261225\nRRULE:FREQ=MONTHLY\nEND:VEVENT\nEND:VCALENDAR\n";
    let told = put(monthly);
    assert!(told.contains("line 4") && told.contains("write the dates one by one"), "{told}");
    let unknown = host.inn(&["trigger", "create", "nothing", "--every", "1h", "--exclude", "none"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.stderr.contains("no holiday calendar `none`; `inn holidays ls`"), "{}", unknown.stderr);
    host.ok(&["holidays", "put", "day", &host.file("day", b"2099-12-25")]);
    let never = ["trigger", "create", "nothing", "--at", "2099-12-25T09:00:00Z", "--exclude", "day"];
    let never = host.inn(&never);
    assert!(never.code == 1 && never.stderr.contains("it would never run"), "{}", never.stderr);
}

#[test]
fn a_forecast_tells_what_runs_and_what_stands_in_its_way() {
    let host = host();
    for name in ["a", "b", "c"] {
        host.ok(&["trigger", "create", "nothing", "--cron", "0 * * * *", "--name", name]);
    }
    host.ok(&["trigger", "create", "nothing", "--every", "1h", "--name", "paused"]);
    host.ok(&["trigger", "pause", "paused"]);
    host.ok(&["trigger", "create", "nothing", "--every", "1h", "--fixed-delay", "--name", "delay"]);
    host.ok(&["quota", "set", "concurrent-runs=2"]);
    let forecast = host.json(&["forecast", "--hours", "24"]);
    let (runs, task) = (forecast["runs"].as_u64().unwrap(), &forecast["tasks"][0]);
    assert!((95..=97).contains(&runs), "72 by the clock, and 24 of the delay: {forecast}");
    assert_eq!((&task["task"], task["runs"].as_u64()), (&json!("nothing"), Some(runs)));
    assert_eq!(
        (&forecast["minutes"][0]["at_once"], forecast["hours"].as_array().unwrap().len()),
        (&json!(3), 25)
    );
    let named = |what: &str| forecast[what]["names"].clone();
    assert_eq!([named("paused"), named("estimated")], [json!(["paused"]), json!(["delay"])]);
    let warned = &forecast["warnings"];
    assert_eq!((warned.as_array().map(Vec::len), &warned[0]["kind"]), (Some(1), &json!("concurrent-runs")));
    assert_eq!(forecast["incomplete_from"], Value::Null);
    let table = host.ok(&["forecast", "--hours", "24", "--task", "nothing"]).stdout;
    assert!(
        table.contains("warning: more runs are due at one instant") && table.contains("3 nothing"),
        "{table}"
    );
    assert!(table.lines().all(|line| line == line.trim_end()), "{table}");
    let unknown = host.inn(&["forecast", "--task", "none"]);
    assert_eq!(unknown.code, 3);
    assert_eq!(host.inn(&["forecast", "--hours", "745"]).code, 2);
}
