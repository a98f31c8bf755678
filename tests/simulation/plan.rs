//! What a seed says: triggers, what people do with them, and what befalls the hosts.

use crate::followers::{self, PlannedEvent, Wanted};
use crate::oracle::Pattern;
use crate::random::Random;
use crate::tasks::{self, LIMITED, TASKS, TaskAct};
use crate::weather::{DeathPoint, Mood, Side};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{BundledZones, CronSchedule, Dialect, Fold, Gap, Schedule, TimeZone, Zones};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::time::{after, before};
use innkeeper_domain::trigger::{CatchUp, OverlapPolicy, TriggerSpec};
use std::time::Duration;

/// How long things happen, before all is well again.
pub const LENGTH: Duration = Duration::from_secs(7 * 24 * HOUR);
/// Triggers of one seed.
pub const TRIGGERS: usize = 50;
/// The name of a zone of which every edition says something else.
pub const MOVING: &str = "Sim/Moving";
/// Its offsets from UTC in hours, by edition.
pub const MOVING_OFFSETS: [i8; 3] = [1, 2, 0];

const HOUR: u64 = 3600;
const MINUTE: u64 = 60;

/// Zones whose clocks change, by a half, one or two hours, at midnight, or for a month of the moon's.
const ZONES: [&str; 8] = [
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Europe/Berlin",
    "Europe/Dublin",
    "Asia/Kathmandu",
];

/// Calls before and after which a process may die: all that write, and what comes before a decision.
const CALLS: [&str; 18] = [
    "triggers_advance",
    "triggers_advance",
    "triggers_advance",
    "triggers_due",
    "runs_claim",
    "run_finish_if_leased",
    "run_finish_if_leased",
    "host_start",
    "host_renew",
    "hosts_reap",
    "host_release",
    "triggers_retime",
    "trigger_resume",
    "runs_expire",
    "task_update",
    "events_deliver",
    "events_deliver",
    "runs_start",
];

pub struct Plan {
    pub begin: Timestamp,
    pub triggers: Vec<PlannedTrigger>,
    pub starts: Vec<PlannedStart>,
    pub events: Vec<PlannedEvent>,
    /// What is done to tasks, in order.
    pub task_acts: Vec<(Name, Vec<(Timestamp, TaskAct)>)>,
    /// In order.
    pub faults: Vec<(Timestamp, Fault)>,
}

pub struct PlannedTrigger {
    pub name: Name,
    pub task: Name,
    pub spec: TriggerSpec,
    pub times: Times,
    pub created_at: Timestamp,
    /// In order.
    pub acts: Vec<(Timestamp, Act)>,
}

/// When a trigger is due, for the checker.
pub enum Times {
    Pattern(Pattern),
    /// At so many seconds after the anchor, and again and again.
    Every {
        seconds: i64,
        anchor: Timestamp,
    },
    AfterRun(Duration),
    Once(Timestamp),
    /// Once on every day of a zone that changes with its edition.
    EveryMovingDay {
        hour: i8,
        minute: i8,
    },
    /// Never by itself: when there are such events.
    Events(Wanted),
    /// Never by itself: when a run of this task has succeeded.
    AfterSuccess(Name),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Pause,
    Resume,
    Delete,
}

pub struct PlannedStart {
    pub at: Timestamp,
    pub task: Name,
    pub key: String,
    pub input: Payload,
    /// How often it is asked, under the same key.
    pub times: u64,
}

#[derive(Debug, Clone)]
pub enum Fault {
    /// The process dies there, or soon anyhow, and another one starts after a while.
    Death {
        point: DeathPoint,
        down: Duration,
        edition: Option<usize>,
    },
    /// The process stops in order, and another one starts.
    Stop {
        down: Duration,
        edition: Option<usize>,
    },
    /// The process stands still. Another one, perhaps of another edition, may have started meanwhile; then they
    /// are both there for some time.
    Freeze {
        frozen: Duration,
        replaced: Option<Duration>,
        edition: Option<usize>,
    },
    Mood {
        mood: Mood,
        lasts: Duration,
    },
    /// The machine's clock is ahead by so many seconds, or behind.
    Clock {
        ahead: i64,
        lasts: Duration,
    },
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let zone = random.pick(&ZONES).expect("some");
        let begin = week_of_a_change(random, zone);
        let zones: [&str; 4] = [zone, zone, "UTC", random.pick(&ZONES).expect("some")];
        let triggers: Vec<_> =
            (0..TRIGGERS).map(|number| PlannedTrigger::any(random, number, begin, &zones)).collect();
        let mut starts: Vec<_> = (0..40).map(|number| PlannedStart::any(random, number, begin)).collect();
        for burst in 0..32 {
            starts.extend(PlannedStart::burst(random, burst, begin));
        }
        let triggers = triggers.into_iter().chain(followers::triggers(random, begin)).collect();
        let events = followers::events(random, begin);
        let task_acts = LIMITED
            .iter()
            .map(|task| (task.parse().expect("a name"), tasks::acts(task, random, begin, LENGTH)));
        let task_acts = task_acts.collect();
        let mut faults = Vec::new();
        // Once in a while a host is down for days.
        let long = random.chance(20).then(|| after(begin, seconds(random, 24 * HOUR, 60 * HOUR)));
        let mut at = after(begin, seconds(random, HOUR, 5 * HOUR));
        while at < after(begin, LENGTH) {
            let fault = match long {
                Some(long) if at < long && after(at, Duration::from_secs(6 * HOUR)) > long => {
                    let (down, edition) = (Duration::from_secs(72 * HOUR), any_edition(random));
                    Fault::Stop { down, edition }
                }
                _ => Fault::any(random),
            };
            let begun = at;
            at = after(at, fault.length() + seconds(random, 20 * MINUTE, 6 * HOUR));
            faults.push((begun, fault));
        }
        Self { begin, triggers, starts, events, task_acts, faults }
    }
}

/// Some days before the zone's clock is changed next, after a day in 2026 or 2027.
fn week_of_a_change(random: &mut Random, zone: &str) -> Timestamp {
    let any: Timestamp =
        after("2026-01-01T00:00:00Z".parse().expect("a time"), seconds(random, 0, 17_000 * HOUR));
    let zone = BundledZones.zone(zone).expect("a zone");
    let change = zone.following(any).next().map_or(any, |change| change.timestamp());
    before(change, seconds(random, 24 * HOUR, 144 * HOUR))
}

fn seconds(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_secs(from + random.below(to - from))
}

fn any_edition(random: &mut Random) -> Option<usize> {
    random.chance(25).then(|| random.below(MOVING_OFFSETS.len() as u64) as usize)
}

fn numbers(random: &mut Random, count: u64, below: u64) -> Vec<i64> {
    let mut some: Vec<i64> = (0..1 + random.below(count)).map(|_| random.below(below) as i64).collect();
    some.sort_unstable();
    some.dedup();
    some
}

impl PlannedTrigger {
    fn any(random: &mut Random, number: usize, begin: Timestamp, zones: &[&str]) -> Self {
        let created_at = after(begin, seconds(random, 0, 40 * HOUR));
        let (schedule, times) = match random.below(100) {
            0..60 => patterned(random, zones),
            60..78 => {
                let every = Duration::from_secs(MINUTE * (10 + random.below(700)));
                let anchor = after(begin, seconds(random, 0, HOUR));
                let times = Times::Every { seconds: every.as_secs() as i64, anchor };
                (Schedule::Interval { every, anchor }, times)
            }
            78..88 => {
                let delay = seconds(random, 5 * MINUTE, 6 * HOUR);
                (Schedule::FixedDelay { delay, anchor: created_at }, Times::AfterRun(delay))
            }
            88..94 => {
                let at = after(created_at, seconds(random, MINUTE, 120 * HOUR));
                (Schedule::Once { at }, Times::Once(at))
            }
            _ => {
                let (hour, minute) = (5 + random.below(14) as i8, random.below(60) as i8);
                let cron = CronSchedule::new(&format!("{minute} {hour} * * *"), Dialect::Crontab, MOVING);
                (Schedule::Cron(cron), Times::EveryMovingDay { hour, minute })
            }
        };
        let spreads = !matches!(times, Times::AfterRun(_));
        // What is checked of a moving zone is that no day is left out.
        let bounded = !matches!(times, Times::EveryMovingDay { .. });
        let spec = TriggerSpec {
            overlap: random.pick(OverlapPolicy::ALL).expect("some"),
            catch_up: random
                .pick(&[CatchUp::Latest, CatchUp::Latest, CatchUp::All, CatchUp::None])
                .expect("some"),
            catch_up_window: Duration::from_secs(HOUR * random.pick(&[1, 6, 24, 200]).expect("some")),
            not_before: (bounded && random.chance(10))
                .then(|| after(created_at, seconds(random, 0, 24 * HOUR))),
            not_after: (bounded && random.chance(10))
                .then(|| after(created_at, seconds(random, 48 * HOUR, 90 * HOUR))),
            max_runs: (bounded && random.chance(12)).then(|| 1 + random.below(20)),
            jitter: if spreads && random.chance(25) { seconds(random, 1, HOUR) } else { Duration::ZERO },
            ..TriggerSpec::new(schedule)
        };
        let mut acts = Vec::new();
        let mut at = after(created_at, seconds(random, HOUR, 30 * HOUR));
        while random.chance(40) {
            acts.push((at, Act::Pause));
            at = after(at, seconds(random, 1, 30 * HOUR));
            acts.push((at, Act::Resume));
            if random.chance(40) {
                at = after(at, seconds(random, 1, HOUR));
                acts.push((at, Act::Resume));
            }
            at = after(at, seconds(random, 1, 30 * HOUR));
        }
        if random.chance(8) {
            acts.push((at, Act::Delete));
        }
        let name = format!("t{number:02}").parse().expect("a name");
        Self { name, task: any_task(random), spec, times, created_at, acts }
    }
}

fn patterned(random: &mut Random, zones: &[&str]) -> (Schedule, Times) {
    let pattern = Pattern {
        minutes: if random.chance(5) { (0..60).step_by(5).collect() } else { numbers(random, 2, 60) },
        hours: match random.below(100) {
            0..25 => None,
            // Where clocks are changed.
            25..70 => Some(numbers(random, 3, 5)),
            _ => Some(numbers(random, 4, 24)),
        },
        weekdays: random.chance(15).then(|| numbers(random, 5, 7)),
        zone: random.pick(zones).expect("some").into(),
        gap: if random.chance(70) { Gap::RunAfter } else { Gap::Skip },
        fold: if random.chance(70) { Fold::Once } else { Fold::Twice },
    };
    let (gap, fold) = (pattern.gap, pattern.fold);
    let cron = CronSchedule::new(&pattern.expression(), Dialect::Crontab, &pattern.zone);
    (Schedule::Cron(CronSchedule { gap, fold, ..cron }), Times::Pattern(pattern))
}

fn any_task(random: &mut Random) -> Name {
    let task = if random.chance(50) { TASKS[0] } else { random.pick(&TASKS).expect("some") };
    task.parse().expect("a name")
}

impl PlannedStart {
    fn any(random: &mut Random, number: u64, begin: Timestamp) -> Self {
        let at = after(begin, seconds(random, HOUR, LENGTH.as_secs()));
        let task = any_task(random);
        let input = tasks::input(task.as_str(), random);
        Self { at, task, key: format!("k{number}"), input, times: 1 + random.below(3) }
    }

    /// Several runs of a task with limits at once.
    fn burst(random: &mut Random, number: u64, begin: Timestamp) -> Vec<Self> {
        let at = after(begin, seconds(random, HOUR, LENGTH.as_secs()));
        let task = random.pick(&LIMITED).expect("some");
        let size = 1 + random.below(12);
        let start = |of: u64| Self {
            at,
            task: task.parse().expect("a name"),
            key: format!("b{number}-{of}"),
            input: tasks::input(task, random),
            times: 1,
        };
        (0..size).map(start).collect()
    }
}

impl Fault {
    fn any(random: &mut Random) -> Self {
        let down = match random.below(100) {
            0..60 => seconds(random, 1, 2 * MINUTE),
            60..90 => seconds(random, MINUTE, HOUR),
            _ => seconds(random, HOUR, 10 * HOUR),
        };
        let edition = any_edition(random);
        match random.below(100) {
            0..50 => {
                let side = if random.chance(50) { Side::Before } else { Side::After };
                let call = random.pick(&CALLS).expect("some");
                Self::Death { point: DeathPoint { call, side }, down, edition }
            }
            50..60 => Self::Stop { down, edition },
            60..80 => {
                let frozen = seconds(random, 1, 40 * MINUTE);
                let replaced = random.chance(75).then(|| seconds(random, 1, 10 * MINUTE));
                Self::Freeze { frozen, replaced, edition }
            }
            80..90 => {
                let mood = random.pick(&[Mood::Away, Mood::Flaky, Mood::Slow]).expect("some");
                Self::Mood { mood, lasts: seconds(random, 1, 30 * MINUTE) }
            }
            _ => {
                let most = random.pick(&[MINUTE, HOUR, 6 * HOUR, 30 * HOUR]).expect("some");
                let ahead = 1 + random.below(most) as i64;
                let lasts = seconds(random, 1, 3 * HOUR);
                Self::Clock { ahead: if random.chance(50) { ahead } else { -ahead }, lasts }
            }
        }
    }

    /// How long it takes at the most.
    pub fn length(&self) -> Duration {
        match self {
            Self::Death { down, .. } => DEATH_PATIENCE + *down,
            Self::Stop { down, .. } => *down,
            Self::Freeze { frozen, replaced, .. } => *frozen + replaced.unwrap_or_default(),
            Self::Mood { lasts, .. } | Self::Clock { lasts, .. } => *lasts,
        }
    }

    /// From when to when nothing can be expected to be on time, if it begins at `at`.
    pub fn trouble(&self, at: Timestamp) -> (Timestamp, Timestamp) {
        let recovered = after(at, self.length() + Duration::from_secs(15 * MINUTE));
        match self {
            // What a clock goes through ahead of time is over when its time comes; and what is made by one that is
            // behind may have its time before.
            Self::Clock { ahead, .. } => {
                let by = Duration::from_secs(ahead.unsigned_abs());
                (before(at, by), after(recovered, by))
            }
            _ => (at, recovered),
        }
    }
}

/// How long a call is waited for at which a process is to die.
pub const DEATH_PATIENCE: Duration = Duration::from_secs(10 * MINUTE);

/// The zone that moves, as an edition has it.
pub fn moving(edition: usize) -> TimeZone {
    // POSIX counts offsets to the west.
    TimeZone::posix(&format!("SIM{}", -MOVING_OFFSETS[edition])).expect("a zone")
}
