//! Webhooks from requests that a client of HTTP/1.1 sends, byte by byte.

use super::inn::{Host, wat_command};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECRET: &str = "correct horse battery staple";

/// Writes its input to its output.
fn echo() -> Vec<u8> {
    wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 1024))
                (i32.store (i32.const 4) (i32.const 65536))
                (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                (i32.store (i32.const 4) (i32.load (i32.const 8)))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))"#,
    )
    .unwrap()
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}{}", self.head, self.body))
    }
}

/// Sends a request to the path of a URL, and reads to the end of the connection.
fn send(host: &Host, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
    let address = std::fs::read_to_string(host.data().join("address")).unwrap();
    let address = address.trim().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A host that refuses a body need not read it.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: body.into() }
}

fn seconds() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a sender has a clock of its own")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn mac(text: &[&[u8]]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    text.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes().to_vec()
}

fn hex_of_mac(text: &[&[u8]]) -> String {
    hex::encode(mac(text))
}

/// The headers of Stripe's way to sign.
fn signed(at: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    let at = at.to_string();
    let signature = hex_of_mac(&[at.as_bytes(), b".", body]);
    vec![("stripe-signature", format!("t={at},v1={signature}")), ("content-type", "application/json".into())]
}

/// A host with a task `echo` and webhooks of it. Returns the path of the one of this scheme.
fn with_webhook(scheme: &str) -> (Host, String) {
    let host = Host::start();
    let component = host.file("echo.wasm", &echo());
    host.ok(&["task", "create", "echo", "--component", &component]);
    let create = ["trigger", "create", "echo", "--webhook", scheme, "--webhook-secret", "hook"];
    let missing = host.inn(&create);
    assert!(missing.code == 3 && missing.stderr.contains("secret `hook`"), "{}", missing.stderr);
    let secret = host.file("secret", SECRET.as_bytes());
    host.ok(&["secret", "set", "hook", "--from-file", &secret]);
    let trigger = host.json(&create);
    let url = trigger["webhook"]["url"].as_str().unwrap_or_else(|| panic!("{trigger}")).to_string();
    let path = url[url.find("/hooks/").expect("a path")..].to_string();
    (host, path)
}

#[test]
fn a_signed_request_is_a_run_and_a_replayed_one_is_none() {
    let (host, path) = with_webhook("stripe");
    let (now, body) = (seconds(), br#"{"id":"evt_1","total":7}"#);
    let first = send(&host, "POST", &path, &signed(now, body), body);
    assert_eq!(first.status, 202, "{}", first.body);
    let id = first.json()["run"].as_str().unwrap().to_string();
    assert!(first.head.contains(&format!("innkeeper-run: {id}")) && first.head.contains("connection: close"));
    host.until("it has run", || host.json(&["runs", "show", &id])["state"] == "succeeded");
    assert_eq!(host.json(&["runs", "show", &id])["trigger"], "echo-1");
    let replayed = send(&host, "POST", &path, &signed(now, body), body);
    assert_eq!((replayed.status, &replayed.json()["run"]), (409, &json!(id)), "{}", replayed.body);
    let again = send(&host, "POST", &path, &signed(now + 5, body), body);
    assert_eq!((again.status, again.json()), (202, json!({"run": id, "existing": true})));
    let waited = send(&host, "POST", &format!("{path}?wait=20"), &signed(now + 6, body), body);
    assert_eq!((waited.status, waited.body.as_bytes()), (200, &body[..]), "{}", waited.head);
    let old = send(&host, "POST", &path, &signed(now - 400, b"{}"), b"{}");
    assert!(old.status == 401 && old.body.contains("was signed 40"), "{}", old.body);
    assert_eq!(host.json(&["runs", "ls"]).as_array().unwrap().len(), 1);
    // A clock that is ahead makes no run late, nor due later.
    let early = send(&host, "POST", &path, &signed(now + 200, b"{}"), b"{}");
    let early = host.json(&["runs", "show", early.json()["run"].as_str().unwrap()]);
    assert_eq!(early["nominal_at"], early["created_at"]);
    assert_eq!(send(&host, "POST", &path, &signed(now + 200, b"{}"), b"{}").status, 409);
}

/// The headers of Standard Webhooks' way to sign.
fn standard(id: &str, at: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    let at = at.to_string();
    let signature = mac(&[id.as_bytes(), b".", at.as_bytes(), b".", body]);
    vec![
        ("webhook-id", id.into()),
        ("webhook-timestamp", at),
        ("webhook-signature", format!("v1,{}", BASE64.encode(signature))),
    ]
}

#[test]
fn an_id_is_of_one_body() {
    let (host, path) = with_webhook("standard");
    let now = seconds();
    let first = send(&host, "POST", &path, &standard("m1", now, b"1"), b"1");
    assert_eq!(first.status, 202, "{}", first.body);
    let other = send(&host, "POST", &path, &standard("m1", now + 1, b"2"), b"2");
    assert_eq!((other.status, &other.json()["run"]), (409, &first.json()["run"]));
    assert!(other.body.contains("another body under this id"), "{}", other.body);
    let odd = send(&host, "POST", &path, &standard("ü", now, b"3"), b"3");
    assert!(odd.status == 401 && odd.body.contains("not visible ASCII"), "{}", odd.body);
}

#[test]
fn who_can_not_be_the_sender_holds_nothing_up() {
    let (host, path) = with_webhook("stripe");
    let address = std::fs::read_to_string(host.data().join("address")).unwrap();
    let address = address.trim().trim_start_matches("http://").to_string();
    // A body is told of, and never comes.
    let open = |headers: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 9\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let answer = |mut stream: TcpStream| {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for stream in (0..40).map(|_| open("")).collect::<Vec<_>>() {
        assert!(answer(stream).contains("401"));
    }
    let plausible = format!("stripe-signature: t={},v1=00\r\n", seconds());
    let mut held = Vec::new();
    host.until("one address has all that it may", || {
        held.extend((0..8).map(|_| open(&plausible)));
        let refused = send(&host, "POST", &path, &signed(seconds(), b"{}"), b"{}");
        refused.status == 429 && refused.body.contains("from this address")
    });
    let answers: Vec<_> = held.into_iter().map(answer).collect();
    assert!(answers.iter().any(|answer| answer.contains("408")));
    assert!(answers.iter().all(|answer| answer.contains("408") || answer.contains("429")));
    let good = send(&host, "POST", &path, &signed(seconds(), b"[]"), b"[]");
    assert_eq!(good.status, 202, "{}", good.body);
}

#[test]
fn who_is_not_the_sender_starts_nothing() {
    let (host, path) = with_webhook("github");
    let signature = |body: &[u8]| vec![("x-hub-signature-256", format!("sha256={}", hex_of_mac(&[body])))];
    for (headers, body) in [(vec![], &b"{}"[..]), (signature(b"other"), b"{}")] {
        let refused = send(&host, "POST", &path, &headers, body);
        assert_eq!(refused.status, 401, "{}", refused.body);
    }
    for wrong in ["/hooks/01990000-0000-7000-8000-000000000000", "/hooks/x", "/hooks/"] {
        assert_eq!(send(&host, "POST", wrong, &signature(b"{}"), b"{}").status, 404);
    }
    assert_eq!(send(&host, "GET", &path, &[], b"").status, 405);
    let calls = send(&host, "POST", "/innkeeper.v1.TaskService/ListTasks", &[], b"");
    assert!(calls.status == 404 && calls.body.contains("HTTP/2"), "{}", calls.body);
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(send(&host, "POST", &path, &signature(&large), &large).status, 413);
    assert_eq!(host.json(&["runs", "ls"]), json!([]));
    let good = send(&host, "POST", &path, &signature(b"{}"), b"{}");
    assert_eq!(good.status, 202, "{}", good.body);
}

#[test]
fn a_sender_can_wait_for_the_output() {
    let (host, path) = with_webhook("stripe");
    let path = format!("{path}?wait=20");
    let body = br#"{"total":7}"#;
    let answer = send(&host, "POST", &path, &signed(seconds(), body), body);
    assert_eq!((answer.status, answer.body.as_bytes()), (200, &body[..]), "{}", answer.head);
    host.ok(&["trigger", "pause", "echo-1"]);
    let paused = send(&host, "POST", &path, &signed(seconds(), b"1"), b"1");
    assert_eq!((paused.status, paused.json()), (503, json!({"skipped": "paused"})));
    let failing = host.file("failing.wasm", &wat_command("unreachable"));
    host.ok(&["task", "update", "echo", "--component", &failing]);
    host.ok(&["trigger", "resume", "echo-1"]);
    let failed = send(&host, "POST", &path, &signed(seconds(), b"2"), b"2");
    assert_eq!((failed.status, &failed.json()["failure"]["kind"]), (502, &json!("trap")), "{}", failed.body);
    host.ok(&["trigger", "rm", "echo-1"]);
    assert_eq!(send(&host, "POST", &path, &signed(seconds(), b"3"), b"3").status, 404);
}
