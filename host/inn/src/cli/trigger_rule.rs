//! Rules of triggers on the command line: what they start runs on, beside schedules.

use super::trigger_next::{Given, ScheduleOptions, every, refuse_stray};
use super::{Usage, output, parse, task};
use anyhow::Result;
use innkeeper_api::proto::schedule::Kind;
use innkeeper_api::proto::{AfterRule, CreateTriggerRequest, EventRule, Schedule, Trigger, WebhookRule};
use std::time::Duration;

/// What starts the runs: a schedule, or one of these.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RuleOptions {
    #[command(flatten)]
    schedule: ScheduleOptions,
    /// Events on topics like this: `*` is any one segment, `**` at the end any further ones
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["after", "webhook", "schedule"])]
    on_event: Option<String>,
    /// Only events of which this is true: CEL over data, topic, id, time, content_type
    #[arg(long, value_name = "EXPR", requires = "on_event")]
    filter: Option<String>,
    /// The run's input: CEL over the same names; over `events` with --batch [default: the event as JSON]
    #[arg(long, value_name = "EXPR", requires = "on_event")]
    input_from: Option<String>,
    /// One run for the last event when none has come for so long
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "on_event", conflicts_with = "batch")]
    debounce: Option<Duration>,
    /// The longest that --debounce waits after its first event [default: 10 times as long]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "debounce")]
    max_wait: Option<Duration>,
    /// One run for so many events
    #[arg(long, value_name = "N", requires = "on_event")]
    batch: Option<u32>,
    /// The longest that --batch waits after its first event [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "batch")]
    batch_wait: Option<Duration>,
    /// The end of this task's runs; their output is the input
    #[arg(long, value_name = "TASK", conflicts_with_all = ["webhook", "schedule"])]
    after: Option<String>,
    /// Which of its ends: success, failure or any
    #[arg(long, value_name = "END", requires = "after")]
    when: Option<String>,
    /// Requests to a URL of its own, signed as STANDARD webhooks are, or as GITHUB's or STRIPE's
    #[arg(
        long,
        value_name = "standard|github|stripe",
        requires = "webhook_secret",
        conflicts_with = "schedule"
    )]
    webhook: Option<String>,
    /// The secret that requests are signed with (`inn secret set`)
    #[arg(long, value_name = "NAME", requires = "webhook")]
    webhook_secret: Option<String>,
    /// How far the time of a signature may be from the host's [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "webhook")]
    webhook_tolerance: Option<Duration>,
}

impl RuleOptions {
    /// Whether runs have an input of their own, made of what starts them.
    pub fn gives_input(&self) -> bool {
        self.on_event.is_some() || self.after.is_some() || self.webhook.is_some()
    }

    /// Its options that are for one rule, or for another option.
    fn given(&self) -> [Given; 9] {
        let event = (self.on_event.is_some(), "--on-event");
        let after = (self.after.is_some(), "--after");
        let webhook = (self.webhook.is_some(), "--webhook");
        let debounce = (self.debounce.is_some(), "--debounce");
        let batch = (self.batch.is_some(), "--batch");
        [
            Given(self.filter.is_some(), "--filter", event),
            Given(self.input_from.is_some(), "--input-from", event),
            Given(self.debounce.is_some(), "--debounce", event),
            Given(self.max_wait.is_some(), "--max-wait", debounce),
            Given(self.batch.is_some(), "--batch", event),
            Given(self.batch_wait.is_some(), "--batch-wait", batch),
            Given(self.when.is_some(), "--when", after),
            Given(self.webhook_secret.is_some(), "--webhook-secret", webhook),
            Given(self.webhook_tolerance.is_some(), "--webhook-tolerance", webhook),
        ]
    }

    /// Says it in a request.
    pub fn write(self, request: &mut CreateTriggerRequest) -> Result<()> {
        refuse_stray(&self.given())?;
        let wire = |duration: Option<Duration>| duration.map(task::wire).transpose();
        if let Some(pattern) = self.on_event {
            request.event = Some(EventRule {
                pattern,
                filter: self.filter.unwrap_or_default(),
                input_from: self.input_from.unwrap_or_default(),
                debounce: wire(self.debounce)?,
                max_wait: wire(self.max_wait)?,
                batch: match self.batch {
                    Some(0) => return Err(Usage("a batch is of 2 events or more".into()).into()),
                    batch => batch.unwrap_or_default(),
                },
                batch_wait: wire(self.batch_wait)?,
            });
        } else if let Some(task) = self.after {
            request.after = Some(AfterRule { task, when: self.when.unwrap_or_default() });
        } else if let Some(scheme) = self.webhook {
            let (secret, tolerance) =
                (self.webhook_secret.unwrap_or_default(), wire(self.webhook_tolerance)?);
            request.webhook = Some(WebhookRule { scheme, secret, tolerance, path: String::new() });
        } else if self.schedule.is_empty() {
            let what = "say on what: --cron EXPR, --every DURATION, --at INSTANT, --on-event PATTERN, --after TASK or \
                        --webhook SCHEME";
            return Err(Usage(what.into()).into());
        } else {
            request.schedule = Some(self.schedule.wire()?);
        }
        Ok(())
    }
}

/// A rule as people write it.
pub fn words(trigger: &Trigger) -> String {
    if let Some(event) = &trigger.event {
        return on_event(event);
    }
    if let Some(AfterRule { task, when }) = &trigger.after {
        return format!("after {task} ({when})");
    }
    if let Some(webhook) = &trigger.webhook {
        return format!("webhook, {}", webhook.scheme);
    }
    trigger.schedule.as_ref().map_or_else(String::new, schedule)
}

fn on_event(rule: &EventRule) -> String {
    let mut words = format!("on {}", rule.pattern);
    if let Some(quiet) = rule.debounce {
        words.push_str(&format!(", quiet for {}", time(Some(quiet))));
    }
    if rule.batch > 0 {
        words.push_str(&format!(", {} at a time", rule.batch));
    }
    words
}

fn schedule(schedule: &Schedule) -> String {
    match &schedule.kind {
        Some(Kind::Cron(cron)) if cron.dialect == "crontab" => {
            format!("cron {} {}", cron.expression, cron.time_zone)
        }
        Some(Kind::Cron(cron)) => format!("cron {} {} ({})", cron.expression, cron.time_zone, cron.dialect),
        Some(Kind::Interval(interval)) => format!("every {}", time(interval.every)),
        Some(Kind::FixedDelay(fixed)) => format!("{} after each run", time(fixed.delay)),
        Some(Kind::Once(at)) => format!("at {}", output::instant(Some(*at))),
        None => String::new(),
    }
}

/// A duration as people write it.
pub fn time(duration: Option<prost_types::Duration>) -> String {
    every(duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default())
}

/// What there is to tell of a rule beside its words, by name.
pub fn facts(trigger: &Trigger) -> Vec<(&'static str, String)> {
    let event = trigger.event.clone().unwrap_or_default();
    let webhook = trigger.webhook.clone().unwrap_or_default();
    let given =
        |duration: Option<prost_types::Duration>| duration.map_or_else(String::new, |d| time(Some(d)));
    let behind = trigger.behind.filter(|_| trigger.event.is_some() || trigger.after.is_some());
    vec![
        ("filter", event.filter),
        ("input from", event.input_from),
        ("waits at most", given(event.max_wait.or(event.batch_wait))),
        ("behind", behind.map_or_else(String::new, |events| format!("{events} events"))),
        ("url", webhook.path),
        ("secret", webhook.secret),
        ("tolerance", given(webhook.tolerance)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        rule: RuleOptions,
    }

    const RULES: &[&str] = &[
        "--on-event x.*",
        "--on-event x.* --debounce 5s",
        "--on-event x.* --batch 5",
        "--after ship",
        "--webhook github --webhook-secret hook",
        "--every 5s",
        "--cron @daily",
        "--at 2030-01-31T09:00:00Z",
    ];

    /// Options, and how the rules begin that they go with.
    const OPTIONS: &[(&str, &[&str])] = &[
        ("--filter true", &["--on-event"]),
        ("--input-from data", &["--on-event"]),
        ("--debounce 3s", &["--on-event x.*"]),
        ("--max-wait 1m", &["--on-event x.* --debounce"]),
        ("--batch 7", &["--on-event x.*"]),
        ("--batch-wait 1m", &["--on-event x.* --batch"]),
        ("--when failure", &["--after"]),
        ("--webhook-secret other", &["--webhook"]),
        ("--webhook-tolerance 1m", &["--webhook"]),
        ("--tz UTC", &["--cron"]),
        ("--dialect quartz", &["--cron"]),
        ("--gap skip", &["--cron"]),
        ("--fold twice", &["--cron"]),
        ("--fixed-delay", &["--every"]),
    ];

    #[test]
    fn what_is_for_another_rule_is_refused() {
        for rule in RULES {
            for (option, with) in OPTIONS {
                let line = format!("inn {rule} {option}");
                let written = Line::try_parse_from(line.split(' '))
                    .map_err(anyhow::Error::from)
                    .and_then(|line| line.rule.write(&mut CreateTriggerRequest::default()));
                let name = option.split(' ').next().unwrap();
                // Said twice, or one way to gather beside the other.
                let at_odds = rule.contains(name)
                    || rule.contains("--debounce") && name == "--batch"
                    || rule.contains("--batch") && name == "--debounce";
                let belongs = with.iter().any(|with| rule.starts_with(with)) && !at_odds;
                assert_eq!(written.is_ok(), belongs, "{line}: {written:?}");
            }
        }
        let stray = Line::try_parse_from("inn --after ch --filter true".split(' ')).unwrap();
        let refused = stray.rule.write(&mut CreateTriggerRequest::default()).unwrap_err();
        assert!(refused.is::<Usage>() && refused.to_string() == "--filter goes with --on-event", "{refused}");
    }
}
