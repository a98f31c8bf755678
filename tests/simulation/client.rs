//! People: they ask whichever process is there, and ask again until they are told.

use crate::followers::PlannedEvent;
use crate::front::Front;
use crate::plan::{Act, Plan, PlannedStart, PlannedTrigger};
use crate::process::Process;
use crate::record::{Event, Record};
use crate::tasks::TaskAct;
use crate::time::Time;
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::Zones;
use innkeeper_domain::ids::{RunId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::trigger::TriggerSpec;
use innkeeper_engine::clock::Clock;
use innkeeper_store::{NewEvent, NewRun, NewTrigger, OnGrowth, QueuedRuns, StartOptions, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How long they wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long they wait before they ask again.
const AGAIN: Duration = Duration::from_secs(45);

#[derive(Clone)]
pub struct Clients {
    time: Arc<Time>,
    front: Arc<Front>,
    record: Arc<Record>,
    tenant: TenantId,
    tasks: TaskTracker,
}

/// Whom they ask.
#[derive(Clone)]
pub struct Asked {
    pub process: Arc<Process>,
    pub store: Arc<dyn Store>,
    pub zones: Arc<dyn Zones>,
}

impl Clients {
    pub fn new(time: Arc<Time>, front: Arc<Front>, record: Arc<Record>, tenant: TenantId) -> Self {
        Self { time, front, record, tenant, tasks: TaskTracker::new() }
    }

    /// Does in the background what the plan says.
    pub fn begin(&self, plan: &Plan) {
        for trigger in &plan.triggers {
            self.tasks.spawn(self.clone().use_trigger(trigger));
        }
        for start in &plan.starts {
            self.tasks.spawn(self.clone().start(start));
        }
        for event in &plan.events {
            self.tasks.spawn(self.clone().publish(event));
        }
        for (task, acts) in &plan.task_acts {
            self.tasks.spawn(self.clone().change_task(task.clone(), acts.clone()));
        }
    }

    async fn change_task(self, task: Name, acts: Vec<(Timestamp, TaskAct)>) {
        for (at, act) in acts {
            self.time.sleep_until(at).await;
            let ask = |asked: Asked| {
                let (task, act, tenant) = (task.clone(), act.clone(), self.tenant);
                async move {
                    let now = asked.process.now().into();
                    let store = asked.store;
                    match act.changed(store.task_get(tenant, &task).await?.spec) {
                        Some(spec) => store
                            .task_update(tenant, &task, spec, None, OnGrowth::Accept, now)
                            .await
                            .map(drop),
                        None if matches!(act, TaskAct::Pause) => store
                            .task_pause(tenant, &task, String::new(), QueuedRuns::Keep, now)
                            .await
                            .map(drop),
                        None => store.task_resume(tenant, &task, now).await.map(drop),
                    }
                }
            };
            self.ask(ask).await.expect("what can be done to a task");
        }
    }

    fn publish(self, planned: &PlannedEvent) -> impl Future<Output = ()> + use<> {
        let (at, times) = (planned.at, planned.times);
        let event = NewEvent { id: planned.id.clone(), topic: planned.topic(), data: planned.data() };
        async move {
            self.time.sleep_until(at).await;
            self.record.add(Event::PublishAsked(event.id.clone()));
            for _ in 0..times {
                let ask = |asked: Asked| {
                    let (event, tenant) = (event.clone(), self.tenant);
                    async move {
                        let now = asked.process.now().into();
                        asked.store.events_publish(tenant, vec![event], now).await
                    }
                };
                if self.ask(ask).await.is_ok_and(|told| told.iter().all(Result::is_ok)) {
                    self.record.add(Event::PublishTold(event.id.clone()));
                }
                self.time.sleep(AGAIN).await;
            }
        }
    }

    fn use_trigger(self, planned: &PlannedTrigger) -> impl Future<Output = ()> + use<> {
        let (created_at, acts, spec) = (planned.created_at, planned.acts.clone(), planned.spec.clone());
        let (name, task) = (planned.name.clone(), planned.task.clone());
        async move {
            self.time.sleep_until(created_at).await;
            let make = |asked: Asked| {
                let (name, task, spec, tenant) = (name.clone(), task.clone(), spec.clone(), self.tenant);
                async move {
                    let now = asked.process.now();
                    let (id, input) = (TriggerId::new(now), Payload::default());
                    let Ok(first) = TriggerSpec::check(&spec, id, &input, asked.zones.as_ref(), now) else {
                        return Err(StoreError::Conflict("it would never fire".into()));
                    };
                    let new = NewTrigger { id, task, name: Some(name.clone()), spec, input, first };
                    match asked.store.trigger_create(tenant, new, now.into()).await {
                        Err(StoreError::Exists(_)) => asked.store.trigger_get(tenant, &name).await,
                        answer => answer,
                    }
                }
            };
            let Ok(trigger) = self.ask(make).await else { return };
            self.record.add(Event::CreateTold(trigger.id));
            for (at, act) in acts {
                self.time.sleep_until(at).await;
                let ask = |asked: Asked| {
                    let (name, tenant) = (name.clone(), self.tenant);
                    async move {
                        let now = asked.process.now().into();
                        match act {
                            Act::Pause => asked
                                .store
                                .trigger_pause(tenant, &name, String::new(), QueuedRuns::Keep, now)
                                .await
                                .map(drop),
                            Act::Resume => asked.store.trigger_resume(tenant, &name, now).await.map(drop),
                            Act::Delete => asked.store.trigger_delete(tenant, &name, now).await.map(drop),
                        }
                    }
                };
                match (act, self.ask(ask).await) {
                    (Act::Pause, Ok(())) => self.record.add(Event::PauseTold(trigger.id)),
                    // An answer that was lost before.
                    (Act::Delete, Ok(()) | Err(StoreError::NotFound(_))) => {
                        self.record.add(Event::DeleteTold(trigger.id));
                    }
                    _ => {}
                }
            }
        }
    }

    fn start(self, planned: &PlannedStart) -> impl Future<Output = ()> + use<> {
        let (at, task, key, times) = (planned.at, planned.task.clone(), planned.key.clone(), planned.times);
        let input = planned.input.clone();
        async move {
            self.time.sleep_until(at).await;
            for _ in 0..times {
                let ask = |asked: Asked| {
                    let (task, key, input) = (task.clone(), key.clone(), input.clone());
                    let tenant = self.tenant;
                    async move {
                        let now = asked.process.now();
                        let new = NewRun {
                            id: RunId::new(now),
                            task,
                            input,
                            idempotency_key: Some(key),
                            options: StartOptions::default(),
                        };
                        let started = asked.store.runs_start(tenant, vec![new], now.into()).await?;
                        started.into_iter().next().ok_or(StoreError::Corrupt("no answer".into()))
                    }
                };
                if let Ok(Ok(started)) = self.ask(ask).await {
                    self.record.add(Event::StartTold { key: key.clone(), run: started.id });
                }
                self.time.sleep(AGAIN).await;
            }
        }
    }

    /// Asks until there is an answer. What is asked goes on in the process though nobody waits for it any more.
    async fn ask<T, F>(&self, ask: impl Fn(Asked) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        loop {
            if let Some(asked) = self.front.get() {
                let asking = self.tasks.spawn(ask(asked));
                let answer = tokio::select! {
                    biased;
                    answer = asking => answer.expect("no panic"),
                    () = self.time.sleep(PATIENCE) => Err(StoreError::Unavailable("no answer".into())),
                };
                match answer {
                    Err(StoreError::Unavailable(_)) => {}
                    answer => return answer,
                }
            }
            self.time.sleep(AGAIN).await;
        }
    }
}
