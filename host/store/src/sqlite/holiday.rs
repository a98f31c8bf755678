//! Holiday calendars in SQLite.

use super::audit::record;
use super::row::{At, Id, Json, Word, after_name, limit, paged, signed, unsigned};
use super::{SqliteStore, trigger};
use crate::holidays::{Calendars, dates, excludes, in_json};
use crate::record::holiday_calendar as shown;
use crate::words::{holiday_calendar_used, no_holiday_calendar, too_many_holiday_calendars};
use crate::{HolidayStore, Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::holiday::{Holiday, HolidayCalendar, HolidayCalendarInfo, HolidayDates};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::HOLIDAY_CALENDARS_PER_TENANT_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::trigger::TriggerSpec;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[async_trait]
impl HolidayStore for SqliteStore {
    async fn holidays_put(
        &self,
        tenant: TenantId,
        name: &Name,
        holidays: Vec<Holiday>,
        change: Change,
    ) -> Result<HolidayCalendar, StoreError> {
        let (name, now) = (name.clone(), change.now);
        self.write(move |c| {
            super::tenant::by_id(c, tenant)?;
            let before = find(c, tenant, &name)?;
            if before.is_none() {
                let count: i64 = c.query_row(
                    "SELECT count(*) FROM holiday_calendar WHERE tenant_id = ?1",
                    [Id(tenant.0)],
                    |row| row.get(0),
                )?;
                if count >= signed(HOLIDAY_CALENDARS_PER_TENANT_MAX) {
                    return Err(too_many_holiday_calendars());
                }
            }
            let created_at = before.as_ref().map_or(now, |before| before.created_at);
            let after = HolidayCalendar { name, holidays, created_at, updated_at: now };
            c.execute(
                "INSERT INTO holiday_calendar (tenant_id, name, holidays, count, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (tenant_id, name) DO UPDATE SET holidays = excluded.holidays, count = excluded.count,
                     updated_at = excluded.updated_at",
                params![
                    Id(tenant.0),
                    after.name.as_str(),
                    Json(&after.holidays),
                    signed(after.holidays.len() as u64),
                    At(after.created_at),
                    At(after.updated_at),
                ],
            )?;
            let object = || format!("holiday calendar `{}`", after.name);
            record(c, &change, Some(tenant), object, || {
                (before.as_ref().map_or(Value::Null, shown), shown(&after))
            })?;
            Ok(after)
        })
        .await
    }

    async fn holidays_get(&self, tenant: TenantId, name: &Name) -> Result<HolidayCalendar, StoreError> {
        let name = name.clone();
        self.read(move |c| find(c, tenant, &name)?.ok_or_else(|| no_holiday_calendar(&name))).await
    }

    async fn holidays_list(
        &self,
        tenant: TenantId,
        page: Page,
    ) -> Result<Paged<HolidayCalendarInfo>, StoreError> {
        self.read(move |c| {
            let mut list = c.prepare_cached(
                "SELECT name, count, created_at, updated_at FROM holiday_calendar
                 WHERE tenant_id = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
            )?;
            let read = |row: &Row| {
                Ok(HolidayCalendarInfo {
                    name: row.get::<_, Word<_>>(0)?.0,
                    holidays: unsigned(row.get(1)?),
                    created_at: row.get::<_, At>(2)?.0,
                    updated_at: row.get::<_, At>(3)?.0,
                })
            };
            let rows = list.query_map(params![Id(tenant.0), after_name(&page)?, limit(&page)], read)?;
            let rows = rows.collect::<Result<_, _>>()?;
            Ok(paged(rows, &page, |last: &HolidayCalendarInfo| last.name.to_string()))
        })
        .await
    }

    async fn holidays_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(move |c| {
            let before = find(c, tenant, &name)?.ok_or_else(|| no_holiday_calendar(&name))?;
            // One that has finished can still be backfilled.
            let user = trigger::naming(c, tenant, &in_json(&name), |spec| excludes(spec, &name))?;
            if let Some(trigger) = user {
                return Err(holiday_calendar_used(&name, &trigger));
            }
            c.execute(
                "DELETE FROM holiday_calendar WHERE tenant_id = ?1 AND name = ?2",
                params![Id(tenant.0), name.as_str()],
            )?;
            let object = || format!("holiday calendar `{name}`");
            record(c, &change, Some(tenant), object, || (shown(&before), Value::Null))
        })
        .await
    }

    async fn holidays_dates(
        &self,
        tenant: TenantId,
        names: BTreeSet<Name>,
    ) -> Result<BTreeMap<Name, Arc<HolidayDates>>, StoreError> {
        self.read(move |c| {
            let mut found = BTreeMap::new();
            for name in names {
                if let Some(calendar) = find(c, tenant, &name)? {
                    found.insert(name, dates(&calendar.holidays));
                }
            }
            Ok(found)
        })
        .await
    }
}

fn find(c: &Connection, tenant: TenantId, name: &Name) -> Result<Option<HolidayCalendar>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT name, holidays, created_at, updated_at FROM holiday_calendar
         WHERE tenant_id = ?1 AND name = ?2",
    )?;
    let read = |row: &Row| {
        Ok(HolidayCalendar {
            name: row.get::<_, Word<_>>(0)?.0,
            holidays: row.get::<_, Json<_>>(1)?.0,
            created_at: row.get::<_, At>(2)?.0,
            updated_at: row.get::<_, At>(3)?.0,
        })
    };
    Ok(get.query_row(params![Id(tenant.0), name.as_str()], read).optional()?)
}

/// Refuses a trigger that excludes a calendar which isn't there.
pub(super) fn check(c: &Connection, tenant: TenantId, spec: &TriggerSpec) -> Result<(), StoreError> {
    let mut get = c.prepare_cached("SELECT 1 FROM holiday_calendar WHERE tenant_id = ?1 AND name = ?2")?;
    for name in &spec.exclude {
        if !get.exists(params![Id(tenant.0), name.as_str()])? {
            return Err(no_holiday_calendar(name));
        }
    }
    Ok(())
}

/// Looks for calendars.
pub(super) fn look(c: &Connection, calendars: &mut Calendars) -> Result<(), StoreError> {
    for ((tenant, name), found) in calendars {
        *found = match find(c, *tenant, name) {
            Ok(calendar) => calendar.map(|calendar| Ok(dates(&calendar.holidays))),
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(error) => Some(Err(error)),
        };
    }
    Ok(())
}
