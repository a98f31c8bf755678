//! One of the two stores: operations are applied to it, and what it answers is text to be compared.

use crate::operation::{Ending, Operation, Step, TENANTS, TenantPlace};
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::{Role, Token};
use innkeeper_domain::audit::{Actor, AuditEntry, Change};
use innkeeper_domain::backfill::{BackfillSpec, stretch, timetable};
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::event::{Deciders, Delivery, Item, deliver};
use innkeeper_domain::expression::Compiled;
use innkeeper_domain::firing::{Rules, fire};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId, TokenId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, Lease};
use innkeeper_domain::secret::SealedSecret;
use innkeeper_domain::tenant::Tenant;
use innkeeper_domain::timetable::Timetable;
use innkeeper_store::*;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Pages, or steps, that one operation goes through.
const ROUNDS_MAX: usize = 10_000;
/// All that is due is decided about at once: stores may differ in the order of triggers due at one instant.
const DUE_MAX: usize = 1_000;

/// A store under test.
pub struct Side {
    pub store: Arc<dyn Store>,
    /// This store's ids of [`TENANTS`].
    pub tenants: Vec<TenantId>,
    /// It is given all times this much too late: how a test shows that differences are found.
    pub skew: Duration,
}

/// What a store said.
#[derive(Debug, Default)]
pub struct Answer {
    /// All of it, less what stores may choose by themselves.
    pub text: String,
    /// What later operations can be about.
    pub learned: Learned,
}

#[derive(Debug, Default)]
pub struct Learned {
    pub runs: Vec<RunId>,
    pub leases: Vec<Lease>,
    pub advances: Vec<Advance>,
}

/// One that asks, and is none of those that it is asked about.
pub fn another_host() -> HostId {
    HostId(uuid::Uuid::nil())
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

/// The digest of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest(sha2::Sha256::digest(bytes).into())
}

/// An id that comes to be at `at`, the same for the same number.
pub fn uuid_at(at: Timestamp, number: u64) -> uuid::Uuid {
    let first = RunId::first(at).0.as_u128();
    uuid::Uuid::from_u128(first | u128::from(number & 0x3fff_ffff_ffff_ffff))
}

impl Side {
    pub async fn new(store: Arc<dyn Store>) -> Self {
        let mut tenants = Vec::new();
        for tenant in TENANTS {
            let tenant = store.tenant_ensure(&name(tenant), Timestamp::UNIX_EPOCH).await;
            tenants.push(tenant.expect("a tenant").id);
        }
        Self { store, tenants, skew: Duration::ZERO }
    }

    pub async fn apply(&self, step: &Step) -> Answer {
        let now = innkeeper_domain::time::after(step.at, self.skew);
        match &step.operation {
            Operation::Schedule { ids } => self.schedule(now, *ids).await,
            Operation::Backfill { ids, times } => self.backfill(now, *ids, *times).await,
            Operation::Deliver { ids } => self.deliver(now, *ids).await,
            Operation::RunsClaim { host, labels, limit } => {
                let mut claimed = self.store.runs_claim(*host, labels, *limit, now).await;
                // The tenant's id is the store's choice; its name is not.
                claimed.iter_mut().flatten().for_each(|run| run.tenant_id = TenantId(uuid::Uuid::nil()));
                let leases = claimed.iter().flatten().map(|run| run.lease).collect();
                // A tenant's id is its store's own.
                let without = |run| Claimed { tenant_id: TenantId(uuid::Uuid::nil()), ..run };
                let claimed = claimed.map(|runs| runs.into_iter().map(without).collect::<Vec<_>>());
                Answer { text: text(claimed), learned: Learned { leases, ..Learned::default() } }
            }
            Operation::RunsStart { tenant, starts } => {
                let started = self.store.runs_start(self.tenant(*tenant), starts.clone(), change(now)).await;
                let runs = started.iter().flatten().flatten().map(|run| run.id).collect();
                Answer { text: text(started), learned: Learned { runs, ..Learned::default() } }
            }
            operation => Answer { text: self.ask(operation, now).await, learned: Learned::default() },
        }
    }

    fn tenant(&self, place: TenantPlace) -> TenantId {
        self.tenants[place]
    }

    async fn ask(&self, operation: &Operation, now: Timestamp) -> String {
        use Operation as O;
        let (s, of) = (&self.store, |place: &TenantPlace| self.tenant(*place));
        match operation {
            O::BackfillCreate { tenant, id, trigger, from, concurrency, again } => {
                let spec = BackfillSpec { from: *from, to: now, concurrency: *concurrency, again: *again };
                let trigger = match s.trigger_get(of(tenant), trigger).await {
                    Ok(trigger) => trigger,
                    Err(error) => return text(error),
                };
                let times = match spec.times(trigger.id, &trigger.spec, Holidays::NONE, &BundledZones, now) {
                    Ok(times) => times,
                    Err(error) => return text(error),
                };
                let (id, trigger, trigger_id) = (*id, trigger.name, trigger.id);
                let new = NewBackfill { id, trigger, trigger_id, spec, times };
                let plan = s.backfill_plan(of(tenant), new.clone()).await;
                text((plan, s.backfill_create(of(tenant), new, change(now)).await))
            }
            O::EventsPublish { tenant, events } => {
                let mut change = change(now);
                change.now = now;
                text(s.events_publish(of(tenant), events.clone(), change).await)
            }
            O::EventsAfter { tenant, after, limit } => {
                text((s.events_after(of(tenant), *after, *limit).await, s.events_head(of(tenant)).await))
            }
            O::TriggerFire { tenant, trigger, id, occurrence } => {
                let trigger = match s.trigger_get(of(tenant), trigger).await {
                    Ok(trigger) => trigger,
                    Err(error) => return text(error),
                };
                let input = Payload::json("12");
                let firing =
                    NewFiring { run_id: *id, occurrence: (*occurrence).into(), nominal_at: now, input };
                let fired = s.trigger_fire(of(tenant), trigger.id, firing, now).await;
                text((fired, s.trigger_by_id(trigger.id).await.map(|(_, trigger)| trigger)))
            }
            O::BackfillCancel { tenant, id } => text(s.backfill_cancel(of(tenant), *id, change(now)).await),
            O::BackfillList { tenant, trigger, size } => {
                pages(*size, |page| s.backfill_list(of(tenant), trigger.as_ref(), None, page)).await
            }
            O::ComponentPut { tenant, bytes } => {
                text(s.component_put(of(tenant), component(bytes, now), bytes.clone(), change(now)).await)
            }
            O::ComponentGet { tenant, digest } => text(s.component_get(of(tenant), digest).await),
            O::ComponentDelete { tenant, digest } => {
                let deleted = s.component_delete(of(tenant), *digest, change(now)).await;
                // Which of its tasks is named is the store's choice.
                text(deleted.map_err(|error| match error {
                    StoreError::Conflict(words) => StoreError::Conflict(words.split('`').skip(2).collect()),
                    error => error,
                }))
            }
            O::ComponentBytes(digest) => text(s.component_bytes(*digest).await),
            O::ComponentList { tenant, size } => {
                pages(*size, |page| s.component_list(of(tenant), page)).await
            }
            O::UploadBegin { tenant, digest, size } => {
                text(s.upload_begin(of(tenant), *digest, *size, now).await)
            }
            O::UploadAppend { tenant, digest, first, bytes } => {
                text(s.upload_append(of(tenant), *digest, *first, bytes.clone(), now).await)
            }
            O::UploadBytes { tenant, digest } => text(s.upload_bytes(of(tenant), *digest).await),
            O::UploadEnd { tenant, digest } => text(s.upload_end(of(tenant), *digest).await),
            O::HostStart { host, before, lease_until } => {
                let ended = self.end_hosts(*before, now).await;
                text((ended, s.host_start(host.clone(), *lease_until, now).await))
            }
            O::HostRenew { host, lease_until } => text(s.host_renew(*host, *lease_until).await),
            O::HostsReap => text(s.hosts_reap(another_host(), now).await),
            O::HostStop(host) => text(s.host_stop(*host, now).await),
            O::HostOrders(host) => text(s.host_orders(*host).await.map(|mut orders| {
                // In no order.
                orders.cancelled.sort_by_key(|lease| lease.run);
                orders
            })),
            O::HostRelease { host, keep } => text(s.host_release(*host, keep.clone(), now).await),
            O::HostList => text(s.host_list().await),
            O::FleetPause(None) => text((s.fleet_unpause(change(now)).await, s.fleet_paused().await)),
            O::FleetPause(Some(note)) => text(s.fleet_pause(note.clone(), change(now)).await),
            O::HostSetState { name, state } => text(s.host_set_state(name, *state, change(now)).await),
            O::Retain { keep, limit } => text(self.retain(*keep, *limit).await),
            others => self.ask_more(others, now).await,
        }
    }

    async fn ask_more(&self, operation: &Operation, now: Timestamp) -> String {
        use Operation as O;
        let (s, of) = (&self.store, |place: &TenantPlace| self.tenant(*place));
        match operation {
            O::TaskCreate { tenant, task } => {
                text(s.task_create(of(tenant), task.clone(), change(now)).await)
            }
            O::TaskUpdate { tenant, name, spec, expected, growth } => {
                text(s.task_update(of(tenant), name, spec.clone(), *expected, *growth, change(now)).await)
            }
            O::TaskRollback { tenant, name, revision, expected, growth } => {
                text(s.task_rollback(of(tenant), name, *revision, *expected, *growth, change(now)).await)
            }
            O::TaskDelete { tenant, name } => text(s.task_delete(of(tenant), name, change(now)).await),
            O::TaskGet { tenant, name } => text(s.task_get(of(tenant), name).await),
            // What is gone may still be remembered.
            O::TaskSpecOf { task } if !self.needs(*task).await => String::new(),
            O::TaskSpecOf { task } => text(s.task_spec(*task, 1).await),
            O::TaskList { tenant, only, size } => {
                pages(*size, |page| s.task_list(of(tenant), only.clone(), page)).await
            }
            O::TaskRevisions { tenant, name, size } => {
                pages(*size, |page| s.task_revisions(of(tenant), name, page)).await
            }
            O::TriggerCreate { tenant, trigger } => {
                text(s.trigger_create(of(tenant), trigger.clone(), change(now)).await)
            }
            O::TriggerGet { tenant, name } => text(s.trigger_get(of(tenant), name).await),
            O::TriggerPause { tenant, name, note, queued } => {
                text(s.trigger_pause(of(tenant), name, note.clone(), *queued, change(now)).await)
            }
            O::TriggerResume { tenant, name } => text(s.trigger_resume(of(tenant), name, change(now)).await),
            O::TriggerDelete { tenant, name } => text(s.trigger_delete(of(tenant), name, change(now)).await),
            O::TriggerList { tenant, task, only, size } => {
                pages(*size, |page| s.trigger_list(of(tenant), task.as_ref(), only.clone(), page)).await
            }
            O::TriggerPlans { tenant, task, only, size } => {
                pages(*size, |page| s.trigger_plans(of(tenant), task.as_ref(), only.clone(), page)).await
            }
            O::TriggerSkips { tenant, name, size } => {
                pages(*size, |page| s.trigger_skips(of(tenant), name, page)).await
            }
            O::TriggersNext => text(s.triggers_next().await),
            O::Advance(advances) => text(s.triggers_advance(advances.clone(), now).await),
            O::RunGet { tenant, id } => text(s.run_get(of(tenant), *id).await),
            O::RunList { tenant, filter, size } => {
                pages(*size, |page| s.run_list(of(tenant), filter.clone(), page)).await
            }
            O::RunCancel { tenant, id } => text(s.run_cancel(of(tenant), *id, change(now)).await),
            O::RunsCancel { tenant, ids } => text(s.runs_cancel(of(tenant), ids.clone(), change(now)).await),
            O::RunsRetry { tenant, ids, on } => {
                text(s.runs_retry(of(tenant), ids.clone(), *on, change(now)).await)
            }
            O::RunsExpire => text(s.runs_expire(now, 10_000).await),
            O::TaskPause { tenant, name, note, queued } => {
                text(s.task_pause(of(tenant), name, note.clone(), *queued, change(now)).await)
            }
            O::TaskResume { tenant, name } => text(s.task_resume(of(tenant), name, change(now)).await),
            O::RunPause { tenant, id } => text(s.run_pause(of(tenant), *id, change(now)).await),
            O::RunResume { tenant, id } => text(s.run_resume(of(tenant), *id, change(now)).await),
            O::RunLogs { tenant, id, after, limit } => {
                text(s.run_logs(of(tenant), *id, *after, *limit).await)
            }
            O::RunsNextReady(labels) => text(s.runs_next_ready(labels, Timestamp::UNIX_EPOCH).await),
            O::RunsNews(news) => text(s.runs_news(news.clone()).await),
            O::RunFinish(finish) => text(s.run_finish_if_leased(finish.clone(), now).await),
            of_tenants => self.ask_tenants(of_tenants, now).await,
        }
    }

    /// Without ids of tenants and lines of the audit log, which are each store's own.
    async fn ask_tenants(&self, operation: &Operation, now: Timestamp) -> String {
        use Operation as O;
        let (s, of) = (&self.store, |place: &TenantPlace| self.tenant(*place));
        match operation {
            O::TenantGet(tenant) => text(s.tenant_get(&name(tenant)).await.map(anonymous)),
            O::TenantCreate(tenant) => {
                text(s.tenant_create(tenant.clone(), change(now)).await.map(anonymous))
            }
            O::TenantUpdate { name: of, update } => {
                text(s.tenant_update(&name(of), update.clone(), change(now)).await.map(anonymous))
            }
            O::TenantDelete(of) => text(s.tenant_delete(&name(of), change(now)).await),
            O::TenantList { size } => {
                pages(*size, |page| async { Ok(mapped(s.tenant_list(page).await?, anonymous)) }).await
            }
            O::TokenEnsure(hash) => text(s.token_ensure(*hash, now).await),
            O::TokenFind(hash) => text(s.token_find(*hash).await.map(|found| found.map(shown))),
            O::TokenCreate { tenant, token, hash } => {
                let tenant = (token.role != Role::Admin).then(|| of(tenant));
                let created = s.token_create(Token { tenant, ..token.clone() }, *hash, change(now)).await;
                text(created.map(|token| Token { tenant: None, ..token }))
            }
            O::TokenRevoke { tenant, id } => {
                let revoked = s.token_revoke(tenant.as_ref().map(of), *id, change(now)).await;
                text(revoked.map(|token| Token { tenant: None, ..token }))
            }
            O::TokenList { tenant, size } => {
                let tenant = tenant.as_ref().map(of);
                // The ids of those that hosts have are each store's own, and so is the order of these.
                let listed = |page| async { Ok(mapped(s.token_list(tenant, page).await?, shown)) };
                in_order(*size, listed).await
            }
            O::SecretPut { tenant, name, key_id, sealed } => {
                let secret = SealedSecret {
                    tenant: of(tenant),
                    name: name.clone(),
                    key_id: key_id.to_string(),
                    sealed: sealed.clone(),
                    created_at: now,
                    updated_at: now,
                };
                text(s.secret_put(secret, change(now)).await)
            }
            O::SecretsGet { tenant, names } => {
                let found = s.secrets_get(of(tenant), names.clone()).await;
                text(found.map(|found| found.into_iter().map(contents).collect::<Vec<_>>()))
            }
            O::SecretDelete { tenant, name } => text(s.secret_delete(of(tenant), name, change(now)).await),
            O::HolidaysPut { tenant, name, holidays } => {
                text(s.holidays_put(of(tenant), name, holidays.clone(), change(now)).await)
            }
            O::HolidaysGet { tenant, name } => text(s.holidays_get(of(tenant), name).await),
            O::HolidaysDelete { tenant, name } => {
                text(s.holidays_delete(of(tenant), name, change(now)).await)
            }
            O::HolidaysList { tenant, size } => pages(*size, |page| s.holidays_list(of(tenant), page)).await,
            O::HolidaysDates { tenant, names } => text(s.holidays_dates(of(tenant), names.clone()).await),
            O::SecretList { tenant, size } => pages(*size, |page| s.secret_list(of(tenant), page)).await,
            O::SecretsReseal { key_id, limit } => text(self.reseal(key_id, *limit).await),
            O::AuditList { tenant, outcome, since, until, size } => {
                let filter = AuditFilter {
                    tenant: tenant.as_ref().map(of),
                    outcome: *outcome,
                    since: *since,
                    until: *until,
                };
                let listed = |page| {
                    let filter = filter.clone();
                    async { Ok(mapped(s.audit_list(filter, page).await?, line)) }
                };
                in_order(*size, listed).await
            }
            other => panic!("{other:?} is asked elsewhere"),
        }
    }

    /// Seals secrets under this key, so many at a time, and says how many.
    async fn reseal(&self, key_id: &str, limit: usize) -> Result<usize, StoreError> {
        let mut sum = 0;
        loop {
            let others = self.store.secrets_under_other_keys(key_id, limit).await?;
            assert!(others.len() <= limit);
            if others.is_empty() {
                return Ok(sum);
            }
            for from in others {
                let sealed = from.sealed.iter().rev().copied().chain([b'.']).collect();
                let to = SealedSecret { key_id: key_id.into(), sealed, ..from.clone() };
                assert!(self.store.secret_reseal(from.clone(), to.clone()).await?);
                assert!(!self.store.secret_reseal(from, to).await?, "it has changed since");
                sum += 1;
            }
        }
    }

    async fn schedule(&self, now: Timestamp, ids: u64) -> Answer {
        let due = match self.due(now).await {
            Err(error) => return Answer { text: text(error), ..Answer::default() },
            Ok(due) => due,
        };
        let advances = decisions(&due, now, ids);
        let created = self.store.triggers_advance(advances.clone(), now).await;
        let runs = advances.iter().flat_map(|advance| advance.run_ids.clone()).collect();
        Answer { text: text((due, created)), learned: Learned { runs, advances, ..Learned::default() } }
    }

    async fn backfill(&self, now: Timestamp, ids: u64, times: usize) -> Answer {
        let mut due = match self.store.backfills_due(now, DUE_MAX).await {
            Err(error) => return Answer { text: text(error), ..Answer::default() },
            Ok(due) => due,
        };
        due.sort_by_key(|due| due.id);
        // Each side has its own.
        due.iter_mut().for_each(|due| due.tenant = TenantId(uuid::Uuid::nil()));
        let (mut number, mut created, mut runs) = (ids, Vec::new(), Vec::new());
        for due in &due {
            let timetable =
                timetable(due.trigger, &due.trigger_spec, due.from, &BundledZones).expect("a schedule");
            let stretch = stretch(&timetable, Holidays::NONE, due.next_at, due.last_at, times);
            let new_id = |_: &Timestamp| {
                number = number.wrapping_add(1);
                RunId(uuid_at(now, number))
            };
            let run_ids: Vec<RunId> = stretch.times.iter().map(new_id).collect();
            runs.extend(run_ids.clone());
            let step = BackfillStep { id: due.id, next_at: due.next_at, stretch, run_ids };
            created.push(self.store.backfill_advance(step, now).await);
        }
        Answer { text: text((due, created)), learned: Learned { runs, ..Learned::default() } }
    }

    async fn deliver(&self, now: Timestamp, ids: u64) -> Answer {
        let mut pending = match self.store.events_pending(now, DUE_MAX).await {
            Err(error) => return Answer { text: text(error), ..Answer::default() },
            Ok(pending) => pending,
        };
        pending.sort_by_key(|pending| pending.id);
        let (mut number, mut created, mut runs) = (ids, Vec::new(), Vec::new());
        let compiled = Compiled::default();
        for pending in &pending {
            let deciders = Deciders::read(&pending.spec.rule, &compiled).expect("good expressions");
            let delivery = deliver(pending.waiting(), &deciders, now);
            let new_id = |_: &Item| {
                number = number.wrapping_add(1);
                RunId(uuid_at(now, number))
            };
            let run_ids: Vec<RunId> = delivery.items.iter().map(new_id).collect();
            runs.extend(run_ids.clone());
            let (id, tenant, cursor) = (pending.id, pending.tenant, pending.cursor);
            created.push(if delivery.items.is_empty() {
                let Delivery { cursor: past, seen, look_at, .. } = delivery;
                self.store.events_look(vec![Look { id, cursor, past, seen, look_at }], now).await
            } else {
                self.store.events_deliver(Deliver { id, tenant, cursor, delivery, run_ids }, now).await
            });
        }
        // Each side has its own.
        pending.iter_mut().for_each(|pending| pending.tenant = TenantId(uuid::Uuid::nil()));
        Answer { text: text((pending, created)), learned: Learned { runs, ..Learned::default() } }
    }

    /// What [`Operation::Schedule`] will decide.
    pub async fn decide(&self, at: Timestamp) -> Vec<Advance> {
        let now = innkeeper_domain::time::after(at, self.skew);
        decisions(&self.due(now).await.unwrap_or_default(), now, 0)
    }

    async fn due(&self, now: Timestamp) -> Result<Vec<DueTrigger>, StoreError> {
        let mut due = self.store.triggers_due(now, DUE_MAX).await?;
        assert!(due.is_sorted_by_key(|due| due.due), "the longest due comes first: {due:?}");
        due.sort_by_key(|due| (due.due, due.id));
        Ok(due)
    }

    /// Whether a task is there, or was deleted and has runs to be executed.
    async fn needs(&self, task: TaskId) -> bool {
        let page = Page { size: 100_000, after: None };
        for tenant in &self.tenants {
            let tasks = self.store.task_list(*tenant, None, page.clone()).await.expect("tasks").items;
            let runs =
                self.store.run_list(*tenant, RunFilter::default(), page.clone()).await.expect("runs").items;
            let is_needed = tasks.iter().any(|one| one.id == task)
                || runs.iter().any(|run| run.task_id == task && !run.state.is_final());
            if is_needed {
                return true;
            }
        }
        false
    }

    /// Ends the host that lives, if one does.
    async fn end_hosts(&self, how: Ending, now: Timestamp) -> Result<u64, StoreError> {
        let mut ended = match how {
            Ending::Reaped => self.store.hosts_reap(another_host(), now).await?,
            Ending::Stopped => 0,
        };
        for living in self.store.host_list().await? {
            ended += self.store.host_stop(living.host.id, now).await?;
        }
        Ok(ended)
    }

    /// How much is deleted in all, and that it ends.
    async fn retain(&self, keep: Keep, limit: usize) -> Result<(u64, u64, u64, u64), StoreError> {
        let mut sum = (0, 0, 0, 0);
        for _ in 0..ROUNDS_MAX {
            let swept = self.store.retention_step(keep, limit).await?;
            if swept.is_empty() {
                return Ok(sum);
            }
            let most = [swept.runs, swept.logs, swept.skips, swept.uploads].into_iter().max();
            assert!(most <= Some(limit as u64), "at most {limit} of each: {swept:?}");
            // How many logs were deleted before their runs depends on what a step does first.
            sum.0 += swept.runs;
            sum.1 += swept.skips;
            sum.2 += swept.uploads;
            sum.3 += swept.definitions;
        }
        panic!("the retention doesn't end")
    }
}

/// A change that somebody asks for.
fn change(now: Timestamp) -> Change {
    let (name, address, action) = ("token".into(), "192.0.2.1:9".into(), "Store/Call\0".into());
    Change { now, by: Some(Arc::new(Actor { name, role: Some(Role::Owner), address, action })) }
}

fn anonymous(tenant: Tenant) -> Tenant {
    Tenant { id: TenantId(uuid::Uuid::nil()), ..tenant }
}

fn shown(found: Found) -> impl Debug {
    // A host's own token has an id of its store's.
    let own = found.token.note.contains("the host's own");
    let id = if own { TokenId(uuid::Uuid::nil()) } else { found.token.id };
    (Token { tenant: None, id, ..found.token }, found.tenant.map(anonymous))
}

fn contents(secret: SealedSecret) -> impl Debug {
    let SealedSecret { name, key_id, sealed, created_at, updated_at, .. } = secret;
    (name, key_id, sealed, created_at, updated_at)
}

fn line(entry: AuditEntry) -> impl Debug {
    let AuditEntry { at, tenant, actor, object, outcome, before, after, count, .. } = entry;
    let tenant = tenant.map(|(_, name)| name);
    // As in `difference`: in JSON a NUL is written otherwise.
    let [before, after] = [before, after].map(|value| value.to_string().replace("\\u0000", "\u{fffd}"));
    (at, object, tenant, actor, outcome, before, after, count)
}

fn mapped<T, U>(page: Paged<T>, to: impl Fn(T) -> U) -> Paged<U> {
    Paged { items: page.items.into_iter().map(to).collect(), next: page.next }
}

fn decisions(due: &[DueTrigger], now: Timestamp, ids: u64) -> Vec<Advance> {
    let mut number = ids;
    let decide = |due: &DueTrigger| {
        let timetable = Timetable::new(due.id, &due.spec, &BundledZones).expect("a good schedule");
        let rules = Rules::of(&due.spec, &timetable, &due.holidays, due.paused_through);
        let firing = fire(rules, due.due, now);
        let new_id = |_: &Timestamp| {
            number = number.wrapping_add(1);
            RunId(uuid_at(now, number))
        };
        let run_ids = firing.runs.iter().map(new_id).collect();
        Advance { id: due.id, due: due.due, firing, run_ids, edition: String::new() }
    };
    due.iter().map(decide).collect()
}

fn component(bytes: &[u8], created_at: Timestamp) -> Component {
    Component {
        digest: digest(bytes),
        size: bytes.len() as u64,
        shape: if bytes.len().is_multiple_of(2) { Shape::Handler } else { Shape::Command },
        adapted: bytes.len().is_multiple_of(3),
        imports: vec!["wasi:cli/stderr@0.2.6".into()],
        created_at,
    }
}

fn text(answer: impl Debug) -> String {
    format!("{answer:?}")
}

/// All that pages of a list have, in an order of its own: that of the list is each store's.
async fn in_order<T, F>(size: usize, list: impl Fn(Page) -> F) -> String
where
    T: Debug,
    F: Future<Output = Result<Paged<T>, StoreError>>,
{
    let (mut lines, mut after) = (Vec::new(), None);
    for _ in 0..ROUNDS_MAX {
        match list(Page { size, after: after.take() }).await {
            Err(error) => return text(error),
            Ok(page) => {
                assert!(page.items.len() <= size && (page.items.len() == size || page.next.is_none()));
                lines.extend(page.items.into_iter().map(text));
                after = page.next;
            }
        }
        if after.is_none() {
            lines.sort();
            return lines.join("\n");
        }
    }
    panic!("the list has no end")
}

/// Every page of a list, and where each ended. Page tokens are each store's own.
async fn pages<T, F>(size: usize, list: impl Fn(Page) -> F) -> String
where
    T: Debug,
    F: Future<Output = Result<Paged<T>, StoreError>>,
{
    let mut pages = Vec::new();
    let mut after = None;
    for _ in 0..ROUNDS_MAX {
        match list(Page { size, after: after.take() }).await {
            Err(error) => return text((pages, error)),
            Ok(page) => {
                pages.push(text(page.items));
                after = page.next;
            }
        }
        if after.is_none() {
            return pages.join("\n");
        }
    }
    panic!("the list has no end")
}
