//! Of a seed: events that people publish, and triggers that follow events or the ends of other tasks' runs.

use crate::plan::{Act, LENGTH, PlannedTrigger, Times};
use crate::random::Random;
use innkeeper_domain::Timestamp;
use innkeeper_domain::event::{Topic, TopicPattern};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::rule::{AfterRule, EventRule, Gather, When};
use innkeeper_domain::time::after;
use innkeeper_domain::trigger::{OverlapPolicy, TriggerSpec};
use std::time::Duration;

const TOPICS: [&str; 3] = ["orders.new", "orders.paid", "stock.low"];

/// Whose ends are followed, and by which task. No task leads back to itself.
const FOLLOWED: [(&str, &str); 2] = [("slow", "rated"), ("keyed", "quick")];

/// Which of the events that people publish a trigger wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The beginning of their topics.
    pub topics: &'static str,
    pub numbers: Numbers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    All,
    Even,
}

impl Wanted {
    /// Whether it wants one.
    pub fn has(self, event: &PlannedEvent) -> bool {
        let number = self.numbers == Numbers::All || event.number.is_multiple_of(2);
        event.topic.starts_with(self.topics) && number
    }
}

pub struct PlannedEvent {
    pub at: Timestamp,
    pub id: String,
    pub topic: &'static str,
    pub number: u64,
    /// How often it is asked, under the same id.
    pub times: u64,
}

impl PlannedEvent {
    pub fn topic(&self) -> Topic {
        self.topic.parse().expect("a topic")
    }

    pub fn data(&self) -> Payload {
        Payload::json(format!("{{\"number\": {}}}", self.number))
    }
}

/// Events in bursts, over all the time.
pub fn events(random: &mut Random, begin: Timestamp) -> Vec<PlannedEvent> {
    let mut events = Vec::new();
    for _ in 0..40 {
        let burst = after(begin, Duration::from_secs(3_600 + random.below(LENGTH.as_secs())));
        for _ in 0..1 + random.below(6) {
            let number = events.len() as u64;
            events.push(PlannedEvent {
                at: after(burst, Duration::from_secs(random.below(30))),
                id: format!("e{number}"),
                topic: random.pick(&TOPICS).expect("some"),
                number,
                times: 1 + random.below(2),
            });
        }
    }
    events
}

/// Triggers that follow.
pub fn triggers(random: &mut Random, begin: Timestamp) -> Vec<PlannedTrigger> {
    let mut triggers: Vec<_> = (0..6).map(|number| event_trigger(random, number, begin)).collect();
    triggers.extend(FOLLOWED.iter().enumerate().map(|(number, (of, task))| {
        let of: Name = of.parse().expect("a name");
        let spec = TriggerSpec::new(AfterRule { task: of.clone(), when: When::Success });
        planned(random, format!("a{number}"), task, spec, Times::AfterSuccess(of), begin)
    }));
    triggers
}

fn event_trigger(random: &mut Random, number: u64, begin: Timestamp) -> PlannedTrigger {
    let (pattern, topics) =
        random.pick(&[("orders.*", "orders."), ("orders.new", "orders.new"), ("**", "")]).expect("some");
    let numbers = if random.chance(30) { Numbers::Even } else { Numbers::All };
    let seconds = |random: &mut Random, most: u64| Duration::from_secs(1 + random.below(most));
    let gather = match random.below(100) {
        0..60 => None,
        60..80 => Some(Gather::Batch { size: 2 + random.below(4) as usize, wait: seconds(random, 600) }),
        _ => {
            let quiet = seconds(random, 60);
            Some(Gather::Debounce { quiet, most: quiet + seconds(random, 120) })
        }
    };
    let filter = (numbers == Numbers::Even).then(|| "data.number % 2 == 0".into());
    // The host's own events are on all topics too, but have no number.
    let pattern: TopicPattern = match pattern {
        "**" if filter.is_none() => "orders.*".parse().expect("a pattern"),
        pattern => pattern.parse().expect("a pattern"),
    };
    let wanted =
        Wanted { topics: if pattern.to_string() == "orders.*" { "orders." } else { topics }, numbers };
    let rule = EventRule { filter, gather, ..EventRule::new(pattern) };
    let spec =
        TriggerSpec { overlap: random.pick(OverlapPolicy::ALL).expect("some"), ..TriggerSpec::new(rule) };
    let task = random.pick(&["quick", "slow", "paired", "fails"]).expect("some");
    planned(random, format!("e{number}"), task, spec, Times::Events(wanted), begin)
}

fn planned(
    random: &mut Random,
    name: String,
    task: &str,
    spec: TriggerSpec,
    times: Times,
    begin: Timestamp,
) -> PlannedTrigger {
    let created_at = after(begin, Duration::from_secs(random.below(40 * 3_600)));
    let mut acts = Vec::new();
    if random.chance(40) {
        let paused_at = after(created_at, Duration::from_secs(random.below(60 * 3_600)));
        acts.push((paused_at, Act::Pause));
        acts.push((after(paused_at, Duration::from_secs(random.below(20 * 3_600))), Act::Resume));
    }
    PlannedTrigger {
        name: name.parse().expect("a name"),
        task: task.parse().expect("a name"),
        spec,
        times,
        created_at,
        acts,
    }
}
