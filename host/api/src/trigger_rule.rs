//! Between the protocol's rules of triggers and the domain's.

use crate::convert::{duration, from_duration, name};
use crate::proto;
use crate::status::invalid;
use crate::trigger_convert::schedule;
use crate::webhook::WEBHOOK_PATH;
use innkeeper_domain::Timestamp;
use innkeeper_domain::limits::EVENT_WAIT_MAX;
use innkeeper_domain::rule::{AfterRule, EventRule, Gather, Rule, WEBHOOK_TOLERANCE, WebhookRule};
use std::time::Duration;
use tonic::Status;

/// The longest wait of a debounce that says none, in debounces.
const MAX_WAIT_FACTOR: u32 = 10;

/// The wait of a batch that says none.
const BATCH_WAIT: Duration = Duration::from_secs(5);

/// The one rule that a new trigger has; not checked yet.
pub(crate) fn rule(request: &proto::CreateTriggerRequest, now: Timestamp) -> Result<Rule, Status> {
    match (&request.schedule, &request.event, &request.after, &request.webhook) {
        (_, None, None, None) => Ok(schedule(request.schedule.as_ref(), now)?.into()),
        (None, Some(rule), None, None) => Ok(event(rule)?.into()),
        (None, None, Some(rule), None) => Ok(after(rule)?.into()),
        (None, None, None, Some(rule)) => Ok(webhook(rule)?.into()),
        _ => Err(invalid(
            "a trigger has one rule: a schedule, events, another task, or a webhook; make several triggers",
        )),
    }
}

fn event(rule: &proto::EventRule) -> Result<EventRule, Status> {
    let expression = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Ok(EventRule {
        filter: expression(&rule.filter),
        input_from: expression(&rule.input_from),
        gather: gather(rule)?,
        ..EventRule::new(rule.pattern.parse().map_err(invalid)?)
    })
}

fn gather(rule: &proto::EventRule) -> Result<Option<Gather>, Status> {
    let wait = duration(rule.batch_wait, BATCH_WAIT, "the wait for a batch")?;
    match (rule.debounce, rule.batch) {
        (None, 0) if rule.max_wait.is_some() => {
            Err(invalid("a longest wait was asked for, and no debounce: say both"))
        }
        (None, 0) if rule.batch_wait.is_some() => {
            Err(invalid("a wait for a batch was asked for, and no batch: say both"))
        }
        (None, 0) => Ok(None),
        (None, size) => Ok(Some(Gather::Batch { size: size as usize, wait })),
        (debounce, 0) => {
            let quiet = duration(debounce, Duration::ZERO, "the debounce")?;
            let most = quiet.saturating_mul(MAX_WAIT_FACTOR).min(EVENT_WAIT_MAX);
            Ok(Some(Gather::Debounce { quiet, most: duration(rule.max_wait, most, "the longest wait")? }))
        }
        _ => Err(invalid("a debounce and a batch were asked for; a trigger has one of them")),
    }
}

fn after(rule: &proto::AfterRule) -> Result<AfterRule, Status> {
    let when = match rule.when.as_str() {
        "" => Default::default(),
        when => when.parse().map_err(invalid)?,
    };
    Ok(AfterRule { task: name(&rule.task, "the task that it comes after")?, when })
}

fn webhook(rule: &proto::WebhookRule) -> Result<WebhookRule, Status> {
    let scheme = match rule.scheme.as_str() {
        "" => Default::default(),
        scheme => scheme.parse().map_err(invalid)?,
    };
    Ok(WebhookRule {
        scheme,
        secret: name(&rule.secret, "the secret")?,
        tolerance: duration(rule.tolerance, WEBHOOK_TOLERANCE, "the tolerance")?,
    })
}

/// The rule of a trigger as people see it, in the field of its kind.
pub(crate) fn show(rule: &Rule, trigger: &mut proto::Trigger) {
    match rule {
        Rule::Schedule(schedule) => {
            trigger.schedule = Some(crate::trigger_convert::from_schedule(schedule));
        }
        Rule::Event(rule) => trigger.event = Some(from_event(rule)),
        Rule::After(AfterRule { task, when }) => {
            trigger.after = Some(proto::AfterRule { task: task.to_string(), when: when.to_string() });
        }
        Rule::Webhook(rule) => {
            trigger.webhook = Some(proto::WebhookRule {
                scheme: rule.scheme.to_string(),
                secret: rule.secret.to_string(),
                tolerance: Some(from_duration(rule.tolerance)),
                path: format!("{WEBHOOK_PATH}{}", trigger.id),
            });
        }
    }
}

fn from_event(rule: &EventRule) -> proto::EventRule {
    let mut shown = proto::EventRule {
        pattern: rule.pattern.to_string(),
        filter: rule.filter.clone().unwrap_or_default(),
        input_from: rule.input_from.clone().unwrap_or_default(),
        ..Default::default()
    };
    match rule.gather {
        None => {}
        Some(Gather::Debounce { quiet, most }) => {
            shown.debounce = Some(from_duration(quiet));
            shown.max_wait = Some(from_duration(most));
        }
        Some(Gather::Batch { size, wait }) => {
            shown.batch = u32::try_from(size).unwrap_or(u32::MAX);
            shown.batch_wait = Some(from_duration(wait));
        }
    }
    shown
}
