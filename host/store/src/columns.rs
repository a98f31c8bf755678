//! What drivers put into columns alike, and how they make pages of rows.

use crate::{Page, Paged, StoreError, UsageFilter};
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::AuditOutcome;
use innkeeper_domain::bill::{Bill, day_number, day_of_number};
use innkeeper_domain::failure::FailureKind;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::AuditId;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::RunState;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::time::Duration;
use uuid::Uuid;

/// A whole number that isn't negative. Databases' are signed 64 bits.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// [`signed`]'s inverse.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A duration in microseconds, as stored.
pub(crate) fn micros(duration: Duration) -> i64 {
    signed(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Makes a page of up to one row more than it has: the surplus row tells that there is a next page.
pub(crate) fn paged<T>(mut items: Vec<T>, page: &Page, token: impl FnOnce(&T) -> String) -> Paged<T> {
    let more = items.len() > page.size;
    items.truncate(page.size);
    let next = items.last().filter(|_| more).map(token);
    Paged { items, next }
}

/// The `LIMIT` that goes with [`paged`].
pub(crate) fn limit(page: &Page) -> i64 {
    i64::try_from(page.size.saturating_add(1)).unwrap_or(i64::MAX)
}

/// The condition that a run is in one of these states; none for all.
pub(crate) fn in_states(states: &[RunState]) -> Option<String> {
    if states.is_empty() {
        return None;
    }
    let words: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    let condition = format!("r.state IN ({})", words.join(", "));
    let unsuccessful = |state: &RunState| matches!(state, RunState::Failed | RunState::Cancelled);
    // SQLite uses the index `run_unsuccessful` only for its very words.
    let index = if states.iter().all(unsuccessful) { " AND r.state IN ('failed', 'cancelled')" } else { "" };
    Some(condition + index)
}

/// The condition that a run failed by one of these kinds; none for all.
pub(crate) fn of_kinds(kinds: &[FailureKind]) -> Option<String> {
    let words: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
    (!words.is_empty()).then(|| format!("r.failure_kind IN ({})", words.join(", ")))
}

/// Each label as it is within `,` and all labels of a run and `,`.
pub(crate) fn labels(labels: &Labels) -> impl Iterator<Item = String> {
    labels.0.iter().map(|(key, value)| format!(",{key}={value},"))
}

/// The name that a page comes after, in a list by name; an empty one, which is before all, for the first.
pub(crate) fn after_name(page: &Page) -> Result<&str, StoreError> {
    let Some(token) = page.after.as_deref() else { return Ok("") };
    token.parse::<Name>().map_err(|_| bad_token())?;
    Ok(token)
}

/// What the ids of lines before this instant are less than; none if it is the last there is.
pub(crate) fn audit_ids_before(until: Timestamp) -> Option<AuditId> {
    let after = until.as_millisecond().checked_add(1)?;
    Timestamp::from_millisecond(after).ok().map(AuditId::first)
}

/// The very words of the indexes of what was not done, if an outcome other than that is wanted.
pub(crate) fn refused(outcome: Option<AuditOutcome>) -> &'static str {
    match outcome {
        None | Some(AuditOutcome::Done) => "",
        Some(_) => " AND outcome <> 'done'",
    }
}

/// A page token that isn't one.
pub(crate) fn bad_token() -> StoreError {
    StoreError::Invalid("the page token is not one that this list gave".into())
}

/// What a page of bills comes after.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BillToken {
    /// The first day that is wanted.
    pub first_day: i64,
    /// The day that goes on, and on it the last bill that was given; the page begins with those after it.
    pub day: i64,
    pub tenant: String,
    pub task: String,
    pub task_id: Uuid,
}

impl BillToken {
    /// What a page asks for.
    pub fn after(page: &Page, filter: &UsageFilter) -> Result<Self, StoreError> {
        let (first_day, last_day) = (number_of(filter.days.0), number_of(filter.days.1));
        let Some(token) = &page.after else {
            let (tenant, task, task_id) = (String::new(), String::new(), Uuid::nil());
            return Ok(Self { first_day, day: last_day, tenant, task, task_id });
        };
        let parts: Vec<&str> = token.split('/').collect();
        let [day, tenant, task, task_id] = parts.as_slice() else { return Err(bad_token()) };
        Ok(Self {
            first_day,
            day: day.parse::<i64>().map_err(|_| bad_token())?.min(last_day),
            tenant: tenant.parse::<Name>().map_err(|_| bad_token())?.to_string(),
            task: task.parse::<Name>().map_err(|_| bad_token())?.to_string(),
            task_id: Uuid::parse_str(task_id).map_err(|_| bad_token())?,
        })
    }

    /// The token of a page that ends with this bill.
    pub fn of(last: &Bill) -> String {
        format!("{}/{}/{}/{}", number_of(last.day), last.tenant, last.task, last.task_id)
    }
}

fn number_of(day: Date) -> i64 {
    let begin = TimeZone::UTC.to_timestamp(day.into());
    begin.map_or(if day.year() < 0 { i64::MIN } else { i64::MAX }, day_number)
}

/// The day of a stored number.
pub(crate) fn bill_day(number: i64) -> Result<Date, StoreError> {
    day_of_number(number).ok_or_else(|| StoreError::Corrupt(format!("{number} is not the number of a day")))
}
