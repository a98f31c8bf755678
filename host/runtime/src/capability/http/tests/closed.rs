//! Whatever it is called, and whatever its name server says: what is closed is not reached.

use super::*;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A server that counts who has come.
struct Site {
    at: SocketAddr,
    came: Arc<AtomicUsize>,
}

impl Site {
    async fn start(at: &str, answer: String) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (at, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&came);
        tokio_util::task::TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { at, came }
    }

    /// On loopback addresses that are open where 127.0.0.1/32 is, and not.
    async fn open_and_closed() -> (Self, Self) {
        let says = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        (Self::start("127.0.0.1:0", says("open")).await, Self::start("127.0.0.2:0", says("closed")).await)
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// A name server that says this, one after the other.
fn says(answers: Vec<Vec<SocketAddr>>) -> (Resolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (answers, count) = (Mutex::new(answers.into_iter()), Arc::clone(&asked));
    let resolver = move |_: &str, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(answers.lock().unwrap().next().unwrap())
    };
    (Arc::new(resolver), asked)
}

#[tokio::test]
async fn no_way_to_write_a_closed_address_is_a_way_in() {
    let (site, _) = Site::open_and_closed().await;
    let port = site.at.port();
    let (mut hooks, log) = hooks(&["*:*".into()], &[]);
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:7f00:1]",
        "[::ffff:0:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "a@127.0.0.1",
        "example.com@127.0.0.1",
    ] {
        let error = get(&mut hooks, format!("http://{host}:{port}/"), None).await.unwrap_err();
        let denied = matches!(
            error,
            Error::DestinationIpProhibited | Error::HttpRequestUriInvalid | Error::DnsError { .. }
        );
        assert!(denied, "{host}: {error:?}");
    }
    assert_eq!(site.came(), 0);
    let notes = notes(&log);
    assert!(
        notes.iter().any(|note| note.contains("169.254.169.254 is in the network `metadata`")),
        "{notes:?}"
    );
    let of_name = notes.iter().find(|note| note.contains("localhost is in the network `loopback`"));
    assert!(of_name.is_some_and(|note| !note.contains("127.0.0.1")), "where a name is isn't said: {notes:?}");

    let opened = client(&[], Bounds::default(), Arc::new(resolve::system));
    let (mut hooks, _) = attempt(&opened, tenant(1), &["*:*".into()], "loopback");
    assert!(get(&mut hooks, format!("http://127.0.0.1:{port}/"), None).await.is_ok());
    assert!(get(&mut hooks, format!("http://[::ffff:7f00:1]:{port}/"), None).await.is_err());
    assert_eq!(site.came(), 1, "it can be reached, if open");
}

#[tokio::test]
async fn a_tenants_quota_opens_networks_to_it_alone() {
    let (site, _) = Site::open_and_closed().await;
    let (uri, grants) = (format!("http://{}/", site.at), ["*:*".into()]);
    let client = client(&[], Bounds::default(), Arc::new(resolve::system));
    let (mut without, log) = attempt(&client, tenant(1), &grants, "private");
    let error = get(&mut without, uri.clone(), None).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error:?}");
    let note = notes(&log).concat();
    for words in [
        "in the network `loopback`",
        "`inn quota set --tenant acme open-networks=loopback,private`",
        "`inn serve --open-network 127.0.0.1`",
    ] {
        assert!(note.contains(words), "{note}");
    }
    let (mut with, _) = attempt(&client, tenant(2), &grants, "loopback,private");
    assert_eq!(get(&mut with, uri.clone(), None).await.unwrap().0, 200);
    assert!(get(&mut without, uri, None).await.is_err());
}

#[tokio::test]
async fn a_name_that_comes_to_mean_a_closed_address_is_followed_only_to_what_was_checked() {
    let (open, closed) = Site::open_and_closed().await;
    let (resolver, asked) = says(vec![vec![open.at], vec![closed.at], vec![open.at]]);
    let client = client(&["127.0.0.1"], Bounds::default(), resolver);
    let (mut hooks, _) = attempt(&client, tenant(1), &["rebinds.test".into()], "none");
    let uri = "http://rebinds.test/";
    assert_eq!(get(&mut hooks, uri.into(), None).await.unwrap().1.unwrap(), b"open");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "what was checked is what was asked for");
    let error = get(&mut hooks, uri.into(), None).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error:?}");
    assert_eq!(get(&mut hooks, uri.into(), None).await.unwrap().1.unwrap(), b"open");
    assert_eq!((open.came(), closed.came()), (2, 0));
}

#[tokio::test]
async fn of_mixed_addresses_only_open_ones_are_tried() {
    let (open, closed) = Site::open_and_closed().await;
    // The open one refuses; that is no reason to try the closed one.
    let refuses = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (resolver, _) = says(vec![vec![closed.at, open.at], vec![refuses, closed.at], vec![closed.at; 17]]);
    let client = client(&["127.0.0.1"], Bounds::default(), resolver);
    let (mut hooks, _) = attempt(&client, tenant(1), &["mixed.test".into()], "none");
    let uri = "http://mixed.test/";
    assert_eq!(get(&mut hooks, uri.into(), None).await.unwrap().1.unwrap(), b"open");
    let error = get(&mut hooks, uri.into(), None).await.unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
    let error = get(&mut hooks, uri.into(), None).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error:?}");
    assert_eq!((open.came(), closed.came()), (1, 0));
}

#[tokio::test]
async fn a_redirect_is_a_request_like_any_other() {
    let (open, closed) = Site::open_and_closed().await;
    let away = format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", closed.at);
    let redirects = Site::start("127.0.0.1:0", away).await;
    let (mut to_any, _) = hooks(&["*:*".into()], &["127.0.0.1"]);
    assert_eq!(get(&mut to_any, format!("http://{}/", redirects.at), None).await.unwrap().0, 302);
    assert_eq!(closed.came(), 0, "nobody follows by itself");
    let error = get(&mut to_any, format!("http://{}/", closed.at), None).await.unwrap_err();
    assert!(matches!(error, Error::DestinationIpProhibited), "{error:?}");

    // To an open address that isn't granted.
    let (mut to_one, _) = hooks(&[redirects.at.to_string()], &["127.0.0.1"]);
    assert_eq!(get(&mut to_one, format!("http://{}/", redirects.at), None).await.unwrap().0, 302);
    let error = get(&mut to_one, format!("http://{}/", open.at), None).await.unwrap_err();
    assert!(matches!(error, Error::HttpRequestDenied), "{error:?}");
    assert_eq!((open.came(), closed.came()), (0, 0));
}
