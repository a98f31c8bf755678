//! Which triggers exclude which holiday calendars, found alike by every driver.

use crate::{DueTrigger, StoreError};
use innkeeper_domain::holiday::{Holiday, HolidayDates, Holidays};
use innkeeper_domain::ids::{TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::trigger::TriggerSpec;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What is in the JSON of every trigger that excludes this calendar.
pub(crate) fn in_json(calendar: &Name) -> String {
    format!("\"{calendar}\"")
}

pub(crate) fn excludes(spec: &TriggerSpec, calendar: &Name) -> bool {
    spec.exclude.contains(calendar)
}

/// A due trigger as it was read, and whose.
pub(crate) type Found = (TriggerId, Result<(TenantId, DueTrigger), StoreError>);

/// Calendars that were looked for; none where there is none. One that can't be read says why.
pub(crate) type Calendars = BTreeMap<(TenantId, Name), Option<Result<Arc<HolidayDates>, StoreError>>>;

/// The calendars that due triggers exclude, each once, to be looked for.
pub(crate) fn wanted(found: &[Found]) -> Calendars {
    let due = found.iter().filter_map(|(_, due)| due.as_ref().ok());
    let keys = due.flat_map(|(tenant, due)| due.spec.exclude.iter().map(|name| (*tenant, name.clone())));
    keys.map(|key| (key, None)).collect()
}

pub(crate) fn dates(holidays: &[Holiday]) -> Arc<HolidayDates> {
    Arc::new(HolidayDates::of(holidays))
}

/// Adds those that became due last to those that are due the longest; they come as they are read, the last first.
pub(crate) fn add_latest(longest: &mut Vec<Found>, latest: Vec<Found>) {
    let known: HashSet<TriggerId> = longest.iter().map(|(id, _)| *id).collect();
    longest.extend(latest.into_iter().rev().filter(|(id, _)| !known.contains(id)));
}

/// Due triggers with the dates that they exclude.
pub(crate) fn with_holidays(
    found: Vec<Found>,
    calendars: &Calendars,
) -> Vec<(TriggerId, Result<DueTrigger, StoreError>)> {
    let of = |tenant: TenantId, spec: &TriggerSpec| {
        let excluded = spec.exclude.iter().filter_map(|name| calendars.get(&(tenant, name.clone()))?.clone());
        excluded.collect::<Result<Vec<_>, _>>().map(Holidays::of)
    };
    let filled = |(tenant, due): (TenantId, DueTrigger)| {
        let holidays = of(tenant, &due.spec)?;
        Ok(DueTrigger { holidays, ..due })
    };
    found.into_iter().map(|(id, due)| (id, due.and_then(filled))).collect()
}
