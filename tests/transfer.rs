//! Whole stores, taken elsewhere: backups, restores and moves, from each kind of store to each.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "transfer/format.rs"]
mod format;
#[path = "differential/generate.rs"]
mod generate;
#[allow(dead_code, reason = "a part of it is about two stores at once")]
#[path = "differential/observe.rs"]
mod observe;
#[path = "differential/operation.rs"]
mod operation;
#[path = "support/random.rs"]
mod random;
#[path = "transfer/refused.rs"]
mod refused;
#[allow(dead_code, reason = "a part of it is about two stores at once")]
#[path = "differential/side.rs"]
mod side;

use format::tables;
use generate::Generator;
use innkeeper_domain::Timestamp;
use innkeeper_domain::backfill::{Again, BackfillSpec};
use innkeeper_domain::calendar::{BundledZones, Schedule};
use innkeeper_domain::component::{Component, Shape};
use innkeeper_domain::failure::{AttemptEnd, Outcome, Usage};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::host::{Host, HostState, Labels};
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::limits::{OUTPUT_BYTES_MAX, OUTPUT_PIECE_BYTES};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::run::RunState;
use innkeeper_domain::secret::SealedSecret;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::tenant::{TenantState, TenantUpdate};
use innkeeper_domain::time::{after, before};
use innkeeper_domain::trigger::TriggerSpec;
use innkeeper_store::postgres::PostgresStore;
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::transfer::{self, Place, Seen, Summary, TABLES};
use innkeeper_store::{
    Finish, NewBackfill, NewRun, NewTask, NewTrigger, Page, RunFilter, StartOptions, Store, StoreError,
};
use observe::difference;
use side::{Side, another_host, digest, name};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Operations that a store is filled with, and as many that its copy must answer like it.
const STEPS: usize = 300;
const ALL: Page = Page { size: 100_000, after: None };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn unseen() -> Seen {
    Box::new(|_| ())
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sqlite,
    Postgres,
}

/// A place without a store, and what must live as long as it.
struct Somewhere {
    place: Place,
    _folder: Option<TempDir>,
}

impl Somewhere {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                Self { place: Place::Folder(folder.path().into()), _folder: Some(folder) }
            }
            Kind::Postgres => Self { place: cluster::database().parse().unwrap(), _folder: None },
        }
    }

    async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match &self.place {
            Place::Folder(folder) => Arc::new(SqliteStore::open(folder)?),
            Place::Database(url) => Arc::new(PostgresStore::open(url).await?),
        })
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }

    async fn backup(&self) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let summary = transfer::backup(&self.place, at(0), file.reopen().unwrap(), unseen()).await.unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let seal = summary.seal.unwrap();
        assert_eq!(
            (seal.bytes, seal.sha256),
            (bytes.len() as u64, digest(&bytes).0),
            "it tells what it wrote"
        );
        bytes
    }

    async fn restore(&self, backup: &[u8]) -> Result<Summary, StoreError> {
        transfer::restore(Cursor::new(backup.to_vec()), &self.place, unseen()).await
    }
}

/// A store that random operations have filled. The generator can go on.
async fn filled(seed: u64, somewhere: &Somewhere) -> (Side, Generator) {
    let side = Side::new(somewhere.open().await).await;
    // Random operations seldom get as far as a host that is cordoned and then lost, or half an upload.
    let gone = host("gone", at(1));
    side.store.host_start(gone, at(2), at(1)).await.unwrap();
    side.store.host_set_state(&name("gone"), HostState::Cordoned, at(1).into()).await.unwrap();
    assert_eq!(side.store.hosts_reap(another_host(), at(3)).await, Ok(0));
    let mut generator = Generator::new(seed);
    for _ in 0..STEPS {
        let answer = side.apply(&generator.step()).await;
        generator.learn(answer.learned);
    }
    fill_seldom_filled(&side).await;
    let (tenant, upload) = (side.tenants[0], digest(b"an upload"));
    side.store.upload_begin(tenant, upload, 9, at(5_000_000_000)).await.unwrap();
    side.store.upload_append(tenant, upload, 0, b"an up".into(), at(5_000_000_000)).await.unwrap();
    (side, generator)
}

/// An attempt begins on a host that is gone soon, so that there is a begin that is counted.
async fn begin_one(side: &Side, now: Timestamp) {
    let labels: Labels = "gpu=a100,zone=eu".parse().unwrap();
    let host = Host {
        id: HostId::new(now),
        name: name("passing"),
        address: String::new(),
        version: String::new(),
        roles: Vec::new(),
        labels: labels.clone(),
        capacity: 1,
    };
    side.store.fleet_unpause(now.into()).await.unwrap();
    side.store.host_start(host.clone(), after(now, Duration::from_secs(60)), now).await.unwrap();
    side.store.runs_claim(host.id, &labels, 1, now).await.unwrap();
    side.store.fleet_pause("moving".into(), now.into()).await.unwrap();
}

/// A secret, holidays, a start that is counted because there is a quota of them, a backfill.
async fn fill_seldom_filled(side: &Side) {
    let now = at(5_000_000_000);
    let starts = TenantUpdate {
        pause: None,
        state: Some((TenantState::Active, String::new())),
        weight: None,
        quotas: [
            (Quota::StartsPerSecond, Some(1_000)),
            (Quota::BeginsPerSecond, Some(1_000)),
            (Quota::ConcurrentRuns, None),
            (Quota::CpuPerDay, None),
            (Quota::StoredBytes, None),
            (Quota::Triggers, None),
            (Quota::LeastInterval, None),
        ]
        .into(),
    };
    side.store.tenant_update(&name("default"), starts, now.into()).await.unwrap();
    let (tenant, sealed) = (side.tenants[0], b"sealed".to_vec());
    let (key_id, created_at, updated_at) = ("key".to_string(), now, now);
    let secret = SealedSecret { tenant, name: name("kept"), key_id, sealed, created_at, updated_at };
    side.store.secret_put(secret, now.into()).await.unwrap();
    let holidays = innkeeper_domain::holiday::read(b"2026-12-25 Christmas").unwrap();
    side.store.holidays_put(tenant, &name("kept"), holidays, now.into()).await.unwrap();
    let tasks = side.store.task_list(tenant, None, ALL).await.unwrap().items;
    if let Some(task) = tasks.first() {
        let id = RunId::new(now);
        let start = NewRun {
            id,
            task: task.name.clone(),
            input: Payload::json("1"),
            idempotency_key: None,
            options: StartOptions::default(),
        };
        side.store.runs_start(tenant, vec![start], now.into()).await.unwrap();
        begin_one(side, now).await;
        fill_backfills(side, task.name.clone(), now).await;
    }
}

/// A trigger of the task, and a backfill of it.
async fn fill_backfills(side: &Side, task: Name, now: Timestamp) {
    let (hour, tenant) = (Duration::from_secs(3_600), side.tenants[0]);
    let spec = TriggerSpec::new(Schedule::Interval { every: hour, anchor: now });
    let (id, trigger, input) = (TriggerId::new(now), name("kept"), Payload::json("1"));
    let first = spec.check(id, &input, &BundledZones, now).unwrap();
    let (from, to) = (before(now, 5 * hour), before(now, hour));
    let backfill = BackfillSpec { from, to, concurrency: 1, again: Again::None };
    let times = backfill.times(id, &spec, Holidays::NONE, &BundledZones, now).unwrap();
    let new = NewTrigger { id, task, name: Some(trigger.clone()), spec, input, first };
    side.store.trigger_create(tenant, new, now.into()).await.unwrap();
    let new = NewBackfill { id: BackfillId::new(now), trigger, trigger_id: id, spec: backfill, times };
    side.store.backfill_create(tenant, new, now.into()).await.unwrap();
}

/// A copy has the same rows, shows the same, and goes on the same.
async fn copies(from: Kind, to: Kind) {
    let mut seed = random::first_seed();
    let mut filled_tables = BTreeSet::new();
    // Seldom does one seed fill every table; the time of this test has an end all the same.
    for _ in 0..40 {
        println!("INN_SEED={seed}");
        let (original, copy) = (Somewhere::new(from), Somewhere::new(to));
        let (left, mut generator) = filled(seed, &original).await;
        let backup = original.backup().await;
        let summary = copy.restore(&backup).await.unwrap();
        let rows = tables(&backup);
        assert_eq!(
            summary.rows.iter().map(|(table, count)| (table.as_str(), *count as usize)).collect::<Vec<_>>(),
            TABLES.map(|table| (table, rows[table].1.len())),
            "every table is in it, in order"
        );
        for (table, (columns, rows_of)) in tables(&copy.backup().await) {
            assert_eq!((&columns, &rows_of), (&rows[&table].0, &rows[&table].1), "{table}");
        }
        // Opened again, it remembers no more than the copy: not what has been deleted, say.
        drop(left);
        let (left, right) = (Side::new(original.open().await).await, Side::new(copy.open().await).await);
        let look = generator.step();
        let listings = (left.listing(look.clone()).await, right.listing(look).await);
        assert_eq!(difference(&listings.0, &listings.1), None, "what can be read");
        for _ in 0..STEPS {
            let step = generator.step();
            let answers = (left.apply(&step).await, right.apply(&step).await);
            assert_eq!(difference(&answers.0.text, &answers.1.text), None, "{step:?}");
            generator.learn(answers.0.learned);
        }
        filled_tables
            .extend(rows.into_iter().filter(|(_, (_, rows))| !rows.is_empty()).map(|(table, _)| table));
        if filled_tables.len() == TABLES.len() {
            return;
        }
        seed = seed.wrapping_add(1);
    }
    panic!("tables that no seed fills have no test: only {filled_tables:?} had rows");
}

#[tokio::test]
async fn from_sqlite_to_sqlite() {
    copies(Kind::Sqlite, Kind::Sqlite).await;
}

#[tokio::test]
async fn from_sqlite_to_postgres() {
    copies(Kind::Sqlite, Kind::Postgres).await;
}

#[tokio::test]
async fn from_postgres_to_sqlite() {
    copies(Kind::Postgres, Kind::Sqlite).await;
}

#[tokio::test]
async fn from_postgres_to_postgres() {
    copies(Kind::Postgres, Kind::Postgres).await;
}

/// A host that plays no part.
fn host(of: &str, at: Timestamp) -> Host {
    let (address, version) = (String::new(), String::new());
    let (roles, labels) = (Vec::new(), Labels::default());
    Host { id: HostId::new(at), name: name(of), address, version, roles, labels, capacity: 8 }
}

/// A tenant with a task `work` of a large component, and many runs of it, some of them being executed by a
/// host that lives until second 1000.
async fn busy(store: &dyn Store) -> Vec<RunId> {
    let tenant = store.tenant_ensure(&name("default"), at(1)).await.unwrap().id;
    let bytes = vec![7; 5 << 20];
    let component = Component {
        digest: digest(&bytes),
        size: bytes.len() as u64,
        shape: Shape::Handler,
        adapted: true,
        imports: vec![],
        created_at: at(1),
    };
    let spec = TaskSpec::new(component.digest);
    store.component_put(tenant, component, bytes, at(1).into()).await.unwrap();
    let task = NewTask { id: TaskId::new(at(1)), name: name("work"), spec };
    store.task_create(tenant, task, at(1).into()).await.unwrap();
    let input = Payload { content_type: "application/octet-stream".into(), bytes: vec![0; 400] };
    let large = Payload { bytes: vec![0xff; 1 << 20], ..input.clone() };
    let mut starts: Vec<_> = (0..2_500)
        .map(|number| NewRun {
            id: RunId::new(at(2)),
            task: name("work"),
            input: if number % 1_000 == 0 { large.clone() } else { input.clone() },
            idempotency_key: Some(format!("key {number}")),
            options: StartOptions::default(),
        })
        .collect();
    let ids = starts.iter().map(|start| start.id).collect();
    while !starts.is_empty() {
        let rest = starts.split_off(starts.len().min(500));
        store.runs_start(tenant, std::mem::replace(&mut starts, rest), at(2).into()).await.unwrap();
    }
    let host = host("one", at(3));
    store.host_start(host.clone(), at(1_000), at(3)).await.unwrap();
    assert_eq!(store.runs_claim(host.id, &Labels::default(), 8, at(3)).await.unwrap().len(), 8);
    ids
}

/// However a store keeps them.
#[tokio::test]
async fn large_outputs_are_taken_along_whole() {
    let sizes = [0, 1, OUTPUT_PIECE_BYTES, OUTPUT_PIECE_BYTES + 1, 300_000, OUTPUT_BYTES_MAX];
    let payload = |bytes: usize| Payload {
        content_type: "application/octet-stream".into(),
        bytes: (0..bytes).map(|at| (at % 251) as u8).collect(),
    };
    for (from, to) in [(Kind::Sqlite, Kind::Sqlite), (Kind::Sqlite, Kind::Postgres)] {
        let (original, copy) = (Somewhere::new(from), Somewhere::new(to));
        let store = original.open().await;
        busy(store.as_ref()).await;
        let host = host("two", at(4));
        store.host_start(host.clone(), at(1_000), at(4)).await.unwrap();
        let claimed = store.runs_claim(host.id, &Labels::default(), sizes.len(), at(4)).await.unwrap();
        assert_eq!(claimed.len(), sizes.len());
        for (run, bytes) in claimed.iter().zip(sizes) {
            let end = AttemptEnd { outcome: Outcome::Output(payload(bytes)), usage: Usage::default() };
            let finish = Finish { lease: run.lease, end, again_at: None, lines: Vec::new() };
            store.run_finish_if_leased(finish, at(5)).await.unwrap();
        }
        copy.restore(&original.backup().await).await.unwrap();
        let restored = copy.open().await;
        for (run, bytes) in claimed.iter().zip(sizes) {
            let output = restored.run_get(run.tenant_id, run.lease.run).await.unwrap().output;
            assert!(output == Some(payload(bytes)), "{bytes} bytes, {from:?} to {to:?}");
        }
        let again = tables(&copy.backup().await);
        assert!(tables(&original.backup().await) == again, "{from:?} to {to:?}");
    }
}

/// Who restores a backup that was made while a host executed runs has them executed again.
#[tokio::test]
async fn what_was_executing_is_taken_up_again() {
    for (from, to) in [(Kind::Sqlite, Kind::Postgres), (Kind::Postgres, Kind::Sqlite)] {
        let (original, copy) = (Somewhere::new(from), Somewhere::new(to));
        // It is open all the time.
        let store = original.open().await;
        let ids = busy(store.as_ref()).await;
        let mut seen = Vec::new();
        let file = tempfile::NamedTempFile::new().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let tell: Seen = Box::new(move |rows| tell.send(rows).unwrap());
        transfer::backup(&original.place, at(4), file.reopen().unwrap(), tell).await.unwrap();
        seen.extend(told.iter());
        assert!(seen.len() > 5 && seen.is_sorted() && *seen.last().unwrap() > 2_500, "{seen:?}");
        transfer::restore(File::open(file.path()).unwrap(), &copy.place, unseen()).await.unwrap();

        let store = copy.open().await;
        let host = Host { id: HostId::new(at(2_000)), ..store.host_list().await.unwrap().remove(0).host };
        let lost = store.host_start(host.clone(), at(3_000), at(2_000)).await.unwrap();
        let reaped = store.hosts_reap(another_host(), at(2_000)).await.unwrap();
        assert_eq!(lost + reaped, 8, "of {lost} and {reaped}");
        let tenant = store.tenant_get(&name("default")).await.unwrap().id;
        let mut claimed = 0;
        loop {
            match store.runs_claim(host.id, &Labels::default(), 500, at(2_000)).await.unwrap().len() {
                0 => break,
                more => claimed += more,
            }
        }
        assert_eq!(claimed, ids.len());
        // The keys still name their runs, and that takes the same input.
        let input = store.run_get(tenant, ids[1_234]).await.unwrap().input;
        let idempotency_key = Some("key 1234".into());
        let again = NewRun {
            id: RunId::new(at(5)),
            task: name("work"),
            input,
            idempotency_key,
            options: StartOptions::default(),
        };
        let again = store.runs_start(tenant, vec![again], at(2_000).into()).await.unwrap().remove(0).unwrap();
        assert_eq!((again.id, again.existed), (ids[1_234], true));
        let running = RunFilter { states: vec![RunState::Running], ..RunFilter::default() };
        assert_eq!(store.run_list(tenant, running, ALL).await.unwrap().items.len(), ids.len());
        assert_eq!(store.component_bytes(digest(&vec![7; 5 << 20])).await.unwrap().len(), 5 << 20);
    }
}

/// The ids that a database gives by itself go on after those that came from elsewhere.
#[tokio::test]
async fn skips_go_on_after_a_move() {
    use innkeeper_domain::calendar::{Covered, Schedule};
    use innkeeper_domain::firing::Firing;
    use innkeeper_domain::timetable::{Reckoning, Upcoming};
    use innkeeper_domain::trigger::{SkipRange, SkipReason, TriggerSpec};
    use innkeeper_store::{Advance, NewTrigger};
    let (original, copy) = (Somewhere::new(Kind::Sqlite), Somewhere::new(Kind::Postgres));
    let store = original.open().await;
    busy(store.as_ref()).await;
    let tenant = store.tenant_get(&name("default")).await.unwrap().id;
    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let (id, spec, input) = (TriggerId::new(at(2)), TriggerSpec::new(schedule), Payload::json("{}"));
    let first = Some(Reckoning::plain(at(10), at(2)));
    let new = NewTrigger { id, task: name("work"), name: Some(name("tick")), spec, input, first };
    store.trigger_create(tenant, new, at(2).into()).await.unwrap();
    let skip = async |store: &dyn Store, due: i64, reason| {
        let skips = vec![SkipRange { from: at(due), to: at(due), count: 1, reason }];
        let next = Some(Upcoming::punctual(at(due + 10)));
        let firing = Firing { runs: vec![], skips, next, covered: Some(Covered { at: at(due), offset: 0 }) };
        let advance = Advance { id, due: at(due), firing, run_ids: vec![], edition: String::new() };
        store.triggers_advance(vec![advance], at(due)).await.unwrap();
    };
    skip(store.as_ref(), 10, SkipReason::Missed).await;
    skip(store.as_ref(), 20, SkipReason::Paused).await;
    drop(store);
    transfer::move_store(&original.place, &copy.place, at(100), unseen()).await.unwrap();
    let store = copy.open().await;
    skip(store.as_ref(), 30, SkipReason::Missed).await;
    let skips = store.trigger_skips(tenant, &name("tick"), ALL).await.unwrap().items;
    assert_eq!(skips.iter().map(|skip| skip.from).collect::<Vec<_>>(), [at(30), at(20), at(10)]);
}

/// Whoever opens the old store by mistake is told, and how to undo it.
#[tokio::test]
async fn what_was_moved_is_marked() {
    for (from, to, undo) in
        [(Kind::Sqlite, Kind::Postgres, "/moved"), (Kind::Postgres, Kind::Sqlite, "DROP TABLE moved")]
    {
        let (original, copy) = (Somewhere::new(from), Somewhere::new(to));
        let nothing = transfer::move_store(&original.place, &copy.place, at(100), unseen()).await;
        assert!(matches!(nothing, Err(StoreError::NotFound(_))), "{nothing:?}");
        let store = original.open().await;
        busy(store.as_ref()).await;
        // A host has it, or has had it and its lease isn't over.
        if let Kind::Postgres = from {
            let now = Timestamp::from_second(4_000_000_000).unwrap();
            let host = Host { id: HostId::new(now), ..store.host_list().await.unwrap().remove(0).host };
            store.host_start(host.clone(), after(now, Duration::from_secs(9)), now).await.unwrap();
            let used = transfer::move_store(&original.place, &copy.place, at(100), unseen()).await;
            assert!(used.unwrap_err().to_string().contains("host `one`"));
            store.host_stop(host.id, now).await.unwrap();
        } else {
            let used = transfer::move_store(&original.place, &copy.place, at(100), unseen()).await;
            assert!(used.unwrap_err().to_string().contains("another process"));
        }
        drop(store);
        // A move that fails leaves no mark.
        let taken = Somewhere::new(to);
        drop(filled(1, &taken).await);
        let refused = transfer::move_store(&original.place, &taken.place, at(100), unseen()).await;
        assert!(refused.unwrap_err().to_string().contains("already"));
        drop(original.open().await);

        transfer::move_store(&original.place, &copy.place, at(100), unseen()).await.unwrap();
        let words = original.try_open().await.err().unwrap().to_string();
        assert!(words.contains(undo) && words.contains(&copy.place.to_string()), "{words}");
        assert!(words.contains("1970-01-01T00:01:40Z"), "{words}");
        let again = transfer::move_store(&original.place, &copy.place, at(100), unseen()).await;
        assert!(again.unwrap_err().to_string().contains("was moved"));
        // A backup of it can still be made.
        assert_eq!(tables(&original.backup().await), tables(&copy.backup().await));
        match &original.place {
            Place::Folder(folder) => std::fs::remove_file(folder.join("moved")).unwrap(),
            Place::Database(url) => refused::sql(url.text(), "DROP TABLE moved").await,
        }
        original.open().await;
    }
}
