//! What stands between a process and its store: the process may die just before or just after any commit, answers get
//! lost, the store is away or slow. It also writes the record, and has the bugs that are put in on purpose.

use crate::bug::{self, Bug};
use crate::observer::Observer;
use crate::pass_on::{
    pass_on, pass_on_events, pass_on_hosts, pass_on_runs, pass_on_tasks, pass_on_the_rest, pass_on_triggers,
};
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
use innkeeper_domain::trigger::{OverlapPolicy, SkipRange, SkipReason, Trigger};
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
    observer: Arc<Observer>,
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
        (record, observer): (Arc<Record>, Arc<Observer>),
        bug: Bug,
    ) -> Self {
        Self { store, process, time, weather, record, observer, bug }
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
        if answer.is_ok() {
            self.observer.after(call, self.inner()).await;
        }
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

    /// What says of how many runs it has changed something: if of any, that goes on record.
    async fn changes_runs(
        &self,
        answer: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<u64, StoreError> {
        let changed = answer.await?;
        if changed > 0 {
            self.observer.look_at_all(self.inner()).await;
        }
        Ok(changed)
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

pass_on_tasks!(Weathered, {
    async fn task_create(&self, tenant: TenantId, task: NewTask, change: Change) -> Result<Task, StoreError> {
        self.pass("task_create", self.inner().task_create(tenant, task, change)).await
    }
});

pass_on_events!(Weathered, {
    async fn events_deliver(&self, deliver: Deliver, now: Timestamp) -> Result<u32, StoreError> {
        let runs = deliver.run_ids.clone();
        let delivering = async {
            let created = bug::deliver(self.bug, self.inner(), deliver, now).await?;
            self.record.add(Event::Delivered(runs.clone()));
            self.observer.look_at(self.inner(), runs).await;
            Ok(created)
        };
        self.pass("events_deliver", delivering).await
    }
});

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
        let reap = self.changes_runs(self.inner().hosts_reap(by, now));
        self.pass("hosts_reap", reap).await
    }

    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError> {
        let stop = self.inner().host_stop(host, now);
        self.commit("host_stop", stop, |_| Event::HostStopped(host)).await
    }

    async fn host_release(&self, host: HostId, keep: Vec<Lease>, now: Timestamp) -> Result<u64, StoreError> {
        let release = self.changes_runs(self.inner().host_release(host, keep, now));
        self.pass("host_release", release).await
    }
});

pass_on_triggers!(Weathered, {
    async fn trigger_create(
        &self,
        tenant: TenantId,
        mut trigger: NewTrigger,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        if self.bug == Bug::OverlapForgotten {
            trigger.spec.overlap = OverlapPolicy::AllowAll;
        }
        self.pass("trigger_create", self.inner().trigger_create(tenant, trigger, change)).await
    }

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
                self.pass("triggers_advance", self.advance(first, now)).await?;
                advances = then;
            }
            _ => {}
        }
        self.pass("triggers_advance", self.advance(advances, now)).await
    }
});

impl Weathered {
    async fn advance(&self, advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError> {
        let created = self.inner().triggers_advance(advances.clone(), now).await?;
        let runs = advances.iter().flat_map(|advance| advance.run_ids.clone()).collect();
        self.record.add(Event::Advanced { by_clock: now, advances });
        self.observer.look_at(self.inner(), runs).await;
        Ok(created)
    }
}

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
        let starting = async {
            let started = self.inner().runs_start(tenant, starts, change).await?;
            let runs = started.iter().flatten().map(|started| started.id).collect();
            self.observer.look_at(self.inner(), runs).await;
            Ok(started)
        };
        self.pass("runs_start", starting).await
    }

    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        let claiming = async {
            let limits = bug::forget_limits(self.bug, self.inner(), self.observer.tenant, now).await?;
            let claimed = self.inner().runs_claim(host, labels, limit, now).await;
            bug::restore_limits(limits, self.inner(), self.observer.tenant, now).await?;
            let claimed = claimed?;
            if !claimed.is_empty() {
                let leases = claimed.iter().map(|run| run.lease).collect();
                self.record.add(Event::Claimed { by_clock: now, leases });
            }
            Ok(claimed)
        };
        self.pass("runs_claim", claiming).await
    }

    async fn runs_expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        if self.bug == Bug::NothingExpires {
            return Ok(0);
        }
        let expire = self.changes_runs(self.inner().runs_expire(now, limit));
        self.pass("runs_expire", expire).await
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
        let finishing = async {
            let state = finishing.await?;
            self.record.add(Event::Finished(lease, state));
            // When it is tried again, if it is.
            self.observer.look_at(self.inner(), vec![lease.run]).await;
            if self.bug == Bug::SlotLost {
                bug::lose_slot(self.inner(), self.observer.tenant, now).await?;
            }
            Ok(state)
        };
        self.pass("run_finish_if_leased", finishing).await
    }
});
