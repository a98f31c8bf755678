//! Holiday calendars in PostgreSQL.

use super::audit::record;
use super::connection::{in_transaction, reading};
use super::quota::{Counted, exclude};
use super::row::{At, Json, Word, after_name, execute, limit, paged, row, rows, signed, unsigned};
use super::tenant::hold;
use super::{PostgresStore, trigger};
use crate::holidays::{Calendars, dates, excludes, in_json};
use crate::record::holiday_calendar as shown;
use crate::words::{holiday_calendar_used, no_holiday_calendar, too_many_holiday_calendars};
use crate::{HolidayStore, Page, Paged, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::audit::Change;
use innkeeper_domain::holiday::{Holiday, HolidayCalendar, HolidayCalendarInfo, HolidayDates};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::HOLIDAY_CALENDARS_PER_TENANT_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::trigger::TriggerSpec;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::Row;
use uuid::Uuid;

#[async_trait]
impl HolidayStore for PostgresStore {
    async fn holidays_put(
        &self,
        tenant: TenantId,
        name: &Name,
        holidays: Vec<Holiday>,
        change: Change,
    ) -> Result<HolidayCalendar, StoreError> {
        let now = change.now;
        in_transaction!(&self.shared.pool, |c| {
            hold(c, tenant).await?;
            exclude(c, tenant, Counted::HolidayCalendars).await?;
            let before = find(c, tenant, name, "FOR NO KEY UPDATE").await?;
            if before.is_none() {
                let count = "SELECT count(*) FROM holiday_calendar WHERE tenant_id = $1";
                let count = row(c, count, &[&tenant.0]).await?;
                let count = count.map_or(Ok(0), |count| count.try_get::<_, i64>(0))?;
                if count >= signed(HOLIDAY_CALENDARS_PER_TENANT_MAX) {
                    return Err(too_many_holiday_calendars());
                }
            }
            let put = row(
                c,
                "INSERT INTO holiday_calendar (tenant_id, name, holidays, count, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $5)
                 ON CONFLICT (tenant_id, name) DO UPDATE SET holidays = excluded.holidays, count = excluded.count,
                     updated_at = excluded.updated_at
                 RETURNING name, holidays, created_at, updated_at",
                &[
                    &tenant.0,
                    &name.as_str(),
                    &Json(&holidays),
                    &signed(holidays.len() as u64),
                    &At(now),
                ],
            )
            .await?;
            let after = read_calendar(&put.ok_or_else(|| no_holiday_calendar(name))?)?;
            let difference = (before.as_ref().map_or(Value::Null, shown), shown(&after));
            record(c, &change, Some(tenant), format!("holiday calendar `{name}`"), difference).await?;
            after
        })
    }

    async fn holidays_get(&self, tenant: TenantId, name: &Name) -> Result<HolidayCalendar, StoreError> {
        reading!(&self.shared.pool, |c| {
            find(c, tenant, name, "").await?.ok_or_else(|| no_holiday_calendar(name))?
        })
    }

    async fn holidays_list(
        &self,
        tenant: TenantId,
        page: Page,
    ) -> Result<Paged<HolidayCalendarInfo>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let list = "SELECT name, count, created_at, updated_at FROM holiday_calendar
                WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3";
            let found = rows(c, list, &[&tenant.0, &after_name(&page)?, &limit(&page)]).await?;
            let read = |row: &Row| {
                Ok::<_, StoreError>(HolidayCalendarInfo {
                    name: row.try_get::<_, Word<_>>(0)?.0,
                    holidays: unsigned(row.try_get(1)?),
                    created_at: row.try_get::<_, At>(2)?.0,
                    updated_at: row.try_get::<_, At>(3)?.0,
                })
            };
            let found = found.iter().map(read).collect::<Result<_, _>>()?;
            paged(found, &page, |last: &HolidayCalendarInfo| last.name.to_string())
        })
    }

    async fn holidays_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            // A trigger that is about to exclude it waits for this, or this for it.
            let before =
                find(c, tenant, name, "FOR UPDATE").await?.ok_or_else(|| no_holiday_calendar(name))?;
            // One that has finished can still be backfilled.
            let user = trigger::naming(c, tenant, &in_json(name), |spec| excludes(spec, name)).await?;
            if let Some(trigger) = user {
                return Err(holiday_calendar_used(name, &trigger));
            }
            let delete = "DELETE FROM holiday_calendar WHERE tenant_id = $1 AND name = $2";
            execute(c, delete, &[&tenant.0, &name.as_str()]).await?;
            let difference = (shown(&before), Value::Null);
            record(c, &change, Some(tenant), format!("holiday calendar `{name}`"), difference).await?;
        })
    }

    async fn holidays_dates(
        &self,
        tenant: TenantId,
        names: BTreeSet<Name>,
    ) -> Result<BTreeMap<Name, Arc<HolidayDates>>, StoreError> {
        let mut calendars: Calendars = names.into_iter().map(|name| ((tenant, name), None)).collect();
        reading!(&self.shared.pool, |c| look(c, &mut calendars).await?)?;
        let found = calendars.into_iter().filter_map(|((_, name), found)| Some((name, found?)));
        found.map(|(name, dates)| Ok((name, dates?))).collect()
    }
}

fn read_calendar(row: &Row) -> Result<HolidayCalendar, StoreError> {
    Ok(HolidayCalendar {
        name: row.try_get::<_, Word<_>>(0)?.0,
        holidays: row.try_get::<_, Json<_>>(1)?.0,
        created_at: row.try_get::<_, At>(2)?.0,
        updated_at: row.try_get::<_, At>(3)?.0,
    })
}

/// With its row locked as `lock` says.
async fn find(
    c: &impl GenericClient,
    tenant: TenantId,
    name: &Name,
    lock: &'static str,
) -> Result<Option<HolidayCalendar>, StoreError> {
    let get = format!(
        "SELECT name, holidays, created_at, updated_at FROM holiday_calendar
         WHERE tenant_id = $1 AND name = $2 {lock}"
    );
    row(c, &get, &[&tenant.0, &name.as_str()]).await?.as_ref().map(read_calendar).transpose()
}

/// Refuses a trigger that excludes a calendar which isn't there, and keeps those that it excludes until the end of the
/// transaction.
pub(super) async fn check(
    c: &impl GenericClient,
    tenant: TenantId,
    spec: &TriggerSpec,
) -> Result<(), StoreError> {
    let get = "SELECT 1 FROM holiday_calendar WHERE tenant_id = $1 AND name = $2 FOR KEY SHARE";
    for name in &spec.exclude {
        row(c, get, &[&tenant.0, &name.as_str()]).await?.ok_or_else(|| no_holiday_calendar(name))?;
    }
    Ok(())
}

/// Looks for calendars.
pub(super) async fn look(c: &impl GenericClient, calendars: &mut Calendars) -> Result<(), StoreError> {
    if calendars.is_empty() {
        return Ok(());
    }
    let (tenants, names): (Vec<Uuid>, Vec<&str>) =
        calendars.keys().map(|(tenant, name)| (tenant.0, name.as_str())).unzip();
    let found = rows(
        c,
        "SELECT h.name, h.holidays, h.tenant_id FROM holiday_calendar h
             JOIN unnest($1::uuid[], $2::text[]) AS e (tenant_id, name)
                 ON h.tenant_id = e.tenant_id AND h.name = e.name",
        &[&tenants, &names],
    )
    .await?;
    for row in &found {
        let key = (TenantId(row.try_get(2)?), row.try_get::<_, Word<_>>(0)?.0);
        let read = row.try_get::<_, Json<Vec<Holiday>>>(1);
        let read = read.map(|holidays| dates(&holidays.0)).map_err(StoreError::from);
        calendars.insert(key, Some(read));
    }
    Ok(())
}
