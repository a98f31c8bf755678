//! What drivers put into columns alike, and how they make pages of rows.

use crate::{Page, Paged, StoreError};
use innkeeper_domain::name::Name;
use innkeeper_domain::run::RunState;
use std::time::Duration;

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

/// The name that a page comes after, in a list by name; an empty one, which is before all, for the first.
pub(crate) fn after_name(page: &Page) -> Result<&str, StoreError> {
    let Some(token) = page.after.as_deref() else { return Ok("") };
    token.parse::<Name>().map_err(|_| bad_token())?;
    Ok(token)
}

/// A page token that isn't one.
pub(crate) fn bad_token() -> StoreError {
    StoreError::Invalid("the page token is not one that this list gave".into())
}
