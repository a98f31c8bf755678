//! Outputs of every size.

use super::*;
use innkeeper_domain::limits::{OUTPUT_BYTES_MAX, OUTPUT_PIECE_BYTES};

/// An attempt's end with an output of so many bytes, of which no two pieces are alike.
pub fn large_output(bytes: usize) -> AttemptEnd {
    let bytes = (0..bytes).map(|at| (at % 251) as u8).collect();
    let payload = Payload { content_type: "application/octet-stream".into(), bytes };
    AttemptEnd { outcome: Outcome::Output(payload), usage: Usage::default() }
}

pub async fn an_output_is_kept_whole_however_large_it_is(f: Fixture) {
    let before = f.stored().await;
    let piece = OUTPUT_PIECE_BYTES;
    for bytes in [0, piece - 1, piece, piece + 1, 3 * piece, OUTPUT_BYTES_MAX - 1, OUTPUT_BYTES_MAX] {
        let id = f.start("1").await;
        let claimed = f.claim(1).await.remove(0);
        let end = large_output(bytes);
        assert_eq!(f.finish(&claimed, end.clone(), None).await, Ok(RunState::Succeeded));
        let Outcome::Output(expected) = end.outcome else { unreachable!("it is one") };
        assert!(f.run(id).await.output == Some(expected), "{bytes} bytes");
        assert_eq!(f.stored().await, f.stored_by_rows().await);
    }
    let keep = Keep { runs_since: at(9_000), ..KEEP };
    while !f.store.retention_step(keep, 9).await.unwrap().is_empty() {}
    assert_eq!(f.stored_by_rows().await, before);
    assert_eq!(f.stored().await, before);
}

pub async fn a_large_output_under_an_old_lease_is_void(f: Fixture) {
    let id = f.start("1").await;
    let old = f.claim(1).await.remove(0);
    // Its end comes when another has the run.
    assert_eq!(f.store.hosts_reap(another_host(), at(2_000)).await, Ok(1));
    assert_eq!(f.finish(&old, large_output(OUTPUT_BYTES_MAX), None).await, Err(StoreError::LeaseLost));
    let other = HostId::new(at(2_001));
    f.store.host_start(a_host(other), at(9_000), at(2_001)).await.unwrap();
    let new = f.store.runs_claim(other, &Labels::default(), 1, at(2_002)).await.unwrap().remove(0);
    assert_eq!(f.finish(&old, large_output(OUTPUT_BYTES_MAX), None).await, Err(StoreError::LeaseLost));
    let end = large_output(OUTPUT_PIECE_BYTES + 1);
    assert_eq!(f.finish(&new, end.clone(), None).await, Ok(RunState::Succeeded));
    assert_eq!(f.finish(&new, large_output(OUTPUT_BYTES_MAX), None).await, Err(StoreError::LeaseLost));
    assert!(Outcome::Output(f.run(id).await.output.unwrap()) == end.outcome);
    assert_eq!(f.stored().await, f.stored_by_rows().await);
}
