//! Outputs. A large one is stored in pieces, each in a commit of its own, so that none of them keeps other writes waiting
//! for long. The first is in the run's row, and makes the output one; the others are there before that. They belong to
//! the attempt that executes: if it ends otherwise they go.

use super::row::{Id, signed};
use crate::{Finish, StoreError};
use innkeeper_domain::failure::Outcome;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::OUTPUT_PIECE_BYTES;
use rusqlite::{Connection, params};
use std::ops::Range;

/// The table of the further pieces.
pub(super) const TABLE: &str = "output_piece";
/// Those of a run, in order.
pub(super) const FURTHER: &str = "SELECT bytes FROM output_piece WHERE run_id = ?1 ORDER BY number";

/// Where the pieces are that come after the first, in an output of so many bytes.
pub(super) fn further(bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (OUTPUT_PIECE_BYTES..bytes).step_by(OUTPUT_PIECE_BYTES);
    starts.map(move |start| start..bytes.min(start + OUTPUT_PIECE_BYTES))
}

/// The piece that is in the run's row.
pub(super) fn first(output: &[u8]) -> &[u8] {
    &output[..output.len().min(OUTPUT_PIECE_BYTES)]
}

/// Stores a further piece of an attempt's output, again if it is there.
pub(super) fn store(c: &Connection, finish: &Finish, piece: Range<usize>) -> Result<(), StoreError> {
    let (lease, Outcome::Output(output)) = (finish.lease, &finish.end.outcome) else { return Ok(()) };
    let mut store = c.prepare_cached(
        "INSERT INTO output_piece (run_id, number, bytes)
         SELECT id, ?4, ?5 FROM run WHERE id = ?1 AND host_id = ?2 AND attempt = ?3 AND state = 'running'
         ON CONFLICT (run_id, number) DO UPDATE SET bytes = excluded.bytes",
    )?;
    let number = signed((piece.start / OUTPUT_PIECE_BYTES) as u64);
    let bytes = &output.bytes[piece];
    let stored = store.execute(params![Id(lease.run.0), Id(lease.host.0), lease.attempt, number, bytes])?;
    if stored == 0 { Err(StoreError::LeaseLost) } else { Ok(()) }
}

/// Adds the further pieces to an output of which the first is there.
pub(super) fn add_further(c: &Connection, run: RunId, output: &mut Vec<u8>) -> Result<(), StoreError> {
    let mut further = c.prepare_cached(FURTHER)?;
    let mut pieces = further.query([Id(run.0)])?;
    while let Some(piece) = pieces.next()? {
        let piece = piece.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        output.extend_from_slice(piece);
    }
    Ok(())
}

/// Deletes the further pieces. How many bytes these were.
pub(super) fn delete_further(c: &Connection, run: RunId) -> Result<i64, StoreError> {
    let mut delete =
        c.prepare_cached("DELETE FROM output_piece WHERE run_id = ?1 RETURNING octet_length(bytes)")?;
    let bytes = delete.query_map([Id(run.0)], |row| row.get::<_, i64>(0))?;
    Ok(bytes.sum::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::{ComponentStore, HostStore, NewRun, NewTask, RunStore, StartOptions, TaskStore, TenantStore};
    use innkeeper_domain::Timestamp;
    use innkeeper_domain::component::{Component, Digest, Shape};
    use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Usage};
    use innkeeper_domain::host::{Host, Labels};
    use innkeeper_domain::ids::{HostId, TaskId};
    use innkeeper_domain::limits::OUTPUT_BYTES_MAX;
    use innkeeper_domain::name::Name;
    use innkeeper_domain::payload::Payload;
    use innkeeper_domain::task::TaskSpec;
    use sha2::Digest as _;

    #[test]
    fn the_pieces_are_all_of_it() {
        let piece = OUTPUT_PIECE_BYTES;
        for bytes in [0, 1, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 1, OUTPUT_BYTES_MAX] {
            let output = vec![0; bytes];
            let mut end = first(&output).len();
            for piece in further(bytes) {
                assert!(piece.start == end && !piece.is_empty() && piece.len() <= OUTPUT_PIECE_BYTES);
                end = piece.end;
            }
            assert_eq!(end, bytes);
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn host(of: i64) -> Host {
        let (address, version) = (String::new(), String::new());
        let (roles, labels) = (Vec::new(), Labels::default());
        let name: Name = "one".parse().unwrap();
        Host { id: HostId::new(at(of)), name, address, version, roles, labels, capacity: 8 }
    }

    /// A store with a run, and a host that lives until second 100.
    async fn with_run(folder: &std::path::Path) -> (SqliteStore, Host) {
        let store = SqliteStore::open(folder).unwrap();
        let work: Name = "work".parse().unwrap();
        let tenant = store.tenant_ensure(&work, at(1)).await.unwrap().id;
        let digest = Digest(sha2::Sha256::digest(b"wasm").into());
        let (shape, imports, created_at) = (Shape::Handler, Vec::new(), at(1));
        let component = Component { digest, size: 4, shape, adapted: false, imports, created_at };
        store.component_put(tenant, component, b"wasm".to_vec(), at(1).into()).await.unwrap();
        let task = NewTask { id: TaskId::new(at(1)), name: work.clone(), spec: TaskSpec::new(digest) };
        store.task_create(tenant, task, at(1).into()).await.unwrap();
        let (id, input) = (RunId::new(at(1)), Payload::json("1"));
        let options = StartOptions::default();
        let run = NewRun { id, task: work, input, idempotency_key: None, options };
        store.runs_start(tenant, vec![run], at(1).into()).await.unwrap();
        let host = host(1);
        store.host_start(host.clone(), at(100), at(1)).await.unwrap();
        (store, host)
    }

    #[tokio::test]
    async fn what_was_stored_of_an_output_that_comes_to_nothing_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (store, first_host) = with_run(folder.path()).await;
        let claim = async |host: &Host, second| {
            store.runs_claim(host.id, &Labels::default(), 1, at(second)).await.unwrap().remove(0).lease
        };
        let finish = |lease, outcome| {
            let end = AttemptEnd { outcome, usage: Usage::default() };
            Finish { lease, end, again_at: Some(at(10)), lines: Vec::new() }
        };
        let output = || Outcome::Output(Payload { content_type: "x/y".into(), bytes: vec![7; 200_000] });
        // As if the host ended before it could finish the run.
        let half = async |finish: Finish| {
            let piece = OUTPUT_PIECE_BYTES..2 * OUTPUT_PIECE_BYTES;
            store.writer.write(move |c| super::store(c, &finish, piece), |()| ()).await
        };
        let pieces = async || {
            let count = |c: &Connection| {
                Ok(c.query_row("SELECT count(*) FROM output_piece", [], |row| row.get::<_, i64>(0))?)
            };
            store.readers.read(count).await.unwrap()
        };
        let lease = claim(&first_host, 2).await;
        half(finish(lease, output())).await.unwrap();
        half(finish(lease, output())).await.unwrap();
        assert_eq!(pieces().await, 1);
        // The attempt is said to have failed after all.
        let failed = Outcome::Failure(Failure::new(FailureKind::Trap, "on purpose"));
        store.run_finish_if_leased(finish(lease, failed), at(3)).await.unwrap();
        assert_eq!((pieces().await, half(finish(lease, output())).await), (0, Err(StoreError::LeaseLost)));
        let lease = claim(&first_host, 10).await;
        half(finish(lease, output())).await.unwrap();
        assert_eq!(store.hosts_reap(HostId::new(at(200)), at(200)).await, Ok(1));
        assert_eq!((pieces().await, half(finish(lease, output())).await), (0, Err(StoreError::LeaseLost)));
        let stops = host(200);
        store.host_start(stops.clone(), at(900), at(200)).await.unwrap();
        half(finish(claim(&stops, 200).await, output())).await.unwrap();
        assert_eq!(store.host_stop(stops.id, at(200)).await, Ok(1));
        assert_eq!(pieces().await, 0);
        let other = host(200);
        store.host_start(other.clone(), at(900), at(200)).await.unwrap();
        let lease = claim(&other, 201).await;
        store.run_finish_if_leased(finish(lease, output()), at(202)).await.unwrap();
        assert_eq!(pieces().await, 3);
    }
}
