//! Many tenants on one host, as its admin and they themselves see it.

use crate::inn::{Done, Host, guest, run_without_host, wat_command};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

const INPUT: &[&str] = &["--input", r#"{"name": "you"}"#];

/// Somebody with a token.
struct Holder<'a> {
    host: &'a Host,
    token: String,
}

impl<'a> Holder<'a> {
    /// With a new token of these options.
    fn new(host: &'a Host, options: &[&str]) -> Self {
        let token = host.ok(&[&["token", "create"], options].concat()).stdout.trim().to_string();
        assert!(token.starts_with("inn_") && token.lines().count() == 1, "the token alone is printed");
        Self { host, token }
    }

    /// The owner of a new tenant.
    fn owner(host: &'a Host, tenant: &str) -> Self {
        host.ok(&["tenant", "create", tenant]);
        Self::new(host, &["--tenant", tenant, "--role", "owner"])
    }

    fn inn(&self, arguments: &[&str]) -> Done {
        self.host.inn(&[arguments, &["--token", &self.token]].concat())
    }

    fn ok(&self, arguments: &[&str]) -> Done {
        self.host.ok(&[arguments, &["--token", &self.token]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.host.json(&[arguments, &["--token", &self.token]].concat())
    }

    /// Its exit code and words, where it is refused.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let done = self.inn(arguments);
        assert_eq!(done.code, code, "inn {}: {}", arguments.join(" "), done.stderr);
        done.stderr
    }
}

/// What a list of objects has under a name.
fn each<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list.as_array().expect("an array").iter().map(|item| item[name].as_str().unwrap_or_default()).collect()
}

#[test]
fn the_same_names_side_by_side() {
    let host = Host::start();
    let both = [Holder::owner(&host, "acme"), Holder::owner(&host, "globex")];
    let mut runs = Vec::new();
    for tenant in &both {
        tenant.ok(&["task", "create", "hello", "--component", &guest("hello")]);
        tenant.ok(&["trigger", "create", "hello", "--cron", "0 0 1 1 *", "--name", "yearly"]);
        runs.push(tenant.json(&[&["run", "hello", "--wait"], INPUT].concat())["id"].clone());
    }
    both[0].ok(&["task", "update", "hello", "--config", "WHOSE=acme"]);
    both[0].ok(&["trigger", "pause", "yearly"]);
    for (tenant, (run, revision, state)) in
        both.iter().zip([(&runs[0], 2, "paused"), (&runs[1], 1, "active")])
    {
        assert_eq!(each(&tenant.json(&["runs", "ls"]), "id"), [run.as_str().unwrap()]);
        assert_eq!(tenant.json(&["task", "show", "hello"])["revision"], revision);
        assert_eq!(tenant.json(&["trigger", "show", "yearly"])["state"], state);
    }
    // The admin speaks for the one that it names, and for `default` otherwise.
    assert_eq!(each(&host.json(&["runs", "ls", "--tenant", "globex"]), "id"), [runs[1].as_str().unwrap()]);
    assert_eq!(host.json(&["runs", "ls"]), json!([]));
    assert_eq!(each(&host.json(&["tenant", "ls"]), "name"), ["acme", "default", "globex"]);
}

/// Everything that one could ask about another's: answered alike before that is there and after.
#[test]
fn what_is_anothers_is_answered_as_what_does_not_exist() {
    let host = Host::start();
    let curious = Holder::owner(&host, "curious");
    let own = guest("hello");
    curious.ok(&["task", "create", "mine", "--component", &own]);
    let wasm = wat_command("(nop)");
    let file = host.file("theirs.wasm", &wasm);
    let digest = {
        use sha2::Digest;
        format!("sha256:{}", hex::encode(sha2::Sha256::digest(&wasm)))
    };
    let nobodys = "0197c5a0-0000-7000-8000-000000000000";
    let questions = |run: &str, token: &str| -> Vec<(Vec<String>, i32, String)> {
        let all: &[&[&str]] = &[
            &["task", "show", "theirs"],
            &["task", "show", "theirs", "--revisions"],
            &["task", "update", "theirs", "--timeout", "1s"],
            &["task", "rollback", "theirs", "1"],
            &["task", "rm", "theirs", "--yes"],
            &["run", "theirs"],
            &["trigger", "create", "theirs", "--every", "1h"],
            &["trigger", "ls", "--task", "theirs"],
            &["trigger", "show", "tick"],
            &["trigger", "next", "tick"],
            &["trigger", "pause", "tick"],
            &["trigger", "resume", "tick"],
            &["trigger", "rm", "tick"],
            &["runs", "ls", "--task", "theirs"],
            &["runs", "ls", "--trigger", "tick"],
            &["runs", "show", run],
            &["runs", "logs", run],
            &["runs", "watch", run],
            &["runs", "cancel", run],
            &["component", "show", &digest],
            &["component", "rm", &digest],
            &["task", "update", "mine", "--component", &digest],
            &["usage", "--task", "theirs"],
            &["token", "revoke", token],
            &["whoami", "--tenant", "secretive"],
            &["tenant", "show", "secretive"],
            &["quota", "show", "--tenant", "secretive"],
            &["token", "create", "--role", "viewer", "--tenant", "secretive"],
        ];
        let ask = |arguments: &&[&str]| {
            let done = curious.inn(arguments);
            let plain = |text: &str| text.replace(run, "RUN").replace(token, "TOKEN");
            let asked = arguments.iter().map(|argument| plain(argument)).collect();
            (asked, done.code, plain(&format!("{}{}", done.stdout, done.stderr)))
        };
        all.iter().map(ask).collect()
    };
    let before = questions(nobodys, &nobodys.replace('8', "9"));
    let secretive = Holder::owner(&host, "secretive");
    secretive.ok(&["task", "create", "theirs", "--component", &file]);
    secretive.ok(&["trigger", "create", "theirs", "--every", "1h", "--name", "tick"]);
    let run = secretive.json(&["run", "theirs", "--wait"])["id"].as_str().unwrap().to_string();
    let token = secretive.json(&["whoami"])["id"].as_str().unwrap().to_string();
    let after = questions(&run, &token);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert!(before.iter().filter(|(_, code, _)| *code == 3).count() > 15, "{before:?}");
    // Nothing of it was touched.
    assert_eq!(secretive.json(&["runs", "show", &run])["state"], "succeeded");
    assert_eq!(secretive.json(&["task", "show", "theirs"])["revision"], 1);
    assert_eq!(secretive.json(&["trigger", "show", "tick"])["state"], "active");
    secretive.ok(&["component", "show", &digest]);
}

#[test]
fn a_token_that_is_over_revoked_or_wrong() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    let short = Holder::new(&host, &["--tenant", "acme", "--role", "viewer", "--expires", "1s"]);
    host.until("it expires", || short.inn(&["whoami"]).code == 4);
    assert!(short.refused(&["task", "ls"], 4).contains("the token expired at"));
    let gone = Holder::new(&host, &["--tenant", "acme", "--role", "viewer", "--note", "the auditor"]);
    let who = gone.json(&["whoami"]);
    assert_eq!(
        [&who["tenant"], &who["role"], &who["note"], &who["tasks"], &who["expires_at"]],
        [&json!("acme"), &json!("viewer"), &json!("the auditor"), &Value::Null, &Value::Null]
    );
    assert!(who["host"].as_str().is_some_and(|host| !host.is_empty()) && who["version"].is_string(), "{who}");
    owner.ok(&["token", "revoke", who["id"].as_str().unwrap()]);
    assert!(gone.refused(&["task", "ls"], 4).contains("the token was revoked at"));
    let wrong = Holder { host: &host, token: "inn_0000".into() };
    assert!(wrong.refused(&["task", "ls"], 4).contains("not one of this host's"));
    let listed = owner.json(&["token", "ls"]);
    assert_eq!(each(&listed, "role"), ["viewer", "viewer", "owner"]);
    assert!(!listed.to_string().contains(&gone.token), "no token's text is ever listed");
    let table = owner.ok(&["token", "ls"]).stdout;
    assert!(table.contains("revoked") && table.contains("expired") && table.contains("good"), "{table}");
    let past = host.inn(&["token", "create", "--role", "viewer", "--expires", "2001-01-01T00:00:00Z"]);
    assert!(past.code == 1 && past.stderr.contains("expired"), "{}", past.stderr);
    let both = host.inn(&["token", "create", "--role", "admin", "--tenant", "acme"]);
    assert!(both.code == 2 && both.stderr.contains("every tenant"), "{}", both.stderr);
}

#[test]
fn roles_and_tasks_bound_a_token() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    for task in ["hello", "other"] {
        owner.ok(&["task", "create", task, "--component", &guest("hello")]);
    }
    let viewer = Holder::new(&host, &["--tenant", "acme", "--role", "viewer"]);
    assert_eq!(each(&viewer.json(&["task", "ls"]), "name"), ["hello", "other"]);
    let words = viewer.refused(&[&["run", "hello"], INPUT].concat(), 4);
    assert!(words.contains("operator") && words.contains("viewer"), "{words}");
    viewer.refused(&["audit", "ls"], 4);
    owner.refused(&["tenant", "create", "mine"], 4);
    owner.refused(&["quota", "set", "triggers=none"], 4);
    owner.refused(&["token", "create", "--role", "admin"], 4);
    owner.refused(&["hosts", "ls"], 4);

    let one = ["--tenant", "acme", "--role", "operator", "--task", "hello"];
    let one = Holder::new(&host, &one);
    one.ok(&[&["run", "hello", "--wait"], INPUT].concat());
    assert_eq!(each(&one.json(&["task", "ls"]), "name"), ["hello"]);
    let words = one.refused(&[&["run", "other"], INPUT].concat(), 3);
    assert_eq!(words.replace("other", "none"), one.refused(&[&["run", "none"], INPUT].concat(), 3));
    one.refused(&["task", "show", "other"], 3);
    one.refused(&["task", "rm", "hello", "--yes"], 4);
}

#[test]
fn a_suspended_tenant_looks_and_begins_nothing() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    owner.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    host.ok(&["tenant", "suspend", "acme", "--note", "unpaid since May"]);
    let shown = owner.json(&["tenant", "show"]);
    assert_eq!((&shown["state"], &shown["note"]), (&json!("suspended"), &json!("unpaid since May")));
    let words = owner.refused(&[&["run", "hello"], INPUT].concat(), 1);
    assert!(words.contains("suspended") && words.contains("unpaid since May"), "{words}");
    assert_eq!(each(&owner.json(&["task", "ls"]), "name"), ["hello"]);
    host.ok(&["tenant", "resume", "acme"]);
    owner.ok(&[&["run", "hello", "--wait"], INPUT].concat());
    assert_eq!(host.json(&["tenant", "set", "acme", "--weight", "7"])["weight"], 7);
}

#[test]
fn a_quota_that_is_hit_is_named_with_its_value_and_use() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    owner.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let set = ["quota", "set", "--tenant", "acme", "triggers=1", "components=1", "least-interval=1m"];
    host.ok(&[&set[..], &["cpu-per-day=1h30m"]].concat());
    let create = |every: &str| owner.inn(&["trigger", "create", "hello", "--every", every]);
    let often = create("1s");
    assert_eq!(often.code, 1, "{}", often.stderr);
    assert!(often.stderr.contains("`least-interval`") && often.stderr.contains("60s"), "{}", often.stderr);
    assert_eq!(create("1h").code, 0);
    let second = create("1h");
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("`triggers`: 1 of 1 are used"), "{}", second.stderr);
    let other = host.file("other.wasm", &wat_command("(nop)"));
    let words = owner.refused(&["component", "push", &other], 1);
    assert!(words.contains("`components`: 1 of 1 are used"), "{words}");
    let shown = owner.json(&["quota", "show"]);
    let of =
        |name: &str| shown.as_array().unwrap().iter().find(|quota| quota["name"] == name).unwrap().clone();
    assert_eq!(of("triggers"), json!({"name": "triggers", "value": 1, "used": 1, "unit": "count"}));
    assert_eq!(
        (&of("cpu-per-day")["value"], &of("fan-out")["value"]),
        (&json!(5_400_000_000_u64), &Value::Null)
    );
    let table = owner.ok(&["quota", "show"]).stdout;
    assert!(table.contains("100 %") && table.contains("1h30m"), "{table}");
    host.ok(&["quota", "set", "--tenant", "acme", "triggers=none"]);
    assert_eq!(create("1h").code, 0);
    // Nobody else's.
    host.ok(&["component", "push", &other]);
}

#[test]
fn a_deleted_tenant_is_gone_and_its_name_free() {
    let host = Host::start();
    let old = Holder::owner(&host, "acme");
    old.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    old.ok(&[&["run", "hello", "--wait"], INPUT].concat());
    let unasked = host.inn(&["tenant", "rm", "acme"]);
    assert!(unasked.code == 2 && unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    host.ok(&["tenant", "rm", "acme", "--yes"]);
    old.refused(&["task", "ls"], 4);
    assert_eq!(host.inn(&["task", "ls", "--tenant", "acme"]).code, 3);
    let new = Holder::owner(&host, "acme");
    assert_eq!((new.json(&["task", "ls"]), new.json(&["runs", "ls"])), (json!([]), json!([])));
    assert_eq!(new.json(&["component", "ls"]), json!([]));
    old.refused(&["task", "ls"], 4);
    let taken = host.inn(&["tenant", "create", "acme"]);
    assert!(taken.code == 1 && taken.stderr.contains("already"), "{}", taken.stderr);
}

#[test]
fn a_lost_admins_token_is_mended_on_the_hosts_own_data() {
    let mut host = Host::start();
    let token = || std::fs::read_to_string(host.data().join("admin.token")).unwrap();
    let old = token();
    let busy = host.inn(&["token", "recover"]);
    assert!(busy.code == 1 && busy.stderr.contains("stop it"), "{}", busy.stderr);
    assert_eq!(token(), old);
    assert!(host.terminate().success());
    let recovered = host.json(&["token", "recover"]);
    let new = std::fs::read_to_string(host.data().join("admin.token")).unwrap();
    assert_ne!(new, old);
    host.restart(&[]);
    let who = host.json(&["whoami"]);
    assert_eq!((&who["id"], &who["role"]), (&recovered["id"], &json!("admin")));
    let void = host.inn(&["task", "ls", "--token", old.trim()]);
    assert!(void.code == 4 && void.stderr.contains("revoked"), "{}", void.stderr);
    let audit = host.json(&["audit", "ls", "--all"]);
    let by_hand: Vec<_> =
        audit.as_array().unwrap().iter().filter(|line| line["actor"] == "data folder").collect();
    assert_eq!(by_hand.len(), 2, "{audit}");
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("none").to_string_lossy().into_owned();
    assert_eq!(run_without_host(&["token", "recover", "--data", &data]).code, 3);
}

#[test]
fn changes_and_refusals_are_on_record() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    let id = owner.json(&["whoami"])["id"].as_str().unwrap().to_string();
    owner.ok(&["task", "create", "hello", "--component", &guest("hello")]);
    let viewer = Holder::new(&host, &["--tenant", "acme", "--role", "viewer"]);
    viewer.refused(&["run", "hello"], 4);
    let done = owner.json(&["audit", "ls", "--done"]);
    let created = done.as_array().unwrap().iter().find(|line| line["action"] == "TaskService/CreateTask");
    let created = created.unwrap_or_else(|| panic!("{done}"));
    assert_eq!(created["actor"], json!(format!("token {id}")));
    assert_eq!((&created["object"], &created["role"]), (&json!("task `hello`"), &json!("owner")));
    assert!(created["address"].as_str().unwrap().starts_with("127.0.0.1"), "{created}");
    assert!(created["before"].is_null() && created["after"].is_object(), "{created}");
    let denied = || owner.json(&["audit", "ls", "--denied", "--since", "1h"]);
    host.until("the refusal is on record", || denied() != json!([]));
    let denied = denied();
    assert_eq!(
        (&denied[0]["action"], &denied[0]["role"], &denied[0]["tenant"]),
        (&json!("RunService/StartRun"), &json!("viewer"), &json!("acme"))
    );
    // All of it, a line each, the newest first; another's is not among it.
    host.ok(&["tenant", "create", "globex"]);
    let exported = owner.ok(&["audit", "export"]).stdout;
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let times: Vec<&str> = lines.iter().map(|line| line["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert!(lines.len() >= 4 && lines.iter().all(|line| line["tenant"] == "acme"), "{exported}");
    assert!(!exported.contains(&owner.token));
    assert!(host.ok(&["audit", "ls", "--all"]).stdout.contains("globex"));
}

#[test]
fn what_was_used_is_on_the_bill() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    for (task, runs) in [("a", 1), ("b", 2)] {
        owner.ok(&["task", "create", task, "--component", &guest("hello")]);
        for _ in 0..runs {
            owner.ok(&[&["run", task, "--wait"], INPUT].concat());
        }
    }
    let by_task = owner.json(&["usage", "--by", "task"]);
    let runs: Vec<_> =
        by_task.as_array().unwrap().iter().map(|line| (line["task"].clone(), line["runs"].clone())).collect();
    assert_eq!(runs, [(json!("a"), json!(1)), (json!("b"), json!(2))]);
    let all = &owner.json(&["usage", "--by", "none"])[0];
    assert_eq!((&all["runs"], &all["attempts"], &all["input_bytes"]), (&json!(3), &json!(3), &json!(3 * 15)));
    for used in ["wall_micros", "memory_byte_seconds", "cpu_micros"] {
        assert!(all[used].as_u64() > Some(0), "{used}: {all}");
    }
    let csv = owner.ok(&["usage", "--csv", "--by", "task"]).stdout;
    assert!(csv.starts_with("task,task_id,runs,") && csv.matches("\r\n").count() == 3, "{csv}");
    let table = owner.ok(&["usage"]).stdout;
    assert!(table.lines().last().unwrap().trim().starts_with("total"), "{table}");
    assert_eq!(host.json(&["usage"]), json!([]));
    assert_eq!(each(&host.json(&["usage", "--all", "--by", "tenant"]), "tenant"), ["acme"]);
}

#[test]
fn contexts_name_host_tenant_and_token() {
    let host = Host::start();
    let owner = Holder::owner(&host, "acme");
    let address = std::fs::read_to_string(host.data().join("address")).unwrap();
    let file = host.file("acme.token", owner.token.as_bytes());
    let set = ["context", "set", "work", "--host", address.trim(), "--tenant", "acme", "--token-file", &file];
    host.ok(&set);
    host.ok(&["context", "use", "work"]);
    let who = host.json(&["whoami", "--context", "work"]);
    assert_eq!((&who["tenant"], &who["role"]), (&json!("acme"), &json!("owner")));
    // The data folder is named by the environment here, and goes before the current context.
    assert_eq!(host.json(&["whoami"])["role"], "admin");
    let shown = host.json(&["context", "show"]);
    assert_eq!(
        (&shown["name"], &shown["current"], &shown["has_token"]),
        (&json!("work"), &json!(true), &json!(true))
    );
    host.ok(&["context", "set", "work", "--token", &owner.token]);
    let all = ["ls", "show"].map(|what| host.ok(&["context", what, "-o", "json"]).stdout).concat();
    assert!(!all.contains(&owner.token), "{all}");
    assert_eq!(host.json(&["whoami", "--context", "work"])["role"], "owner");
    assert_eq!(host.inn(&["whoami", "--context", "none"]).code, 3);
    host.ok(&["context", "rm", "work"]);
    assert_eq!(host.json(&["context", "ls"]), json!([]));
}

#[test]
fn a_mistaken_scheme_is_told_in_words() {
    let host = Host::start();
    let address = std::fs::read_to_string(host.data().join("address")).unwrap();
    let secure = address.trim().replace("http://", "https://");
    let refused = host.inn(&["task", "ls", "--host", &secure]);
    assert!(refused.code == 5 && refused.stderr.contains("use http://"), "{}", refused.stderr);
    // Something that answers what it can't understand as TLS has it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 24]);
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 70, 0, 0]);
            thread::sleep(std::time::Duration::from_millis(200));
        }
    });
    // The connection's end may be heard of before what was answered.
    let told = (0..5).any(|_| {
        let refused = host.inn(&["task", "ls", "--host", &format!("http://127.0.0.1:{port}")]);
        assert_eq!(refused.code, 5, "{}", refused.stderr);
        refused.stderr.contains("use https://")
    });
    assert!(told, "the other scheme is named");
    let far = host.inn(&["task", "ls", "--host", "http://192.0.2.1:7070", "--token", "inn_t"]);
    assert!(far.code == 2 && far.stderr.contains("--insecure-plain-text"), "{}", far.stderr);
}
