//! What a request says, and how much of it is read.

use super::*;
use bytes::Bytes;

fn parts(uri: &str, prefer: Option<&str>) -> Parts {
    let mut request = Request::builder().uri(uri);
    if let Some(prefer) = prefer {
        request = request.header("prefer", prefer);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_sender_says_how_long_it_waits() {
    let wait = |uri: &str, prefer| Asked::of(&parts(uri, prefer)).map(|asked| asked.wait);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(wait("/hooks/x", None).unwrap(), None);
    assert_eq!(wait("/hooks/x?wait=10", None).unwrap(), seconds(10));
    assert_eq!(wait("/hooks/x?a=b&wait=60s", None).unwrap(), seconds(60));
    assert_eq!(wait("/hooks/x", Some("respond-async, wait=7")).unwrap(), seconds(7));
    for bad in ["0", "61", "-1", "", "soon"] {
        let refused = wait(&format!("/hooks/x?wait={bad}"), None);
        assert!(format!("{refused:?}").contains("1 to 60"), "{bad}: {refused:?}");
    }
}

#[test]
fn a_path_names_a_trigger() {
    let id = TriggerId::new(innkeeper_domain::Timestamp::UNIX_EPOCH);
    assert_eq!(trigger_id(&format!("/hooks/{id}")).unwrap(), id);
    for bad in ["/hooks/", "/hooks/x", "/hook", "/hooks/../x"] {
        assert!(trigger_id(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_body_has_its_bounds() {
    let body = |bytes: usize| Body::new(http_body_util::Full::new(Bytes::from(vec![7; bytes])));
    let none = HeaderMap::new();
    assert_eq!(read(&none, body(INPUT_BYTES_MAX)).await.unwrap().len(), INPUT_BYTES_MAX);
    let refused = read(&none, body(INPUT_BYTES_MAX + 1)).await.unwrap_err();
    assert!(format!("{refused:?}").contains("413"), "{refused:?}");
    let told = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, "99999999".parse().unwrap())]);
    assert!(read(&told, Body::empty()).await.is_err(), "what is told to be too large isn't read");
}

#[tokio::test]
async fn a_body_that_stands_still_is_not_waited_for() {
    let full = http_body_util::Full::new(Bytes::from_static(b"the beginning"));
    let body = Body::new(full.with_trailers(std::future::pending()));
    let refused = format!("{:?}", collect(body, Duration::from_millis(10)).await.unwrap_err());
    assert!(refused.contains("408") && refused.contains("did not go on"), "{refused}");
}
