//! An issuer on this machine, whose keys change.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::task::JoinSet;

/// A key and its id.
struct Signer(&'static str, Ed25519KeyPair);

impl Signer {
    fn new(id: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self(id, Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("it is one"))
    }

    fn set(&self) -> String {
        let x = BASE64.encode(self.1.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.0}]}).to_string()
    }

    fn token(&self, issuer: &str) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.0});
        let exp = crate::host::now().as_second() + 300;
        let claims = json!({"iss": issuer, "aud": "innkeeper", "sub": self.0, "exp": exp});
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        format!("{text}.{}", BASE64.encode(self.1.sign(text.as_bytes())))
    }
}

/// Answers with a description of itself, and its keys.
struct Issuer {
    url: String,
    keys: Arc<Mutex<String>>,
    /// How often the keys were asked for.
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn start(keys: &str, says_it_is: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let (keys, asked) = (Arc::new(Mutex::new(keys.to_string())), Arc::new(AtomicUsize::new(0)));
        let issuer = Self { url: url.clone(), keys: Arc::clone(&keys), asked: Arc::clone(&asked) };
        let description =
            json!({"issuer": says_it_is.unwrap_or(&url), "jwks_uri": format!("{url}/keys")}).to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
                let head: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let body = match head.first().and_then(|line| line.split(' ').nth(1)) {
                    Some("/.well-known/openid-configuration") => description.clone(),
                    Some("/keys") => {
                        asked.fetch_add(1, Ordering::SeqCst);
                        keys.lock().expect("whole").clone()
                    }
                    _ => String::new(),
                };
                let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        issuer
    }

    fn config(&self) -> OidcConfig {
        OidcConfig {
            issuer: self.url.clone(),
            audience: "innkeeper".into(),
            keys: KeySource::Discovered { authorities: None },
        }
    }
}

async fn start(config: OidcConfig) -> (Arc<Oidc>, Arc<Notify>, JoinSet<()>) {
    let oidc = Arc::new(Oidc::new(config, Arc::new(crate::host::now)).await.expect("it starts"));
    let (told, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
    tasks.spawn(Arc::clone(&oidc).keep_fresh(Arc::clone(&told), CancellationToken::new()));
    (oidc, told, tasks)
}

#[tokio::test]
async fn keys_are_discovered_and_an_unknown_one_is_asked_for_once() {
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    let issuer = Issuer::start(&first.set(), None);
    let (oidc, told, _tasks) = start(issuer.config()).await;
    // The first token waits for the keys.
    assert_eq!(oidc.subject(&first.token(&issuer.url)).await.as_deref(), Ok("first"));
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    // The keys were only just fetched: however often a stranger's is shown, they aren't again.
    *issuer.keys.lock().expect("whole") = second.set();
    for _ in 0..20 {
        let why = oidc.subject(&second.token(&issuer.url)).await.expect_err("unknown");
        assert!(
            matches!(&why, IdentityError::Bad(why) if why.contains("a key that its issuer doesn't have")),
            "{why}"
        );
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    // Half a minute later, all who show it wait for one fetch.
    oidc.fetched.send_modify(|fetched| fetched.tried = Instant::now().checked_sub(IDENTITY_FETCH_PAUSE));
    let token = second.token(&issuer.url);
    let all = futures::future::join_all((0..20).map(|_| oidc.subject(&token))).await;
    assert!(all.iter().all(|said| said.as_deref() == Ok("second")), "{all:?}");
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
    assert!(oidc.subject(&first.token(&issuer.url)).await.is_err(), "a key that was taken away");
    // Keys that can't be had any more are used on.
    *issuer.keys.lock().expect("whole") = "<html>".into();
    told.notify_waiters();
    tokio::time::timeout(Duration::from_secs(10), async {
        while issuer.asked.load(Ordering::SeqCst) < 3 || oidc.problem.lock().expect("whole").is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it asks when told, and it says what is wrong");
    assert_eq!(oidc.subject(&second.token(&issuer.url)).await.as_deref(), Ok("second"));
    // But not for ever.
    oidc.fetched.send_modify(|fetched| fetched.at = Instant::now().checked_sub(IDENTITY_KEYS_KEPT));
    let why = oidc.subject(&second.token(&issuer.url)).await.expect_err("too old");
    assert!(matches!(&why, IdentityError::Unavailable(why) if why.contains("can't be had")), "{why}");
}

#[tokio::test]
async fn an_issuer_that_says_it_is_another_is_not_believed() {
    let signer = Signer::new("one");
    let issuer = Issuer::start(&signer.set(), Some("https://id.example.com"));
    let (oidc, _told, _tasks) = start(issuer.config()).await;
    let why = oidc.subject(&signer.token(&issuer.url)).await.expect_err("no");
    assert!(matches!(&why, IdentityError::Unavailable(_)), "{why}");
    assert!(oidc.problem.lock().expect("whole").contains("to the letter"));
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_file_of_keys_is_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    std::fs::write(&file, first.set()).expect("a file");
    let issuer = "https://id.example.com";
    let config = OidcConfig {
        issuer: issuer.into(),
        audience: "innkeeper".into(),
        keys: KeySource::File(file.clone()),
    };
    let (oidc, told, _tasks) = start(config.clone()).await;
    assert_eq!(oidc.subject(&first.token(issuer)).await.as_deref(), Ok("first"));
    assert!(oidc.subject(&first.token("https://other.example")).await.is_err());
    std::fs::write(&file, second.set()).expect("a file");
    let renewed = async {
        while oidc.subject(&second.token(issuer)).await.is_err() {
            told.notify_waiters();
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.expect("it reads it when told");
    std::fs::write(&file, "{}").expect("a file");
    assert!(Oidc::new(config, Arc::new(crate::host::now)).await.is_err(), "no host starts on a bad one");
}

#[tokio::test]
async fn by_http_only_this_machine_is_asked() {
    let fetcher = Fetcher::new(None).expect("it is made");
    let why = fetcher.get(&"http://192.0.2.1/keys".parse().expect("a URL")).await.expect_err("far away");
    assert!(format!("{why:#}").contains("https://"), "{why:#}");
    for bad in ["id.example.com", "ftp://id.example.com", "https://user@id.example.com", "/x", ""] {
        assert!(url(bad).is_err(), "{bad}");
    }
}
