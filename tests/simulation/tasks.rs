//! The tasks of a seed: what each does, the limits that some have, and what people change of these.

use crate::random::Random;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::retry::RetryPolicy;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time::after;
use std::time::Duration;

/// All of them.
pub const TASKS: [&str; 9] = ["quick", "slow", "fails", "hangs", "long", "paired", "keyed", "rated", "dated"];
/// Those with limits: of what executes, of what executes with the same key, of what begins in some time, and of how
/// long a run may take until it begins and until it is over.
pub const LIMITED: [&str; 4] = ["paired", "keyed", "rated", "dated"];
/// The keys that inputs have.
const CUSTOMERS: u64 = 3;

/// What people do to a task.
#[derive(Debug, Clone)]
pub enum TaskAct {
    Pause,
    Resume,
    Concurrency(Option<u32>),
    KeyConcurrency(u32),
    Rate(&'static str),
}

/// What a task says at first.
pub fn spec(task: &str, component: Digest) -> TaskSpec {
    let retry = RetryPolicy { max_attempts: 3, ..RetryPolicy::default() };
    let timeout = Duration::from_secs(if task == "hangs" { 300 } else { 3_600 });
    let plain = TaskSpec { retry, timeout, ..TaskSpec::new(component) };
    match task {
        "paired" => TaskSpec { concurrency: Some(2), ..plain },
        "keyed" => {
            let key = Some("input.customer".into());
            TaskSpec { concurrency: Some(4), concurrency_key: key, key_concurrency: 2, ..plain }
        }
        "rated" => TaskSpec { rate: Some("6/m".parse().expect("a rate")), ..plain },
        "dated" => TaskSpec {
            concurrency: Some(1),
            start_deadline: Some(Duration::from_secs(1_200)),
            deadline: Some(Duration::from_secs(2_400)),
            ..plain
        },
        _ => plain,
    }
}

/// How long an attempt of it takes.
pub fn takes(task: &str, random: &mut Random) -> Duration {
    match task {
        "slow" | "paired" | "keyed" => Duration::from_secs(random.below(900)),
        "long" | "dated" => Duration::from_secs(random.below(3_600)),
        "hangs" if random.chance(30) => Duration::MAX,
        _ => Duration::from_millis(random.below(2_000)),
    }
}

/// Whether an attempt of it fails, if it ends in time.
pub fn fails(task: &str, random: &mut Random) -> bool {
    match task {
        "fails" => random.chance(50),
        "paired" | "rated" => random.chance(15),
        _ => false,
    }
}

/// Whether an attempt of it ends when it is asked to.
pub fn obeys(random: &mut Random) -> bool {
    random.chance(60)
}

/// An input for it. Some have no key.
pub fn input(task: &str, random: &mut Random) -> Payload {
    if task != "keyed" || random.chance(10) {
        return Payload::default();
    }
    Payload::json(format!("{{\"customer\": \"c{}\"}}", random.below(CUSTOMERS)))
}

/// What is changed of a task's limits over some time, in order.
pub fn acts(
    task: &str,
    random: &mut Random,
    begin: Timestamp,
    length: Duration,
) -> Vec<(Timestamp, TaskAct)> {
    let hours = |random: &mut Random, most: u64| Duration::from_secs(600 + random.below(most * 3_600));
    let mut acts = Vec::new();
    let mut at = after(begin, hours(random, 40));
    while at < after(begin, length) {
        if random.chance(35) {
            acts.push((at, TaskAct::Pause));
            at = after(at, hours(random, 5));
            acts.push((at, TaskAct::Resume));
        } else {
            acts.push((at, TaskAct::any(task, random)));
        }
        at = after(at, hours(random, 40));
    }
    acts
}

impl TaskAct {
    fn any(task: &str, random: &mut Random) -> Self {
        match task {
            "keyed" if random.chance(50) => Self::KeyConcurrency(1 + random.below(3) as u32),
            "rated" => Self::Rate(random.pick(&["6/m", "2/m", "20/m", "300/h"]).expect("some")),
            // Without any for a while: what executes then counts when there is one again.
            "paired" if random.chance(25) => Self::Concurrency(None),
            "dated" => Self::Concurrency(Some(1 + random.below(2) as u32)),
            _ => Self::Concurrency(Some(1 + random.below(4) as u32)),
        }
    }

    /// The definition after it; none if it leaves that as it is.
    pub fn changed(&self, spec: TaskSpec) -> Option<TaskSpec> {
        match self {
            Self::Pause | Self::Resume => None,
            Self::Concurrency(concurrency) => Some(TaskSpec { concurrency: *concurrency, ..spec }),
            Self::KeyConcurrency(key_concurrency) => {
                Some(TaskSpec { key_concurrency: *key_concurrency, ..spec })
            }
            Self::Rate(rate) => Some(TaskSpec { rate: Some(rate.parse().expect("a rate")), ..spec }),
        }
    }
}

/// The limits of a task as the store has them after a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLimits {
    pub task: Name,
    pub is_paused: bool,
    pub concurrency: Option<u32>,
    /// Of its runs with the same key, if they have keys.
    pub key_concurrency: Option<u32>,
    /// As it is written.
    pub rate: Option<String>,
}

impl TaskLimits {
    pub fn of(task: innkeeper_domain::task::Task) -> Self {
        let spec = task.spec;
        Self {
            task: task.name,
            is_paused: task.paused.is_some(),
            concurrency: spec.concurrency,
            key_concurrency: spec.concurrency_key.is_some().then_some(spec.key_concurrency),
            rate: spec.rate.map(|rate| rate.to_string()),
        }
    }
}
