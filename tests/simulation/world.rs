//! One seed: a store, processes that come and go, people who use them, and faults.

use crate::bug::{Bug, without_changes};
use crate::checker::{self, Violation};
use crate::client::Clients;
use crate::front::Front;
use crate::observer::Observer;
use crate::plan::{DEATH_PATIENCE, Fault, LENGTH, MOVING, Plan, moving};
use crate::process::{Condition, Process};
use crate::random::Random;
use crate::record::{Event, Record};
use crate::state::State;
use crate::stub::Stub;
use crate::tasks::{self, TASKS};
use crate::time::Time;
use crate::weather::{DeathPoint, Mood, Weather, Weathered};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{BundledZones, TimeZone, Zones};
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::host::{Host, Labels};
use innkeeper_domain::ids::{self, HostId, TaskId, TenantId};
use innkeeper_domain::keyring::Keyring;
use innkeeper_engine::clock::Clock;
use innkeeper_engine::delivery::Deliverer;
use innkeeper_engine::dispatcher::{Dispatcher, DispatcherConfig};
use innkeeper_engine::scheduler::Scheduler;
use innkeeper_store::sqlite::InlineDatabase;
use innkeeper_store::{NewTask, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// Longer than in production, so that a week isn't spent with polling.
const POLL: Duration = Duration::from_secs(120);
const LEASE: Duration = Duration::from_secs(600);
/// How long everything is well in the end, so that what is left gets done.
const QUIET: Duration = Duration::from_secs(8 * 3600);
/// Of that, how long nothing is due any more that must be accounted for.
const SETTLING: Duration = Duration::from_secs(4 * 3600);
/// The names of the zones' editions.
const EDITIONS: [&str; 3] = ["2026a", "2026b", "2026c"];

/// What came of a seed.
#[derive(Debug)]
pub struct Report {
    pub violations: Vec<Violation>,
    pub faults: usize,
    pub runs: usize,
    pub skipped: u64,
    pub simulated: Duration,
    /// Where processes died.
    pub died: BTreeMap<DeathPoint, u32>,
    /// The same whenever everything happened alike.
    pub fingerprint: u64,
    /// All that happened and what came of it, if there are violations.
    pub history: String,
}

/// The zones as a process has them.
struct EditionOfZones {
    edition: usize,
    bug: Bug,
    begin: Timestamp,
}

impl Zones for EditionOfZones {
    fn zone(&self, name: &str) -> Option<TimeZone> {
        match name {
            MOVING => Some(moving(self.edition)),
            _ if self.bug == Bug::NaiveDst => without_changes(name, self.begin),
            _ => BundledZones.zone(name),
        }
    }

    fn edition(&self) -> &str {
        EDITIONS[self.edition]
    }
}

/// What all of a seed have in common.
struct World {
    time: Arc<Time>,
    record: Arc<Record>,
    observer: Arc<Observer>,
    weather: Arc<Mutex<Weather>>,
    database: InlineDatabase,
    front: Arc<Front>,
    bug: Bug,
    begin: Timestamp,
    processes: u32,
    edition: usize,
    tasks: TaskTracker,
}

/// A process, and the parts of its engine.
struct Living {
    process: Arc<Process>,
    parts: [JoinHandle<()>; 3],
}

/// What a seed was, and what came of it.
pub struct Lived {
    pub plan: Plan,
    pub record: Arc<Record>,
    pub state: State,
    died: BTreeMap<DeathPoint, u32>,
}

/// Goes through a seed, and checks it.
pub fn simulate(seed: u64, bug: Bug) -> Report {
    let Lived { plan, record, state, died } = live_through(seed, bug);
    let violations = checker::check(&plan, &record.entries(), &state);
    let history = if violations.is_empty() { String::new() } else { format!("{record}\n{state}") };
    Report {
        violations,
        faults: plan.faults.len(),
        runs: state.runs.len(),
        skipped: state.triggers.iter().flat_map(|trigger| &trigger.skips).map(|skip| skip.count).sum(),
        simulated: LENGTH + QUIET,
        died,
        fingerprint: record.fingerprint(),
        history,
    }
}

/// Goes through a seed.
pub fn live_through(seed: u64, bug: Bug) -> Lived {
    ids::replay(seed);
    let plan = Plan::of(seed);
    let time = Time::new(plan.begin);
    let folder = tempfile::tempdir().expect("a folder");
    let record = Arc::new(Record::new(Arc::clone(&time)));
    let weather =
        Weather { mood: Mood::Well, death: None, random: Random::new(!seed), died: BTreeMap::new() };
    let weather = Arc::new(Mutex::new(weather));
    let database = InlineDatabase::new(folder.path()).expect("a store");
    let store = database.store().expect("a store");
    // Component files are written by a thread, which time doesn't wait for.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let tenant = runtime.block_on(set_up(&store, plan.begin));
    let observer = Arc::new(Observer::new(Arc::clone(&record), tenant));
    runtime.block_on(observer.look_at_tasks(&store));
    let world = World {
        time: Arc::clone(&time),
        record: Arc::clone(&record),
        observer,
        weather: Arc::clone(&weather),
        database,
        front: Arc::default(),
        bug,
        begin: plan.begin,
        processes: 0,
        edition: 0,
        tasks: TaskTracker::new(),
    };
    let state = time.run(world.live(&plan, &store, tenant));
    let died = std::mem::take(&mut weather.lock().unwrap_or_else(PoisonError::into_inner).died);
    Lived { plan, record, state, died }
}

impl World {
    async fn live(mut self, plan: &Plan, store: &dyn Store, tenant: TenantId) -> State {
        let mut living = self.start();
        let clients =
            Clients::new(Arc::clone(&self.time), Arc::clone(&self.front), Arc::clone(&self.record), tenant);
        clients.begin(plan);
        for (at, fault) in &plan.faults {
            self.time.sleep_until(*at).await;
            self.record.add(Event::Fault(fault.clone()));
            living = self.suffer(fault, living).await;
        }
        self.time.sleep_until(innkeeper_domain::time::after(plan.begin, LENGTH)).await;
        let last = Fault::Stop { down: Duration::from_secs(1), edition: None };
        self.record.add(Event::Fault(last.clone()));
        living = self.suffer(&last, living).await;
        self.time.sleep(QUIET).await;
        let settled_at = innkeeper_domain::time::before(self.time.now(), SETTLING);
        stop(living, &self.time).await;
        self.record.close();
        State::read(store, tenant, settled_at, self.edition).await
    }

    fn start(&mut self) -> Living {
        self.processes += 1;
        let process = Process::new(self.processes, Arc::clone(&self.time));
        let store: Arc<dyn Store> = Arc::new(Weathered::new(
            Arc::new(self.database.store().expect("a store")),
            Arc::clone(&process),
            Arc::clone(&self.time),
            Arc::clone(&self.weather),
            (Arc::clone(&self.record), Arc::clone(&self.observer)),
            self.bug,
        ));
        let clock = || Arc::clone(&process) as Arc<dyn Clock>;
        let zones: Arc<dyn Zones> =
            Arc::new(EditionOfZones { edition: self.edition, bug: self.bug, begin: self.begin });
        self.front.set(Arc::clone(&process), Arc::clone(&store), Arc::clone(&zones));
        let deliverer = Deliverer::new(Arc::clone(&store), clock()).polling(POLL);
        let scheduler = Scheduler::new(Arc::clone(&store), clock(), zones).polling(POLL);
        let stub = Stub { process: Arc::clone(&process), record: Arc::clone(&self.record) };
        let keyring = Arc::new(Keyring::new(vec![[7; 32].into()]).expect("a key"));
        let config = DispatcherConfig { lease: LEASE, poll: POLL, ..DispatcherConfig::new(host(&process)) };
        let dispatcher = Dispatcher::new(store, clock(), Arc::new(stub), keyring, config);
        let [one, other, third] = [(); 3].map(|()| process.stop.clone());
        let parts = [
            self.tasks.spawn(async move { scheduler.run(one).await }),
            self.tasks.spawn(async move { dispatcher.run(other).await }),
            self.tasks.spawn(async move { deliverer.run(third).await }),
        ];
        Living { process, parts }
    }

    /// The process that lives afterwards.
    async fn suffer(&mut self, fault: &Fault, mut living: Living) -> Living {
        match fault {
            Fault::Death { point, down, edition } => {
                self.weather().death = Some(*point);
                let died = async {
                    while living.process.condition() != Condition::Dead {
                        self.time.sleep(Duration::from_secs(1)).await;
                    }
                };
                tokio::select! {
                    biased;
                    () = died => {}
                    () = self.time.sleep(DEATH_PATIENCE) => {}
                }
                self.weather().death = None;
                self.change_to(*edition);
                self.restart(living, *down).await
            }
            Fault::Stop { down, edition } => {
                stop(living, &self.time).await;
                self.change_to(*edition);
                self.time.sleep(*down).await;
                self.start()
            }
            Fault::Freeze { frozen, replaced: None, .. } => {
                living.process.set(Condition::Frozen);
                self.time.sleep(*frozen).await;
                living.process.set(Condition::Works);
                living
            }
            Fault::Freeze { frozen, replaced: Some(both), edition } => {
                living.process.set(Condition::Frozen);
                self.time.sleep(*frozen / 2).await;
                self.change_to(*edition);
                let other = self.start();
                self.time.sleep(*frozen / 2).await;
                living.process.set(Condition::Works);
                self.time.sleep(*both).await;
                std::mem::replace(&mut living, other).process.set(Condition::Dead);
                living
            }
            Fault::Mood { mood, lasts } => {
                self.weather().mood = *mood;
                self.time.sleep(*lasts).await;
                self.weather().mood = Mood::Well;
                living
            }
            Fault::Clock { ahead, lasts } => {
                living.process.set_clock_ahead(*ahead * 1_000_000);
                self.time.sleep(*lasts).await;
                living.process.set_clock_ahead(0);
                living
            }
        }
    }

    async fn restart(&mut self, living: Living, down: Duration) -> Living {
        living.process.set(Condition::Dead);
        self.time.sleep(down).await;
        self.start()
    }

    fn change_to(&mut self, edition: Option<usize>) {
        self.edition = edition.unwrap_or(self.edition);
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops a process in order, if it does so in time.
async fn stop(living: Living, time: &Arc<Time>) {
    living.process.stop.cancel();
    let stopped = futures::future::join_all(living.parts);
    tokio::select! {
        biased;
        _ = stopped => {}
        () = time.sleep(Duration::from_secs(600)) => {}
    }
    living.process.set(Condition::Dead);
}

fn host(process: &Process) -> Host {
    Host {
        id: HostId::new(process.now()),
        name: format!("host-{}", process.number).parse().expect("a name"),
        address: String::new(),
        version: String::new(),
        roles: vec![],
        labels: Labels::default(),
        // Enough for what a week leaves behind.
        capacity: 64,
    }
}

/// A tenant with the tasks that the stub knows.
async fn set_up(store: &dyn Store, now: Timestamp) -> TenantId {
    let tenant = store.tenant_ensure(&"default".parse().expect("a name"), now).await.expect("a tenant");
    let digest = Digest([1; 32]);
    let component = Component {
        digest,
        size: 0,
        shape: Shape::Handler,
        adapted: false,
        imports: vec![],
        created_at: now,
    };
    store.component_put(tenant.id, component, vec![], now.into()).await.expect("a component");
    for task in TASKS {
        let spec = tasks::spec(task, digest);
        let new = NewTask { id: TaskId::new(now), name: task.parse().expect("a name"), spec };
        store.task_create(tenant.id, new, now.into()).await.expect("a task");
    }
    tenant.id
}
