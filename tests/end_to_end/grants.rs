//! What tasks are granted: shown, and accepted when it grows.

use super::inn::{Host, guest, wat_command};
use serde_json::json;

#[test]
fn grants_that_grow_are_shown_and_must_be_accepted() {
    let host = Host::start();
    let word = host.file("word", b"a text that nobody sees");
    host.ok(&["secret", "set", "token", "--from-file", &word]);
    let plain = host.file("plain.wasm", &wat_command(""));
    let created = host.ok(&["task", "create", "check", "--component", &plain]);
    assert!(
        !created.stderr.contains("granted") && !created.stderr.contains("wasi:http"),
        "{}",
        created.stderr
    );
    let http_check = guest("http-check");
    let pushed = host.ok(&["component", "push", &http_check]).stdout;
    assert!(pushed.contains("could ask for") && pushed.contains("--allow-http"), "{pushed}");
    let digest = host.json(&["component", "push", &http_check])["digest"].as_str().unwrap().to_string();
    let shown = host.json(&["component", "show", &digest]);
    assert!(shown["could_ask_for"].to_string().contains("outbound HTTP"), "{shown}");

    // Another component is no growth, but one that imports what it isn't granted is told so.
    let updated = host.ok(&["task", "update", "check", "--component", &digest]);
    assert!(updated.stderr.contains("imports wasi:http, but is granted no host"), "{}", updated.stderr);
    let diff = host.ok(&["task", "diff", "check"]);
    assert!(!diff.stdout.contains("grants"), "{}", diff.stdout);
    assert!(diff.stderr.contains("now also imports") && diff.stderr.contains("wasi:http/outgoing-handler"));

    let grow = ["task", "update", "check", "--allow-http", "api.example.com:8080", "--secret", "KEY=token"];
    let refused = host.inn(&grow);
    let words = "now also: outbound HTTP to api.example.com:8080, the secret `token` as KEY";
    assert!(refused.code != 0 && refused.stderr.contains(words), "{}", refused.stderr);
    assert!(refused.stderr.contains("--accept-permissions"), "{}", refused.stderr);
    assert_eq!(host.json(&["task", "show", "check"])["revision"], 2);
    let accepted = host.ok(&[&grow[..], &["--accept-permissions"]].concat());
    let granted = "granted: outbound HTTP to api.example.com:8080, the secret `token` as KEY\n";
    assert_eq!(accepted.stderr, granted);

    // Less, and what is granted already, need no acceptance.
    host.ok(&["task", "update", "check", "--timeout", "2s", "--secret", "token"]);
    host.ok(&["task", "update", "check", "--clear-allow-http", "--unset-secret", "KEY"]);
    let diff = host.ok(&["task", "diff", "check"]).stdout;
    assert!(diff.starts_with("grants\n  - outbound HTTP to api.example.com:8080\n"), "{diff}");
    let refused = host.inn(&["task", "rollback", "check", "3"]);
    assert!(refused.code != 0, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("now also: outbound HTTP to api.example.com:8080")
            && !refused.stderr.contains("the secret"),
        "{}",
        refused.stderr
    );
    let back = host.json(&["task", "rollback", "check", "3", "--accept-permissions"]);
    assert_eq!(
        (&back["revision"], &back["spec"]["allow_http"]),
        (&json!(6), &json!(["api.example.com:8080"]))
    );
    host.ok(&["task", "rollback", "check", "1"]);

    let diff = host.json(&["task", "diff", "check", "2", "6"]);
    let gained = json!(["outbound HTTP to api.example.com:8080", "the secret `token` as KEY"]);
    assert_eq!(diff["grants"], json!({"gained": gained, "lost": []}), "{diff}");
    let diff = host.json(&["task", "diff", "check", "6", "7"]);
    assert_eq!(diff["grants"], json!({"gained": [], "lost": gained}), "{diff}");

    // Who allowed it is on record, with what it was before and after.
    let audit = host.json(&["audit", "ls", "--done"]);
    let updates = audit.as_array().unwrap().iter().filter(|line| line["action"] == "TaskService/UpdateTask");
    let grown = updates.filter(|line| line["after"]["revision"] == 3).collect::<Vec<_>>();
    assert_eq!(grown.len(), 1, "{audit}");
    assert_eq!(grown[0]["before"]["spec"]["allow_http"], json!([]), "{audit}");
    assert_eq!(grown[0]["after"]["spec"]["allow_http"], json!(["api.example.com:8080"]), "{audit}");
}
