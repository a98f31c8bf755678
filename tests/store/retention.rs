//! What the retention takes, and what it leaves.

use super::*;

/// Keeps everything.
pub const KEEP: Keep = Keep {
    runs_since: Timestamp::UNIX_EPOCH,
    logs_since: Timestamp::UNIX_EPOCH,
    skips_since: Timestamp::UNIX_EPOCH,
    uploads_since: Timestamp::UNIX_EPOCH,
    audit_since: Timestamp::MIN,
    usage_since: Timestamp::MIN,
    events_since: Timestamp::MIN,
    events_held_since: Timestamp::MIN,
};

/// All steps until nothing is left: their sum, and how many they were.
async fn sweep(f: &Fixture, keep: Keep, limit: usize) -> (Swept, usize) {
    let (mut sum, mut steps) = (Swept::default(), 0);
    loop {
        let swept = f.store.retention_step(keep, limit).await.expect("a step");
        let limit = limit as u64;
        assert!(
            [swept.runs, swept.logs, swept.skips, swept.uploads].iter().all(|n| *n <= limit),
            "{swept:?}"
        );
        if swept.is_empty() {
            return (sum, steps);
        }
        sum.runs += swept.runs;
        sum.logs += swept.logs;
        sum.skips += swept.skips;
        sum.uploads += swept.uploads;
        sum.definitions += swept.definitions;
        steps += 1;
    }
}

/// Executes a run that is claimed, to its end then, with a line of log.
async fn end(f: &Fixture, claimed: &Claimed, second: i64) {
    let line = LogLine { attempt: 1, sequence: 1, at: at(3), level: LogLevel::Info, text: "said".into() };
    let finish = Finish { lease: claimed.lease, end: output("1"), again_at: None, lines: vec![line] };
    f.store.run_finish_if_leased(finish, at(second)).await.expect("an end");
}

pub async fn retention_takes_old_runs_in_steps(f: Fixture) {
    for n in 0..7 {
        f.start(&n.to_string()).await;
    }
    let claimed = f.claim(6).await;
    for (run, second) in claimed.iter().zip([10, 11, 12, 13, 20]) {
        end(&f, run, second).await;
    }
    assert_eq!(sweep(&f, Keep { runs_since: at(10), ..KEEP }, 2).await, (Swept::default(), 0));
    let (swept, steps) = sweep(&f, Keep { runs_since: at(20), ..KEEP }, 2).await;
    assert_eq!((swept.runs, steps), (4, 2));
    for gone in &claimed[..4] {
        let found = f.store.run_get(f.tenant.id, gone.lease.run).await;
        assert!(matches!(found, Err(StoreError::NotFound(_))), "{found:?}");
        let log = f.store.run_logs(f.tenant.id, gone.lease.run, (0, 0), 9).await;
        assert!(matches!(log, Err(StoreError::NotFound(_))), "{log:?}");
    }
    // The one that ended later, the one that runs, and the one that waits, however old they are.
    let left = sweep(&f, Keep { runs_since: at(20), ..KEEP }, 2).await;
    assert_eq!(left, (Swept::default(), 0));
    let list = f.store.run_list(f.tenant.id, RunFilter::default(), page(9, None)).await.unwrap().items;
    assert_eq!(list.len(), 3);
    let (swept, _) = sweep(&f, Keep { runs_since: at(9_000), ..KEEP }, 100).await;
    assert_eq!(swept.runs, 1);
    assert_eq!(f.run(claimed[5].lease.run).await.state, RunState::Running);
    assert_eq!(f.claim(9).await.len(), 1);
}

pub async fn retention_takes_logs_before_their_runs(f: Fixture) {
    f.start("1").await;
    f.start("2").await;
    let claimed = f.claim(9).await;
    end(&f, &claimed[0], 10).await;
    let line = LogLine { attempt: 1, sequence: 1, at: at(3), level: LogLevel::Info, text: "says".into() };
    let news = AttemptNews { lease: claimed[1].lease, lines: vec![line], progress: None };
    f.store.runs_news(vec![news]).await.unwrap();
    assert_eq!(sweep(&f, Keep { logs_since: at(10), ..KEEP }, 9).await, (Swept::default(), 0));
    let (swept, _) = sweep(&f, Keep { logs_since: at(9_000), ..KEEP }, 9).await;
    assert_eq!(swept, Swept { logs: 1, ..Swept::default() });
    let log = async |run| f.store.run_logs(f.tenant.id, run, (0, 0), 9).await.unwrap().len();
    assert_eq!((log(claimed[0].lease.run).await, log(claimed[1].lease.run).await), (0, 1));
    let run = f.run(claimed[0].lease.run).await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Succeeded, 1));
}

pub async fn retention_takes_long_logs_in_pieces(f: Fixture) {
    for n in 0..3 {
        f.start(&n.to_string()).await;
    }
    let line =
        |sequence| LogLine { attempt: 1, sequence, at: at(3), level: LogLevel::Info, text: "said".into() };
    for claimed in f.claim(3).await {
        let lines = (1..=9_000).map(line).collect();
        let finish = Finish { lease: claimed.lease, end: output("1"), again_at: None, lines };
        f.store.run_finish_if_leased(finish, at(10)).await.expect("an end");
    }
    // 20,000 lines a step.
    let keep = Keep { runs_since: at(9_000), logs_since: at(9_000), ..KEEP };
    let first = f.store.retention_step(keep, 9).await.expect("a step");
    assert_eq!(first, Swept { runs: 2, ..Swept::default() });
    assert_eq!(sweep(&f, keep, 9).await, (Swept { runs: 1, ..Swept::default() }, 1));
}

pub async fn retention_goes_on_where_one_log_is_longer_than_a_step(f: Fixture) {
    f.start("1").await;
    let text = "x".repeat(100);
    let line =
        |sequence| LogLine { attempt: 1, sequence, at: at(3), level: LogLevel::Info, text: text.clone() };
    let lease = f.claim(1).await.remove(0).lease;
    let finish = Finish { lease, end: output("1"), again_at: None, lines: (1..=41_000).map(line).collect() };
    f.store.run_finish_if_leased(finish, at(10)).await.expect("an end");
    let keep = Keep { logs_since: at(9_000), ..KEEP };
    let (swept, steps) = sweep(&f, keep, 9).await;
    // Two of the steps, that delete a part of it, count as a log, so that the next comes soon.
    assert_eq!((swept, steps), (Swept { logs: 3, ..Swept::default() }, 3));
    assert_eq!(f.store.run_logs(f.tenant.id, lease.run, (0, 0), 9).await, Ok(Vec::new()));
}

pub async fn retention_takes_skips_and_uploads(f: Fixture) {
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    f.advance(id, 10, &[], vec![skip(10, 30, 3, SkipReason::Superseded)], Some(40)).await;
    f.advance(id, 40, &[], vec![skip(40, 40, 1, SkipReason::Paused)], Some(50)).await;
    let upload = async |n: u8, begun: i64, appended: i64| {
        f.store.upload_begin(f.tenant.id, Digest([n; 32]), 9, at(begun)).await.unwrap();
        f.store.upload_append(f.tenant.id, Digest([n; 32]), 0, b"ab".to_vec(), at(appended)).await.unwrap();
    };
    upload(1, 2, 10).await;
    upload(2, 2, 11).await;
    let keep = Keep { skips_since: at(31), uploads_since: at(11), ..KEEP };
    let expected = Swept { skips: 1, uploads: 1, ..Swept::default() };
    assert_eq!(sweep(&f, keep, 9).await.0, expected);
    assert_eq!(f.skips().await, [skip(40, 40, 1, SkipReason::Paused)]);
    let again = async |n: u8| f.store.upload_begin(f.tenant.id, Digest([n; 32]), 9, at(12)).await;
    assert_eq!((again(1).await, again(2).await), (Ok(0), Ok(2)));
    // The trigger goes on.
    assert_eq!(f.due(50).await, [(id, 50)]);
}

pub async fn a_deleted_task_stays_as_long_as_a_run_does(f: Fixture) {
    let id = f.trigger(OverlapPolicy::Skip).await;
    f.advance(id, 10, &[10], vec![], Some(20)).await;
    let claimed = f.claim(1).await.remove(0);
    let spec = async || f.store.task_spec(claimed.task_id, claimed.revision).await;
    f.store.task_delete(f.tenant.id, &name("work"), at(20).into()).await.unwrap();
    assert_eq!(sweep(&f, Keep { runs_since: at(9_000), ..KEEP }, 9).await, (Swept::default(), 0));
    end(&f, &claimed, 30).await;
    assert_eq!(sweep(&f, Keep { runs_since: at(25), ..KEEP }, 9).await, (Swept::default(), 0));
    assert!(spec().await.is_ok());
    let (swept, _) = sweep(&f, Keep { runs_since: at(31), ..KEEP }, 9).await;
    assert_eq!((swept.runs, swept.definitions), (1, 2), "the run, its task and its trigger");
    let again = NewTask { id: TaskId::new(at(40)), name: name("work"), spec: TaskSpec::new(digest()) };
    assert_eq!(f.store.task_create(f.tenant.id, again, at(40).into()).await.unwrap().revision, 1);
}

pub async fn retention_takes_bytes_that_nobody_names(f: Fixture) {
    f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    f.store.task_delete(f.tenant.id, &name("work"), at(2).into()).await.unwrap();
    f.store.component_delete(f.tenant.id, digest(), at(1).into()).await.unwrap();
    f.store.artifact_put(digest(), "x86", b"machine code".to_vec()).await.unwrap();
    sweep(&f, KEEP, 9).await;
    assert_eq!(f.store.component_bytes(digest()).await.unwrap(), b"wasm", "the run still needs it");
    end(&f, &claimed, 10).await;
    sweep(&f, KEEP, 9).await;
    assert!(matches!(f.store.component_bytes(digest()).await, Err(StoreError::NotFound(_))));
    assert_eq!(f.store.artifact_get(digest(), "x86").await, Ok(None));
}
