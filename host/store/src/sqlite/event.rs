//! Events in SQLite: published, read, delivered to triggers.

use super::row::{At, Id, Json, Word, signed, unsigned};
use super::writer::{ROW, Size};
use super::{SqliteStore, audit, event_deliver, quota};
use crate::events::{object, published, suspended};
use crate::standing::Account;
use crate::{Deliver, EventStore, Look, NewEvent, Pending, PublishError, Published, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::event::{Delivered, Ended, Event, Given, HostTopic, Item, Topic};
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::{EVENT_BYTES_PER_DECISION, EVENTS_PER_DECISION, STORED_BYTES_PER_EVENT};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::tenant::TenantState;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::sync::Arc;

/// No more data than so many bytes, but for one event.
const AFTER: &str = "SELECT sequence, id, topic, content_type, data, at, depth, run_id, task_id FROM (
        SELECT *, sum(octet_length(data)) OVER (ORDER BY sequence) - octet_length(data) AS before FROM (
            SELECT * FROM event WHERE tenant_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3))
    WHERE before <= ?4 ORDER BY sequence";

/// Not those of deleted tenants, which the retention clears away.
const PENDING: &str = "SELECT g.id, g.tenant_id, g.spec, g.after_task_id, g.paused_through, g.event_cursor,
        h.sequence, h.expired_at
    FROM event_head h CROSS JOIN trigger g INDEXED BY trigger_events ON g.tenant_id = h.tenant_id
    WHERE g.state = 'active' AND g.event_cursor IS NOT NULL AND (g.event_seen < h.sequence OR g.look_at <= ?1)
        AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)
    ORDER BY g.looked_at, g.id LIMIT ?2";

#[async_trait]
impl EventStore for SqliteStore {
    async fn events_publish(
        &self,
        tenant: TenantId,
        events: Vec<NewEvent>,
        change: Change,
    ) -> Result<Vec<Result<Published, PublishError>>, StoreError> {
        let hints = Arc::clone(&self.hints);
        let bytes = events.iter().map(|event| ROW + event.data.bytes.len()).sum();
        let publish = move |c: &Connection| publish(c, tenant, &events, &change);
        self.writer.write_sized(Size::of(bytes), publish, move |_| hints.events_changed()).await
    }

    async fn events_after(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.read(move |c| events_after(c, tenant, after, limit)).await
    }

    async fn events_head(&self, tenant: TenantId) -> Result<u64, StoreError> {
        self.read(move |c| Ok(head(c, tenant)?.0)).await
    }

    async fn events_pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Pending>, StoreError> {
        let most = signed(limit as u64);
        self.read(move |c| {
            let mut list = c.prepare_cached(PENDING)?;
            let rows = list
                .query_map(params![At(now), most], |row| Ok((TriggerId(row.get::<_, Id>(0)?.0), read_pending(row))))?;
            let mut pending = Vec::new();
            for row in rows {
                match row? {
                    (_, Ok(found)) => pending.push(with_events(c, found)?),
                    (id, Err(error)) => {
                        tracing::error!(trigger = %id, %error, "a stored trigger can't be read; it starts nothing");
                    }
                }
            }
            Ok(pending)
        })
        .await
    }

    async fn events_deliver(&self, deliver: Deliver, now: Timestamp) -> Result<u32, StoreError> {
        let input = |item: &Item| match item {
            Item::Run(Delivered { input: Given::Payload(payload), .. }) => ROW + payload.bytes.len(),
            Item::Run(_) | Item::Skip(_) => ROW,
        };
        let bytes = deliver.delivery.items.iter().map(input).sum();
        self.write_advance(bytes, move |c| event_deliver::deliver(c, &deliver, now)).await
    }

    async fn events_look(&self, looks: Vec<Look>, now: Timestamp) -> Result<u32, StoreError> {
        self.write(move |c| {
            let mut note = c.prepare_cached(
                "UPDATE trigger SET event_cursor = ?3, event_seen = ?4, look_at = ?5, looked_at = ?6
                 WHERE id = ?1 AND event_cursor = ?2 AND state = 'active'",
            )?;
            let mut noted = 0;
            for look in &looks {
                let at = look.look_at.map(At);
                let [cursor, past, seen] = [look.cursor, look.past, look.seen].map(signed);
                noted += note.execute(params![Id(look.id.0), cursor, past, seen, at, At(now)])?;
            }
            Ok(u32::try_from(noted).unwrap_or(u32::MAX))
        })
        .await
    }
}

fn read_pending(row: &Row) -> rusqlite::Result<Pending> {
    let pending = Pending {
        id: TriggerId(row.get::<_, Id>(0)?.0),
        tenant: TenantId(row.get::<_, Id>(1)?.0),
        spec: row.get::<_, Json<_>>(2)?.0,
        after: row.get::<_, Option<Id>>(3)?.map(|id| TaskId(id.0)),
        paused_through: row.get::<_, Option<At>>(4)?.map(|at| at.0),
        cursor: unsigned(row.get(5)?),
        events: Vec::new(),
        more: false,
        head: unsigned(row.get(6)?),
        expired_at: row.get::<_, Option<At>>(7)?.map(|at| at.0),
    };
    Ok(pending)
}

fn with_events(c: &Connection, found: Pending) -> Result<Pending, StoreError> {
    let events = events_after(c, found.tenant, found.cursor, EVENTS_PER_DECISION)?;
    let more = events.last().is_some_and(|last| last.sequence < found.head);
    Ok(Pending { events, more, ..found })
}

fn events_after(
    c: &Connection,
    tenant: TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let mut list = c.prepare_cached(AFTER)?;
    let (limit, bytes) = (signed(limit as u64), signed(EVENT_BYTES_PER_DECISION as u64));
    let rows = list.query_map(params![Id(tenant.0), signed(after), limit, bytes], read_event)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_event(row: &Row) -> rusqlite::Result<Event> {
    let topic: Topic = row.get::<_, Word<_>>(2)?.0;
    let (run, task) = (row.get::<_, Option<Id>>(7)?, row.get::<_, Option<Id>>(8)?);
    let ended = match (run, task, HostTopic::end_on(&topic)) {
        (Some(run), Some(task), Some(state)) => {
            Some(Ended { run: RunId(run.0), task: TaskId(task.0), state })
        }
        _ => None,
    };
    Ok(Event {
        sequence: unsigned(row.get(0)?),
        id: row.get(1)?,
        topic,
        data: Payload { content_type: row.get(3)?, bytes: row.get(4)? },
        at: row.get::<_, At>(5)?.0,
        depth: row.get(6)?,
        ended,
    })
}

/// The sequence and the time of the last event.
pub(super) fn head(c: &Connection, tenant: TenantId) -> Result<(u64, Timestamp), StoreError> {
    let mut get = c.prepare_cached("SELECT sequence, at FROM event_head WHERE tenant_id = ?1")?;
    let found = get.query_row([Id(tenant.0)], |row| Ok((unsigned(row.get(0)?), row.get::<_, At>(1)?.0)));
    Ok(found.optional()?.unwrap_or((0, Timestamp::MIN)))
}

/// An event to append.
pub(super) struct NewRow<'a> {
    pub id: &'a str,
    pub topic: &'a str,
    pub data: &'a Payload,
    pub depth: u32,
    pub ended: Option<(RunId, TaskId)>,
}

/// Appends an event, and says its sequence. What it counts among stored bytes is the caller's to keep.
pub(super) fn append(
    c: &Connection,
    tenant: TenantId,
    event: &NewRow<'_>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut step = c.prepare_cached(
        "INSERT INTO event_head (tenant_id, sequence, at) VALUES (?1, 1, ?2)
         ON CONFLICT DO UPDATE SET sequence = sequence + 1, at = max(at, excluded.at) RETURNING sequence, at",
    )?;
    let (sequence, at) = step
        .query_row(params![Id(tenant.0), At(now)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, At>(1)?)))?;
    c.prepare_cached(
        "INSERT INTO event (tenant_id, sequence, id, topic, content_type, data, at, depth, run_id, task_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        Id(tenant.0),
        sequence,
        event.id,
        event.topic,
        event.data.content_type,
        event.data.bytes,
        at,
        event.depth,
        event.ended.map(|(run, _)| Id(run.0)),
        event.ended.map(|(_, task)| Id(task.0)),
    ])?;
    Ok(unsigned(sequence))
}

/// Appends what the transaction has to tell of, as far as a trigger wants it. Returns the bytes that are stored for it.
pub(super) fn tell(c: &Connection, account: &Account) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for event in &account.told {
        let mut get = c.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM trigger WHERE tenant_id = ?1 AND watches <> 0 AND watches & ?2 <> 0
                     AND deleted_at IS NULL AND state <> 'finished')
                 AND NOT EXISTS (SELECT 1 FROM event WHERE tenant_id = ?1 AND id = ?3)",
        )?;
        let id = match event.once {
            true => event.id.clone(),
            false => format!("{}/{}", event.id, head(c, account.tenant)?.0 + 1),
        };
        let new: bool =
            get.query_row(params![Id(account.tenant.0), event.topic.bit(), id], |row| row.get(0))?;
        if new {
            let row =
                NewRow { id: &id, topic: event.topic.as_str(), data: &event.data, depth: 0, ended: None };
            append(c, account.tenant, &row, account.now)?;
            bytes += STORED_BYTES_PER_EVENT + event.data.bytes.len() as u64;
        }
    }
    Ok(bytes)
}

fn publish(
    c: &Connection,
    tenant: TenantId,
    events: &[NewEvent],
    change: &Change,
) -> Result<Vec<Result<Published, PublishError>>, StoreError> {
    let missing = || StoreError::NotFound("tenant".into());
    let mut account = quota::account(c, tenant, change.now)?.ok_or_else(missing)?;
    if account.state == TenantState::Suspended {
        return Err(suspended());
    }
    let mut results = Vec::with_capacity(events.len());
    for event in events {
        let mut get = c.prepare_cached(
            "SELECT sequence, topic = ?3 AND content_type = ?4 AND data = ?5 FROM event WHERE tenant_id = ?1 AND id = ?2",
        )?;
        let (topic, data) = (event.topic.as_str(), &event.data);
        let same = params![Id(tenant.0), event.id, topic, data.content_type, data.bytes];
        let same =
            get.query_row(same, |row| Ok((unsigned(row.get(0)?), row.get::<_, bool>(1)?))).optional()?;
        results.push(match same {
            Some((sequence, true)) => Ok(Published { sequence, existed: true }),
            Some((_, false)) => Err(PublishError::IdTaken(event.id.clone())),
            None => {
                let bytes = STORED_BYTES_PER_EVENT + data.bytes.len() as u64;
                account.quotas.check(Quota::StoredBytes, account.stored + account.adds, bytes)?;
                account.adds += bytes;
                let row = NewRow { id: &event.id, topic, data, depth: 0, ended: None };
                Ok(Published { sequence: append(c, tenant, &row, change.now)?, existed: false })
            }
        });
    }
    if let Some(after) = published(events, &results) {
        audit::record(c, change, Some(tenant), || object(events), || (Value::Null, after.clone()))?;
    }
    quota::write(c, &account)?;
    Ok(results)
}
