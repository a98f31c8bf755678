//! Makes up operations, from what a store has been asked and has answered so far.

use crate::operation::{Ending, Operation, Step, TENANTS};
use crate::random::Random;
use crate::side::{Learned, digest, name, uuid_at};
use innkeeper_domain::access::{self, Proof, Token};
use innkeeper_domain::audit::AuditOutcome;
use innkeeper_domain::backfill::Again;
use innkeeper_domain::calendar::{BundledZones, CronSchedule, Dialect, Schedule};
use innkeeper_domain::component::Digest;
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, RetryAdvice, Usage};
use innkeeper_domain::holiday::Holiday;
use innkeeper_domain::host::{Host, HostState, Labels, Role};
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TenantId, TokenId, TriggerId};
use innkeeper_domain::limits::IDEMPOTENCY_KEY_KEPT;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::{Quota, Quotas};
use innkeeper_domain::rule::{AfterRule, EventRule, Gather, Rule, WEBHOOK_TOLERANCE, WebhookRule, When};
use innkeeper_domain::run::{Lease, LogLevel, LogLine, Progress, RunState};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::tenant::{TenantPause, TenantState, TenantUpdate};
use innkeeper_domain::trigger::{CatchUp, OverlapPolicy, TriggerSpec};
use innkeeper_domain::webhook::Scheme;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{
    Advance, AttemptNews, Finish, Keep, NewEvent, NewRun, NewTask, NewTenant, NewTrigger, OnGrowth,
    OnRevision, QueuedRuns, RunFilter, StartOptions,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// In the order of bytes, which is not that of any language.
const NAMES: [&str; 8] = ["a", "a-b", "a.b", "a0", "a_b", "ab", "b", "b-1"];
/// Tenants without anything, which come and go.
const OTHER_TENANTS: [&str; 2] = ["passing", "through"];
const KEYS: [&str; 2] = ["old", "new"];
const HOSTS: [&str; 2] = ["one", "two"];
const LABELS: [&str; 4] = ["", "gpu=a100", "zone=eu", "gpu=a100,zone=eu"];
/// Texts that somebody will send.
const TEXTS: [&str; 7] =
    ["", "hello", "it's", "a\nb\t\"c\" \\x00", "Grüße 世界 🏨", "\u{1}\u{7f}", "nul\0nul"];
const HOURS: Duration = Duration::from_secs(3_600);

/// What the next operation can be about.
pub struct Generator {
    random: Random,
    now: Timestamp,
    /// The host that lives, and how long its lease is.
    host: Option<(HostId, Timestamp)>,
    /// Operations so far. The first few make what the others need.
    steps: u64,
    hosts: Vec<HostId>,
    tasks: Vec<TaskId>,
    triggers: Vec<Name>,
    tokens: Vec<TokenId>,
    runs: Vec<RunId>,
    /// Old ones too.
    leases: Vec<Lease>,
    advances: Vec<Advance>,
    backfills: Vec<BackfillId>,
}

type Make = fn(&mut Generator) -> Option<Operation>;

/// How often each kind of operation comes.
const KINDS: [(u64, Make); 82] = [
    (1, |g| g.random.pick(&["default", "other", "none"]).map(Operation::TenantGet)),
    (1, Generator::tenant_create),
    (2, Generator::tenant_update),
    (1, |g| g.random.pick(&OTHER_TENANTS).map(Operation::TenantDelete)),
    (1, |g| Some(Operation::TenantList { size: g.size() })),
    (2, Generator::token_create),
    (1, |g| {
        let tenant = g.random.chance(70).then(|| g.tenant());
        Some(Operation::TokenRevoke { tenant, id: g.random.pick(&g.tokens)? })
    }),
    (1, |g| {
        let tenant = g.random.chance(70).then(|| g.tenant());
        Some(Operation::TokenList { tenant, size: g.size() })
    }),
    (3, |g| {
        let (tenant, name, key_id) = (g.tenant(), g.name(), g.random.pick(&KEYS)?);
        Some(Operation::SecretPut { tenant, name, key_id, sealed: g.text().into_bytes() })
    }),
    (1, |g| Some(Operation::SecretsGet { tenant: g.tenant(), names: vec![g.name(), g.name()] })),
    (1, |g| Some(Operation::SecretDelete { tenant: g.tenant(), name: g.name() })),
    (1, |g| Some(Operation::SecretList { tenant: g.tenant(), size: g.size() })),
    (1, |g| Some(Operation::SecretsReseal { key_id: g.random.pick(&KEYS)?, limit: g.size() })),
    (3, Generator::holidays_put),
    (1, |g| Some(Operation::HolidaysGet { tenant: g.tenant(), name: g.name() })),
    (1, |g| Some(Operation::HolidaysDelete { tenant: g.tenant(), name: g.name() })),
    (1, |g| Some(Operation::HolidaysList { tenant: g.tenant(), size: g.size() })),
    (1, |g| Some(Operation::HolidaysDates { tenant: g.tenant(), names: [g.name(), g.name()].into() })),
    (1, |g| {
        let task = g.random.chance(50).then(|| g.name());
        Some(Operation::TriggerPlans { tenant: g.tenant(), task, only: g.only(), size: g.size() })
    }),
    (1, Generator::audit_list),
    (1, |g| Some(Operation::TokenEnsure(g.hash()))),
    (1, |g| Some(Operation::TokenFind(g.hash()))),
    (4, |g| Some(Operation::ComponentPut { tenant: g.tenant(), bytes: g.bytes() })),
    (2, |g| Some(Operation::ComponentGet { tenant: g.tenant(), digest: g.digest_text() })),
    (1, |g| Some(Operation::ComponentDelete { tenant: g.tenant(), digest: g.digest() })),
    (1, |g| Some(Operation::ComponentBytes(g.digest()))),
    (1, |g| Some(Operation::ComponentList { tenant: g.tenant(), size: g.size() })),
    (2, |g| {
        Some(Operation::UploadBegin {
            tenant: g.tenant(),
            digest: g.upload_digest(),
            size: g.random.below(9),
        })
    }),
    (3, Generator::upload_append),
    (1, |g| Some(Operation::UploadBytes { tenant: g.tenant(), digest: g.upload_digest() })),
    (1, |g| Some(Operation::UploadEnd { tenant: g.tenant(), digest: g.upload_digest() })),
    (5, Generator::task_create),
    (3, |g| {
        let (expected, growth) = (g.expected()?, g.growth()?);
        Some(Operation::TaskUpdate {
            tenant: g.tenant(),
            name: g.name(),
            spec: g.task_spec(),
            expected,
            growth,
        })
    }),
    (1, |g| {
        let revision = 1 + g.random.below(4) as u32;
        let (expected, growth) = (g.expected()?, g.growth()?);
        Some(Operation::TaskRollback { tenant: g.tenant(), name: g.name(), revision, expected, growth })
    }),
    (1, |g| g.random.chance(40).then(|| Operation::TaskDelete { tenant: g.tenant(), name: g.name() })),
    (1, |g| Some(Operation::TaskGet { tenant: g.tenant(), name: g.name() })),
    (1, |g| Some(Operation::TaskSpecOf { task: g.random.pick(&g.tasks)? })),
    (1, |g| Some(Operation::TaskList { tenant: g.tenant(), only: g.only(), size: g.size() })),
    (1, |g| Some(Operation::TaskRevisions { tenant: g.tenant(), name: g.name(), size: g.size() })),
    (6, Generator::trigger_create),
    (1, |g| Some(Operation::TriggerGet { tenant: g.tenant(), name: g.trigger_name() })),
    (3, |g| {
        let queued = g.random.pick(&[QueuedRuns::Keep, QueuedRuns::Cancel])?;
        Some(Operation::TriggerPause { tenant: g.tenant(), name: g.trigger_name(), note: g.text(), queued })
    }),
    (3, |g| Some(Operation::TriggerResume { tenant: g.tenant(), name: g.trigger_name() })),
    (1, |g| Some(Operation::TriggerDelete { tenant: g.tenant(), name: g.trigger_name() })),
    (1, |g| {
        let task = g.random.chance(50).then(|| g.name());
        Some(Operation::TriggerList { tenant: g.tenant(), task, only: g.only(), size: g.size() })
    }),
    (2, |g| Some(Operation::TriggerSkips { tenant: g.tenant(), name: g.trigger_name(), size: g.size() })),
    (1, |_| Some(Operation::TriggersNext)),
    (14, |g| Some(Operation::Schedule { ids: g.random.number() })),
    (3, Generator::backfill_create),
    (1, |g| Some(Operation::BackfillCancel { tenant: g.tenant(), id: g.random.pick(&g.backfills)? })),
    (1, |g| {
        let trigger = g.random.chance(50).then(|| g.trigger_name());
        Some(Operation::BackfillList { tenant: g.tenant(), trigger, size: g.size() })
    }),
    (6, |g| {
        let topic =
            |g: &mut Generator| g.random.pick(&["a", "a.b", "c"]).expect("some").parse().expect("a topic");
        let event = |g: &mut Generator| NewEvent {
            id: format!("e{}", g.random.below(200)),
            topic: topic(g),
            data: Payload::json(g.size().to_string()),
        };
        let events = (0..=g.random.below(3)).map(|_| event(g)).collect();
        Some(Operation::EventsPublish { tenant: g.tenant(), events })
    }),
    (1, |g| {
        let after = g.random.below(20);
        Some(Operation::EventsAfter { tenant: g.tenant(), after, limit: g.size() })
    }),
    (8, |g| Some(Operation::Deliver { ids: g.random.number() })),
    (4, |g| {
        let id = RunId(uuid_at(g.now, g.random.number()));
        let occurrence = g.random.pick(&["1", "2", "3", ""])?;
        Some(Operation::TriggerFire { tenant: g.tenant(), trigger: g.trigger_name(), id, occurrence })
    }),
    (10, |g| Some(Operation::Backfill { ids: g.random.number(), times: g.size() })),
    (2, |g| {
        let stale = g.random.pick(&g.advances)?;
        Some(Operation::Advance(vec![stale]))
    }),
    (14, Generator::runs_start),
    (1, |g| {
        let queued = g.random.pick(&[QueuedRuns::Keep, QueuedRuns::Keep, QueuedRuns::Cancel])?;
        Some(Operation::TaskPause { tenant: g.tenant(), name: g.name(), note: g.text(), queued })
    }),
    (3, |g| Some(Operation::TaskResume { tenant: g.tenant(), name: g.name() })),
    (1, |g| Some(Operation::RunPause { tenant: g.tenant(), id: g.run() })),
    (2, |g| Some(Operation::RunResume { tenant: g.tenant(), id: g.run() })),
    (2, |g| Some(Operation::RunGet { tenant: g.tenant(), id: g.run() })),
    (3, Generator::run_list),
    (4, |g| Some(Operation::RunCancel { tenant: g.tenant(), id: g.run() })),
    (2, |g| Some(Operation::RunsCancel { tenant: g.tenant(), ids: vec![g.run(), g.run()] })),
    (5, |g| {
        let on = g.random.pick(&[OnRevision::Pinned, OnRevision::Current])?;
        Some(Operation::RunsRetry { tenant: g.tenant(), ids: vec![g.run(), g.run(), g.run()], on })
    }),
    (5, |_| Some(Operation::RunsExpire)),
    (2, |g| {
        let after = (g.random.below(3) as u32, g.random.below(4) as u32);
        Some(Operation::RunLogs { tenant: g.tenant(), id: g.run(), after, limit: g.size() })
    }),
    (14, |g| {
        let (host, labels) = (g.any_host(), g.labels());
        Some(Operation::RunsClaim { host, labels, limit: 1 + g.random.below(6) as usize })
    }),
    (2, |g| Some(Operation::RunsNextReady(g.labels()))),
    (5, Generator::runs_news),
    (16, Generator::run_finish),
    (3, Generator::host_start),
    (3, Generator::host_renew),
    (2, |_| Some(Operation::HostsReap)),
    (1, |g| Some(Operation::HostStop(g.any_host()))),
    (2, |g| Some(Operation::HostOrders(g.any_host()))),
    (1, |g| {
        let kept = g.leases.iter().copied().filter(|_| g.random.chance(50)).collect();
        Some(Operation::HostRelease { host: g.any_host(), keep: kept })
    }),
    (2, Generator::host_state_or_list),
    // Seldom for long.
    (1, |g| Some(Operation::FleetPause(g.random.chance(30).then(|| g.text())))),
    (3, |_| Some(Operation::FleetPause(None))),
];

/// How many uploads there can be, some of them more than a tenant may begin.
const UPLOADS: u64 = 30;

/// What uploads there can be.
pub fn upload_digests() -> impl Iterator<Item = Digest> {
    (0..UPLOADS as u8).map(|n| Digest([n; 32]))
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        let now = Timestamp::from_second(1_800_000_000).expect("a small number");
        Self {
            random: Random::new(seed),
            now,
            host: None,
            steps: 0,
            hosts: Vec::new(),
            tasks: Vec::new(),
            triggers: Vec::new(),
            tokens: Vec::new(),
            runs: Vec::new(),
            leases: Vec::new(),
            advances: Vec::new(),
            backfills: Vec::new(),
        }
    }

    /// The next operation.
    pub fn step(&mut self) -> Step {
        self.pass_time();
        self.steps += 1;
        let operation = match self.steps {
            1 => Some(Operation::ComponentPut { tenant: 0, bytes: b"wasm".to_vec() }),
            2 | 3 => self.task_create(),
            _ if self.host.is_none() => self.host_start(),
            _ if self.random.chance(1) => self.retain(),
            _ => None,
        };
        let operation = operation.unwrap_or_else(|| self.any());
        self.expect_ends(&operation);
        Step { at: self.now, operation }
    }

    fn any(&mut self) -> Operation {
        let sum: u64 = KINDS.iter().map(|(weight, _)| weight).sum();
        loop {
            let mut place = self.random.below(sum);
            for (weight, make) in KINDS {
                match place.checked_sub(weight) {
                    Some(rest) => place = rest,
                    None => match make(self) {
                        Some(operation) => return operation,
                        None => break,
                    },
                }
            }
        }
    }

    /// What a store has answered to the last operation.
    pub fn learn(&mut self, learned: Learned) {
        self.runs.extend(learned.runs);
        self.leases.extend(learned.leases);
        self.advances.extend(learned.advances.into_iter().take(3));
    }

    fn pass_time(&mut self) {
        let step = match self.random.below(100) {
            0..40 => Duration::ZERO,
            40..70 => Duration::from_micros(self.random.below(1_000_000)),
            70..94 => Duration::from_secs(1 + self.random.below(20)),
            94..98 => Duration::from_secs(60 + self.random.below(3_600)),
            98 => 30 * HOURS,
            _ => IDEMPOTENCY_KEY_KEPT + HOURS,
        };
        self.now = time::after(self.now, step);
    }

    /// Knows which host doesn't live on after this.
    fn expect_ends(&mut self, operation: &Operation) {
        match operation {
            Operation::HostStop(id) if self.host.is_some_and(|(host, _)| host == *id) => self.host = None,
            Operation::HostsReap if self.host.is_some_and(|(_, until)| until < self.now) => self.host = None,
            _ => {}
        }
    }

    fn hash(&mut self) -> [u8; 32] {
        [self.random.below(4) as u8; 32]
    }

    fn tenant(&mut self) -> usize {
        if self.random.chance(85) { 0 } else { self.random.below(TENANTS.len() as u64) as usize }
    }

    fn name(&mut self) -> Name {
        // Few, so that operations meet.
        let among = if self.random.chance(80) { &NAMES[..2] } else { &NAMES[..] };
        name(self.random.pick(among).expect("names"))
    }

    fn trigger_name(&mut self) -> Name {
        let known = if self.random.chance(85) { self.random.pick(&self.triggers) } else { None };
        known.unwrap_or_else(|| self.name())
    }

    fn text(&mut self) -> String {
        self.random.pick(&TEXTS).expect("texts").to_string()
    }

    fn only(&mut self) -> Option<BTreeSet<Name>> {
        self.random.chance(20).then(|| (0..self.random.below(3)).map(|_| self.name()).collect())
    }

    fn size(&mut self) -> usize {
        1 + self.random.below(5) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = if self.random.chance(60) { 4 } else { 1 + self.random.below(3) as usize };
        b"wasm"[..length].to_vec()
    }

    fn digest(&mut self) -> Digest {
        digest(&self.bytes())
    }

    /// Of more things than components that there are.
    fn any_digest(&mut self) -> Digest {
        match self.random.below(10) {
            0 => Digest([self.random.below(30) as u8; 32]),
            1..4 => Digest([1; 32]),
            _ => self.digest(),
        }
    }

    /// Sometimes of more uploads than there can be.
    fn upload_digest(&mut self) -> Digest {
        Digest([if self.random.chance(80) { 1 } else { self.random.below(UPLOADS) as u8 }; 32])
    }

    fn digest_text(&mut self) -> String {
        let whole = self.any_digest().to_string();
        match self.random.below(4) {
            0 => whole,
            1 => whole[7..7 + 12].to_uppercase(),
            2 => whole[..7 + 11].into(),
            _ => whole[..7 + 20].into(),
        }
    }

    fn labels(&mut self) -> Labels {
        let of = if self.random.chance(60) { &LABELS[..1] } else { &LABELS[..] };
        self.random.pick(of).expect("labels").parse().expect("good labels")
    }

    fn run(&mut self) -> RunId {
        // The newest are the liveliest.
        let newest = &self.runs[self.runs.len().saturating_sub(12)..];
        let of = if self.random.chance(80) { newest } else { &self.runs[..] };
        self.random.pick(of).unwrap_or(RunId(uuid_at(self.now, 1)))
    }

    fn lease(&mut self) -> Option<Lease> {
        let newest = &self.leases[self.leases.len().saturating_sub(6)..];
        let of = if self.random.chance(75) { newest } else { &self.leases[..] };
        let lease = self.random.pick(of)?;
        Some(match self.random.below(40) {
            0 => Lease { attempt: lease.attempt + 1, ..lease },
            1 => Lease { host: self.random.pick(&self.hosts)?, ..lease },
            _ => lease,
        })
    }

    fn any_host(&mut self) -> HostId {
        let living = self.host.map(|(id, _)| id);
        let any = if self.random.chance(90) { living } else { self.random.pick(&self.hosts) };
        any.or(living).unwrap_or(HostId(uuid_at(self.now, 2)))
    }

    fn payload(&mut self) -> Payload {
        let content_type = self.random.pick(&["", "application/json"]).expect("two").to_string();
        Payload { content_type, bytes: self.text().into_bytes() }
    }

    fn tenant_create(&mut self) -> Option<Operation> {
        let among = if self.random.chance(80) { &OTHER_TENANTS[..] } else { &TENANTS[..] };
        Some(Operation::TenantCreate(NewTenant {
            id: TenantId(uuid_at(self.now, self.random.number())),
            name: name(self.random.pick(among)?),
            weight: 1 + self.random.below(3) as u32,
            quotas: Quotas([(Quota::FanOut, self.random.number() >> 1)].into()),
        }))
    }

    /// Those that have something are changed in what hinders nothing: what does has cases of its own.
    fn tenant_update(&mut self) -> Option<Operation> {
        let changes = self.random.chance(50);
        let name = self.random.pick(if changes { &TENANTS[..] } else { &OTHER_TENANTS[..] })?;
        let suspended = self.random.chance(50) && !changes;
        let state = if suspended { TenantState::Suspended } else { TenantState::Active };
        let weight = self.random.chance(50).then(|| 1 + self.random.below(3) as u32);
        let value = self.random.chance(70).then_some(1 << 40);
        let quota =
            self.random.pick(Quota::ALL).filter(|quota| !changes || *quota != Quota::LeastInterval)?;
        let pause = TenantPause { note: self.text(), at: self.now };
        let update = TenantUpdate {
            pause: self
                .random
                .chance(30)
                .then(|| self.random.chance(50).then_some(pause))
                .filter(|_| !changes),
            state: self.random.chance(50).then(|| (state, self.text())),
            weight: weight.filter(|_| !changes),
            quotas: [(quota, value)].into(),
        };
        Some(Operation::TenantUpdate { name, update })
    }

    fn token_create(&mut self) -> Option<Operation> {
        let id = TokenId(uuid_at(self.now, self.random.number()));
        self.tokens.push(id);
        let lives = Duration::from_secs(1 + self.random.below(3_600));
        let token = Token {
            id,
            tenant: None,
            role: self.random.pick(access::Role::ALL)?,
            tasks: self.random.chance(30).then(|| [self.name(), self.name()].into()),
            proof: self.random.pick(&[Proof::Token, Proof::Certificate("ci.example.com".into())])?,
            note: self.text(),
            created_at: self.now,
            expires_at: self.random.chance(60).then(|| time::after(self.now, lives)),
            revoked_at: None,
        };
        Some(Operation::TokenCreate { tenant: self.tenant(), token, hash: self.hash() })
    }

    fn audit_list(&mut self) -> Option<Operation> {
        let since = Duration::from_millis(self.random.below(600_000));
        let until = Duration::from_millis(self.random.below(60_000));
        Some(Operation::AuditList {
            tenant: self.random.chance(60).then(|| self.tenant()),
            outcome: self.random.pick(&[None, Some(AuditOutcome::Done), Some(AuditOutcome::Denied)])?,
            since: self.random.chance(80).then(|| time::before(self.now, since)),
            until: self.random.chance(50).then(|| time::before(self.now, until)),
            size: 10 * self.size(),
        })
    }

    fn upload_append(&mut self) -> Option<Operation> {
        let (tenant, digest) = (self.tenant(), self.upload_digest());
        let bytes = vec![b'x'; self.random.below(6) as usize];
        Some(Operation::UploadAppend {
            tenant,
            digest,
            first: self.random.below(2) * self.random.below(4),
            bytes,
        })
    }

    fn expected(&mut self) -> Option<Option<u32>> {
        self.random.pick(&[None, Some(1), Some(2)])
    }

    fn growth(&mut self) -> Option<OnGrowth> {
        self.random.pick(&[OnGrowth::Accept, OnGrowth::Accept, OnGrowth::Refuse])
    }

    fn task_spec(&mut self) -> TaskSpec {
        let mut spec = TaskSpec::new(self.digest());
        spec.requires = self.labels();
        spec.labels = self.labels();
        (spec.start_deadline, spec.deadline) = (self.deadline(), self.deadline());
        spec.cancel_grace = Duration::from_secs(self.random.below(20));
        spec.timeout = Duration::from_millis(1 + self.random.below(100_000));
        spec.config.insert("KEY".into(), self.text().replace('\0', ""));
        if self.random.chance(10) {
            spec.secrets.insert("SECRET".into(), self.name());
        }
        if self.random.chance(30) {
            spec.concurrency = Some(1 + self.random.below(2) as u32);
        }
        if self.random.chance(30) {
            spec.concurrency_key = Some("input".into());
        }
        if self.random.chance(15) {
            spec.rate = self.random.pick(&["1/s", "3/m", "2/h"]).and_then(|rate| rate.parse().ok());
        }
        spec.priority = self.random.pick(&[5, 5, 5, 0, 9]).unwrap_or(5);
        spec
    }

    fn task_create(&mut self) -> Option<Operation> {
        let id = TaskId(uuid_at(self.now, self.random.number()));
        self.tasks.push(id);
        Some(Operation::TaskCreate {
            tenant: self.tenant(),
            task: NewTask { id, name: self.name(), spec: self.task_spec() },
        })
    }

    /// Of today, or of other days.
    fn holidays_put(&mut self) -> Option<Operation> {
        let date = time::after(self.now, self.random.below(3) as u32 * 24 * HOURS).to_string();
        let date = date.get(..10)?;
        let yearly = if self.random.chance(30) { "/yearly" } else { "" };
        let day = format!("{date}{yearly}").parse().ok()?;
        let title = self.text().replace('\0', "");
        Some(Operation::HolidaysPut {
            tenant: self.tenant(),
            name: self.name(),
            holidays: vec![Holiday { day, title }],
        })
    }

    fn backfill_create(&mut self) -> Option<Operation> {
        let id = BackfillId(uuid_at(self.now, self.random.number()));
        self.backfills.push(id);
        let trigger = self.trigger_name();
        let from = time::before(self.now, Duration::from_secs(self.random.below(90)));
        let again = self.random.pick(Again::ALL)?;
        let concurrency = 1 + self.random.below(4) as u32;
        Some(Operation::BackfillCreate { tenant: self.tenant(), id, trigger, from, concurrency, again })
    }

    fn trigger_create(&mut self) -> Option<Operation> {
        let schedule = match self.random.below(8) {
            0 => Schedule::Once { at: time::after(self.now, Duration::from_secs(1 + self.random.below(30))) },
            1..4 => {
                let expression = self.random.pick(&["* * * * * *", "*/7 * * * * *", "0 */5 * * * *"])?;
                Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, "UTC"))
            }
            4 => Schedule::FixedDelay {
                delay: Duration::from_micros(1_000_000 + self.random.below(20_000_000)),
                anchor: self.now,
            },
            _ => Schedule::Interval {
                every: Duration::from_micros(1_000_000 + self.random.below(20_000_000)),
                anchor: self.now,
            },
        };
        if self.random.chance(40) {
            return self.unscheduled_create();
        }
        let spec = TriggerSpec {
            overlap: self.random.pick(OverlapPolicy::ALL)?,
            catch_up: self.random.pick(&[CatchUp::Latest, CatchUp::All, CatchUp::None])?,
            catch_up_window: self.random.pick(&[Duration::from_secs(60), 24 * HOURS])?,
            not_after: self.random.chance(10).then(|| time::after(self.now, Duration::from_secs(60))),
            max_runs: self.random.chance(10).then(|| 1 + self.random.below(3)),
            exclude: self.random.chance(15).then(|| self.name()).into_iter().collect(),
            labels: self.labels(),
            ..TriggerSpec::new(schedule)
        };
        let input = self.payload();
        let id = TriggerId(uuid_at(self.now, self.random.number()));
        let first = spec.check(id, &input, &BundledZones, self.now).ok()?;
        let (task, given) = (self.name(), self.random.chance(50).then(|| self.name()));
        self.triggers.push(given.clone().unwrap_or_else(|| name(&format!("{task}-1"))));
        let trigger = NewTrigger { id, task, name: given, spec, input, first };
        Some(Operation::TriggerCreate { tenant: self.tenant(), trigger })
    }

    /// A trigger that something other than the clock starts runs of.
    fn unscheduled_create(&mut self) -> Option<Operation> {
        let event = |pattern: &str, gather| EventRule {
            gather,
            ..EventRule::new(pattern.parse().expect("a pattern"))
        };
        let wait = Duration::from_secs(5);
        let rule: Rule = match self.random.below(7) {
            0 => event("a.*", Some(Gather::Batch { size: 2, wait })).into(),
            1 => event("**", Some(Gather::Debounce { quiet: wait, most: 2 * wait })).into(),
            2 => event("innkeeper.run.*", None).into(),
            3 => EventRule { filter: Some("data > 2".into()), ..event("*", None) }.into(),
            4 => {
                let (secret, tolerance) = (self.name(), WEBHOOK_TOLERANCE);
                WebhookRule { scheme: Scheme::Github, secret, tolerance }.into()
            }
            _ => AfterRule { task: self.name(), when: self.random.pick(When::ALL)? }.into(),
        };
        let spec = TriggerSpec {
            overlap: self.random.pick(&[OverlapPolicy::Skip, OverlapPolicy::AllowAll])?,
            max_runs: self.random.chance(10).then(|| 1 + self.random.below(3)),
            ..TriggerSpec::new(rule)
        };
        let id = TriggerId(uuid_at(self.now, self.random.number()));
        let (task, given) = (self.name(), self.random.chance(50).then(|| self.name()));
        self.triggers.push(given.clone().unwrap_or_else(|| name(&format!("{task}-1"))));
        let trigger = NewTrigger { id, task, name: given, spec, input: Payload::default(), first: None };
        Some(Operation::TriggerCreate { tenant: self.tenant(), trigger })
    }

    fn deadline(&mut self) -> Option<Duration> {
        self.random.chance(15).then(|| Duration::from_micros(1 + self.random.below(60_000_000)))
    }

    fn options(&mut self) -> StartOptions {
        let deadlines = Deadlines { start: self.deadline(), end: self.deadline() };
        let priority = self.random.pick(&[None, None, Some(0), Some(9)]).flatten();
        StartOptions { deadlines, labels: self.labels(), priority }
    }

    fn runs_start(&mut self) -> Option<Operation> {
        let mut starts = Vec::new();
        for _ in 0..=self.random.below(4) {
            let id = RunId(uuid_at(self.now, self.random.number()));
            let key = self.random.chance(40).then(|| self.random.pick(&["k1", "k2", "schlüssel"])).flatten();
            let input = if key.is_some() { Payload::json(self.size().to_string()) } else { self.payload() };
            starts.push(NewRun {
                id,
                task: self.name(),
                input,
                idempotency_key: key.map(Into::into),
                options: self.options(),
            });
        }
        Some(Operation::RunsStart { tenant: self.tenant(), starts })
    }

    fn run_list(&mut self) -> Option<Operation> {
        let filter = RunFilter {
            only: self.only(),
            task: self.random.chance(30).then(|| self.name()),
            trigger: self.random.chance(20).then(|| self.trigger_name()),
            states: RunState::ALL.into_iter().filter(|_| self.random.chance(30)).collect(),
            failure_kinds: FailureKind::ALL.into_iter().filter(|_| self.random.chance(10)).collect(),
            ended_since: self.random.chance(20).then(|| time::before(self.now, Duration::from_secs(60))),
            labels: self.labels(),
        };
        Some(Operation::RunList { tenant: self.tenant(), filter, size: 1 + self.random.below(20) as usize })
    }

    fn lines(&mut self, lease: Lease) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for sequence in 1..=self.random.below(4) as u32 {
            let level = self.random.pick(&LogLevel::ALL).expect("levels");
            lines.push(LogLine { attempt: lease.attempt, sequence, at: self.now, level, text: self.text() });
        }
        lines
    }

    fn runs_news(&mut self) -> Option<Operation> {
        let mut news = Vec::new();
        for _ in 0..=self.random.below(2) {
            let lease = self.lease()?;
            let progress = self.random.chance(60).then(|| Progress {
                done: self.random.number(),
                total: self.random.pick(&[None, Some(7), Some(u64::MAX)]).flatten(),
                note: self.text(),
            });
            news.push(AttemptNews { lease, lines: self.lines(lease), progress });
        }
        Some(Operation::RunsNews(news))
    }

    fn run_finish(&mut self) -> Option<Operation> {
        let lease = self.lease()?;
        let (outcome, again_at) = if self.random.chance(50) {
            (Outcome::Output(self.payload()), None)
        } else {
            let kind = self.random.pick(&FailureKind::ALL)?;
            let code = self.text();
            let failure = Failure::with_code(kind, &code, self.text(), RetryAdvice::ByPolicy);
            let again = self.random.chance(50).then(|| Duration::from_millis(self.random.below(20_000)));
            (Outcome::Failure(failure), again.map(|wait| time::after(self.now, wait)))
        };
        let usage = Usage {
            wall: Duration::from_micros(self.random.below(1_000_000)),
            cpu: Duration::from_micros(self.random.below(1_000_000)),
            peak_memory: self.random.pick(&[0, 65_536, u64::MAX])?,
        };
        let lines = self.lines(lease);
        Some(Operation::RunFinish(Finish { lease, end: AttemptEnd { outcome, usage }, again_at, lines }))
    }

    fn host_start(&mut self) -> Option<Operation> {
        let ending = self.random.pick(&[Ending::Stopped, Ending::Reaped])?;
        if let (Some((_, until)), Ending::Reaped) = (self.host, ending) {
            self.now = self.now.max(time::after(until, Duration::from_micros(1)));
        }
        let id = HostId(uuid_at(self.now, self.random.number()));
        let lease_until = time::after(self.now, Duration::from_secs(1 + self.random.below(600)));
        self.host = Some((id, lease_until));
        self.hosts.push(id);
        let host = Host {
            id,
            name: name(self.random.pick(&HOSTS)?),
            address: "127.0.0.1:7070".into(),
            version: "0.1.0".into(),
            roles: Role::ALL.into_iter().filter(|_| self.random.chance(70)).collect(),
            labels: self.labels(),
            capacity: self.random.below(100) as u32,
        };
        Some(Operation::HostStart { host, before: ending, lease_until })
    }

    fn host_renew(&mut self) -> Option<Operation> {
        let lease_until = time::after(self.now, Duration::from_secs(1 + self.random.below(600)));
        let host = self.any_host();
        if let Some((id, until)) = &mut self.host
            && *id == host
        {
            *until = lease_until;
        }
        Some(Operation::HostRenew { host, lease_until })
    }

    fn host_state_or_list(&mut self) -> Option<Operation> {
        if self.random.chance(30) {
            return Some(Operation::HostList);
        }
        // Mostly back to work.
        let all = [HostState::Active, HostState::Active, HostState::Cordoned, HostState::Draining];
        let state = self.random.pick(&all)?;
        Some(Operation::HostSetState { name: name(self.random.pick(&HOSTS)?), state })
    }

    fn retain(&mut self) -> Option<Operation> {
        let mut since = || time::before(self.now, Duration::from_secs(self.random.below(4 * 3_600)));
        let (runs_since, logs_since) = (since(), since());
        let keep = Keep {
            runs_since,
            logs_since,
            skips_since: since(),
            uploads_since: since(),
            audit_since: since(),
            usage_since: since(),
            events_since: since(),
            events_held_since: since(),
        };
        Some(Operation::Retain { keep, limit: 1 + self.random.below(20) as usize })
    }
}
