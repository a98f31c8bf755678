//! What stands between a process and its store: the process may die just before or just after any commit, answers get
//! lost, the store is away or slow. It also writes the record, and has the bugs that are put in on purpose.

use crate::bug::{self, Bug};
use crate::pass_on::{pass_on, pass_on_hosts, pass_on_runs, pass_on_the_rest, pass_on_triggers};
use crate::process::{Condition, Process};
use crate::random::Random;
use crate::record::{Event, Record};
use crate::time::Time;
use crate::two_commits::in_two;
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::{AuditEntry, Change};
use innkeeper_domain::backfill::{Backfill, BackfillPlan};
use innkeeper_domain::bill::Bill;
use innkeeper_domain::component::{Component, Digest};
use innkeeper_domain::forecast::Plan;
use innkeeper_domain::holiday::{Holiday, HolidayCalendar, HolidayCalendarInfo, HolidayDates};
use innkeeper_domain::host::{FleetPause, Host, HostState, HostStatus, Labels};
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TenantId, TokenId};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::QuotaUse;
use innkeeper_domain::run::{Claimed, Lease, LogLine, Run, RunState};
use innkeeper_domain::secret::{SealedSecret, SecretInfo};
use innkeeper_domain::task::{Revision, Task, TaskSpec};
use innkeeper_domain::tenant::{Tenant, TenantUpdate};
use innkeeper_domain::trigger::{SkipRange, SkipReason, Trigger};
use innkeeper_store::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Not at all.
    Away,
    /// Some calls fail, and of some that don't the answer is lost.
    Flaky,
    /// Calls take up to twenty seconds.
    Slow,
}

/// Where a process dies: at the next call of that name, before it or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeathPoint {
    pub call: &'static str,
    pub side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Before,
    After,
}

/// The weather of all processes.
#[derive(Debug)]
pub struct Weather {
    pub mood: Mood,
    pub death: Option<DeathPoint>,
    pub random: Random,
    /// Where processes have died.
    pub died: BTreeMap<DeathPoint, u32>,
}

/// The store of one process.
pub struct Weathered {
    store: Arc<dyn Store>,
    process: Arc<Process>,
    time: Arc<Time>,
    weather: Arc<Mutex<Weather>>,
    record: Arc<Record>,
    bug: Bug,
}

/// What the weather does to one call.
enum Fate {
    Nothing,
    Fails,
    Dies,
}

impl Weathered {
    pub fn new(
        store: Arc<dyn Store>,
        process: Arc<Process>,
        time: Arc<Time>,
        weather: Arc<Mutex<Weather>>,
        record: Arc<Record>,
        bug: Bug,
    ) -> Self {
        Self { store, process, time, weather, record, bug }
    }

    fn inner(&self) -> &dyn Store {
        self.store.as_ref()
    }

    async fn pass<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.meet(call, Side::Before).await?;
        let answer = answer.await;
        self.meet(call, Side::After).await?;
        answer
    }

    async fn meet(&self, call: &'static str, side: Side) -> Result<(), StoreError> {
        let (wait, fate) = self.weather().fate(call, side);
        if let Fate::Dies = fate {
            self.process.set(Condition::Dead);
        }
        self.process.gate().await;
        if !wait.is_zero() {
            self.time.sleep(wait).await;
            self.process.gate().await;
        }
        match fate {
            Fate::Fails => Err(StoreError::Unavailable("the weather is bad".into())),
            _ => Ok(()),
        }
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit of the store's, on record.
    async fn commit<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
        event: impl FnOnce(&T) -> Event,
    ) -> Result<T, StoreError> {
        let recorded = async {
            let answer = answer.await?;
            self.record.add(event(&answer));
            Ok(answer)
        };
        self.pass(call, recorded).await
    }
}

impl Weather {
    fn fate(&mut self, call: &'static str, side: Side) -> (Duration, Fate) {
        let here = DeathPoint { call, side };
        if self.death == Some(here) {
            self.death = None;
            *self.died.entry(here).or_default() += 1;
            return (Duration::ZERO, Fate::Dies);
        }
        match self.mood {
            Mood::Well if side == Side::Before && self.random.chance(50) => {
                (Duration::from_micros(self.random.below(3_000)), Fate::Nothing)
            }
            Mood::Well => (Duration::ZERO, Fate::Nothing),
            Mood::Away => (Duration::from_millis(self.random.below(2_000)), Fate::Fails),
            Mood::Flaky if self.random.chance(15) => {
                (Duration::from_millis(self.random.below(100)), Fate::Fails)
            }
            Mood::Flaky => (Duration::ZERO, Fate::Nothing),
            Mood::Slow => (Duration::from_millis(self.random.below(10_000)), Fate::Nothing),
        }
    }
}

impl Store for Weathered {
    fn hints(&self) -> &Arc<Hints> {
        self.inner().hints()
    }
}

pass_on_the_rest!(Weathered);

pass_on_hosts!(Weathered, {
    async fn host_start(
        &self,
        host: Host,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let id = host.id;
        let start = self.inner().host_start(host, lease_until, now);
        self.commit("host_start", start, |_| Event::HostStarted(id)).await
    }

    async fn hosts_reap(&self, by: HostId, now: Timestamp) -> Result<u64, StoreError> {
        self.pass("hosts_reap", self.inner().hosts_reap(by, now)).await
    }

    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError> {
        let stop = self.inner().host_stop(host, now);
        self.commit("host_stop", stop, |_| Event::HostStopped(host)).await
    }

    async fn host_release(&self, host: HostId, keep: Vec<Lease>, now: Timestamp) -> Result<u64, StoreError> {
        self.pass("host_release", self.inner().host_release(host, keep, now)).await
    }
});

pass_on_triggers!(Weathered, {
    async fn trigger_resume(
        &self,
        tenant: TenantId,
        name: &Name,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        let resume = async {
            let before = self.inner().trigger_get(tenant, name).await?;
            let after = self.inner().trigger_resume(tenant, name, change).await?;
            if self.bug == Bug::DoubleResume {
                bug::resume_again(self.inner(), &before, &after).await?;
            }
            Ok(after)
        };
        self.commit("trigger_resume", resume, |trigger: &Trigger| Event::Resumed(trigger.id)).await
    }

    async fn triggers_advance(&self, mut advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError> {
        match self.bug {
            Bug::CatchUpOffByOne => advances.iter_mut().for_each(bug::lose_one),
            Bug::AdvanceBeforeInsert => {
                let (first, then) = in_two(advances);
                let event = Event::Advanced { by_clock: now, advances: first.clone() };
                self.commit("triggers_advance", self.inner().triggers_advance(first, now), |_| event).await?;
                advances = then;
            }
            _ => {}
        }
        let event = Event::Advanced { by_clock: now, advances: advances.clone() };
        self.commit("triggers_advance", self.inner().triggers_advance(advances, now), |_| event).await
    }
});

pass_on_runs!(Weathered, {
    async fn run_get(&self, tenant: TenantId, id: RunId) -> Result<Run, StoreError> {
        self.pass("run_get", self.inner().run_get(tenant, id)).await
    }

    async fn runs_start(
        &self,
        tenant: TenantId,
        starts: Vec<NewRun>,
        change: Change,
    ) -> Result<Vec<Result<Started, StartError>>, StoreError> {
        self.pass("runs_start", self.inner().runs_start(tenant, starts, change)).await
    }

    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        let leases = |claimed: &Vec<Claimed>| Event::Claimed(claimed.iter().map(|run| run.lease).collect());
        self.commit("runs_claim", self.inner().runs_claim(host, labels, limit, now), leases).await
    }

    async fn run_finish_if_leased(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError> {
        let lease = finish.lease;
        let finishing = async {
            match self.inner().run_finish_if_leased(finish.clone(), now).await {
                Err(StoreError::LeaseLost) if self.bug == Bug::NoFence => {
                    bug::finish_under_any_lease(self.inner(), &self.record, finish, now).await
                }
                answer => answer,
            }
        };
        self.commit("run_finish_if_leased", finishing, |state| Event::Finished(lease, *state)).await
    }
});
