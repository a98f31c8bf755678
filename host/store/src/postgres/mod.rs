//! The store of a fleet: PostgreSQL, which any number of hosts share.
//!
//! Every call is one transaction, at the level READ COMMITTED. Rows that several hosts change are locked first, always in
//! this order: hosts, runs, tasks, triggers, backfills, each kind by its ids; what is started or triggered locks tasks,
//! triggers and backfills, then the rates of tenants, then the heads of their events, and then only inserts. Tenants are locked after hosts and before all
//! else, but who holds a host never waits for a tenant: claims pass it by. What is counted of a tenant is under locks of
//! its own (`quota`), stored bytes under its rate. Gates are under the lock of their task: whoever changes a gate has it;
//! what lets runs pass has it too, and passes by the runs that others have locked. Sums of what tenants use are the last to
//! be changed, bills first. A delete, the cancelling of a backfill, and a pause that cancels lock their task or trigger
//! before the runs that they cancel. A retry by hand locks its runs and whatever counts them, and then goes on as a start.
//! The fleet's pause comes before hosts. Should two
//! transactions get in each other's way, PostgreSQL ends one of them, and it is run again.
//!
//! Starts and ends of attempts that come at the same time share one transaction. What one host changes wakes
//! the others (`wake`); whoever isn't woken polls. The database's clock is every host's (`time`).

mod audit;
mod backfill;
mod backfill_advance;
mod batch;
mod cancel;
mod claim;
mod component;
mod connection;
mod event;
mod event_deliver;
mod expire;
mod finish;
mod fleet_pause;
mod gate;
mod gate_grant;
mod holiday;
mod host;
mod migrate;
pub(crate) mod moved;
mod quota;
mod retention;
mod retention_tenant;
mod retry;
mod row;
mod run;
mod secret;
mod start;
mod task;
mod tenant;
mod time;
mod token;
pub(crate) mod transfer;
mod trigger;
mod trigger_advance;
mod trigger_fire;
mod trigger_retime;
mod upload;
mod usage;
mod wake;

pub use connection::{DatabaseUrl, DatabaseUrlError};

use crate::unreadable::Unreadable;
use crate::{Finish, Hints, StartError, Started, Store, StoreError};
use batch::Batches;
use deadpool_postgres::Pool;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::limits::{
    DATABASE_CONNECTIONS, DATABASE_CONNECTIONS_VITAL, FINISHES_PER_COMMIT_MAX, STARTS_PER_COMMIT_MAX,
};
use innkeeper_domain::run::RunState;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time::Now;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Revisions whose specs are kept in memory.
const SPECS_CACHED_MAX: usize = 10_000;

/// How often the database's clock is read.
const READ_CLOCK: Duration = Duration::from_secs(10);

/// How long a host waits for its database when it starts.
const PATIENCE: Duration = Duration::from_secs(30);

type Starts = (TenantId, Vec<crate::NewRun>, Change);

/// The store of a fleet. Dropping it ends its connections.
#[derive(Debug)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    starts: Batches<Starts, Vec<Result<Started, StartError>>>,
    finishes: Batches<(Finish, Timestamp), RunState>,
    stop: CancellationToken,
}

/// What calls and background work have in common.
#[derive(Debug)]
struct Shared {
    pool: Pool,
    /// For signs of life.
    vital: Pool,
    hints: Arc<Hints>,
    wakes: wake::Wakes,
    time: time::DatabaseTime,
    unreadable: Unreadable,
    /// Whether somebody waits for tasks to let runs pass their gates.
    waits_for_gates: AtomicBool,
    /// Runs that this host has let come to their turn by a rate, and that it has not looked at again.
    rated: Mutex<Vec<(Uuid, RunId)>>,
    /// Revisions never change.
    specs: Mutex<HashMap<(TaskId, u32), Arc<TaskSpec>>>,
    /// What it does in the background.
    tasks: TaskTracker,
    /// Which of [`SHARDS`] it adds to.
    shard: i64,
}

/// How many rows a sum that every host adds to is spread over, so that they seldom wait for each other.
const SHARDS: i64 = 16;

/// Work of a host that goes on at the same time, and adds to rows of its own for that.
#[derive(Debug, Clone, Copy)]
enum Shard {
    Starts,
    Ends,
    Others,
}

impl PostgresStore {
    /// Opens the store in this database, and brings the database to this version's schema; several hosts may
    /// do so at once. A database that doesn't answer is waited for, for a while. `Conflict` if it was
    /// moved elsewhere, or a newer version of Innkeeper has written it.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let pool = url.pool(DATABASE_CONNECTIONS)?;
        let begun = std::time::Instant::now();
        let time = loop {
            match prepare(&pool).await {
                Ok(time) => break time,
                Err(error @ StoreError::Unavailable(_)) if begun.elapsed() <= PATIENCE => {
                    tracing::warn!(%error, "the database can't be used yet; it tries again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
            }
        };
        moved::refuse(&pool).await?;
        if !connection::is_durable(&pool).await? {
            tracing::warn!(
                "the database's fsync is off: what was acknowledged is lost when its machine fails"
            );
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let hints = Arc::new(Hints::default());
        let shared = Arc::new(Shared {
            time,
            tasks: tasks.clone(),
            unreadable: Unreadable::default(),
            waits_for_gates: AtomicBool::new(false),
            rated: Mutex::default(),
            wakes: wake::Wakes::new(Arc::clone(&hints)),
            specs: Mutex::default(),
            hints,
            pool,
            shard: i64::from(uuid::Uuid::now_v7().as_bytes()[15]) % SHARDS,
            vital: url.pool(DATABASE_CONNECTIONS_VITAL)?,
        });
        let (worker, stopped) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move { worker.wakes.send(&worker.pool, &stopped).await });
        let (worker, stopped, url) = (Arc::clone(&shared), stop.clone(), url.clone());
        tasks.spawn(async move { worker.wakes.listen(&url, &stopped).await });
        let (worker, stopped) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move { worker.keep_time(&stopped).await });
        let worker = Arc::clone(&shared);
        let starts = Batches::start(&tasks, STARTS_PER_COMMIT_MAX, move |calls| {
            let worker = Arc::clone(&worker);
            async move { start::start_all(&worker, &calls).await }
        });
        let worker = Arc::clone(&shared);
        let finishes = Batches::start(&tasks, FINISHES_PER_COMMIT_MAX, move |calls| {
            let worker = Arc::clone(&worker);
            async move { finish::finish_all(&worker, &calls).await }
        });
        Ok(Self { shared, starts, finishes, stop })
    }

    /// The database's clock.
    pub fn now(&self) -> Now {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || shared.time.now())
    }
}

async fn prepare(pool: &Pool) -> Result<time::DatabaseTime, StoreError> {
    connection::check_sessions(pool).await?;
    migrate::migrate(pool, migrate::MIGRATIONS.len()).await?;
    time::DatabaseTime::read(pool).await
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// The number of the rows that this work of this host adds to.
    fn shard(&self, of: Shard) -> i64 {
        self.shard + SHARDS * of as i64
    }

    async fn keep_time(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(READ_CLOCK) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.time.refresh(&self.vital).await {
                tracing::warn!(%error, "the database's clock can't be read; this machine's goes on from the last time");
            }
        }
    }
}

impl Store for PostgresStore {
    fn hints(&self) -> &Arc<Hints> {
        &self.shared.hints
    }
}
