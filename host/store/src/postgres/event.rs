//! Events in PostgreSQL: published, read, delivered to triggers.

use super::connection::{in_transaction, reading};
use super::quota::Stored;
use super::row::{At, Json, Small, Word, execute, row, rows, signed, text, unsigned};
use super::{PostgresStore, Shard, audit, event_deliver, quota};
use crate::events::{object, published, suspended};
use crate::standing::Account;
use crate::{Deliver, EventStore, Look, NewEvent, Pending, PublishError, Published, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::event::{Ended, Event, HostTopic, Topic};
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::{EVENT_BYTES_PER_DECISION, EVENTS_PER_DECISION, STORED_BYTES_PER_EVENT};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::tenant::TenantState;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// No more data than so many bytes, but for one event.
const AFTER: &str = "SELECT sequence, id, topic, content_type, data, at, depth, run_id, task_id FROM (
        SELECT *, sum(octet_length(data)) OVER (ORDER BY sequence) - octet_length(data) AS before FROM (
            SELECT * FROM event WHERE tenant_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3) next) counted
    WHERE before <= $4::bigint ORDER BY sequence";

/// Not those of deleted tenants, which the retention clears away.
const PENDING: &str = "SELECT g.id, g.tenant_id, g.spec, g.after_task_id, g.paused_through, g.event_cursor,
        h.sequence, h.expired_at
    FROM event_head h JOIN trigger g ON g.tenant_id = h.tenant_id
    WHERE g.state = 'active' AND g.event_cursor IS NOT NULL AND (g.event_seen < h.sequence OR g.look_at <= $1)
        AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)
    ORDER BY g.looked_at NULLS FIRST, g.id LIMIT $2";

#[async_trait]
impl EventStore for PostgresStore {
    async fn events_publish(
        &self,
        tenant: TenantId,
        events: Vec<NewEvent>,
        change: Change,
    ) -> Result<Vec<Result<Published, PublishError>>, StoreError> {
        let results = in_transaction!(&self.shared.pool, |c| {
            let mut accounts = quota::accounts(c, &[tenant.0], change.now).await?;
            let account = accounts.get_mut(&tenant).ok_or_else(|| StoreError::NotFound("tenant".into()))?;
            if account.state == TenantState::Suspended {
                return Err(suspended());
            }
            let (mut head, at) = hold_head(c, tenant, change.now).await?;
            let mut known = same_ids(c, tenant, &events).await?;
            let mut new = NewRows::default();
            let mut results = Vec::with_capacity(events.len());
            for event in &events {
                let (topic, data) = (event.topic.as_str(), &event.data);
                results.push(match known.get(event.id.as_str()) {
                    Some((sequence, same)) if same.0 == topic && *same.1 == *data => {
                        Ok(Published { sequence: *sequence, existed: true })
                    }
                    Some(_) => Err(PublishError::IdTaken(event.id.clone())),
                    None => {
                        let bytes = STORED_BYTES_PER_EVENT + data.bytes.len() as u64;
                        account.quotas.check(Quota::StoredBytes, account.stored + account.adds, bytes)?;
                        account.adds += bytes;
                        head += 1;
                        let row = NewRow {
                            id: event.id.clone(),
                            topic,
                            data: Cow::Borrowed(data),
                            depth: 0,
                            ended: None,
                        };
                        new.push(tenant, head, at, row);
                        known.insert(event.id.clone(), (head, (topic.into(), Cow::Borrowed(data))));
                        Ok(Published { sequence: head, existed: false })
                    }
                });
            }
            new.insert(c).await?;
            step_head(c, tenant, head).await?;
            if let Some(after) = published(&events, &results) {
                audit::record(c, &change, Some(tenant), object(&events), (Value::Null, after)).await?;
            }
            quota::write(&self.shared, c, Shard::Starts, &accounts).await?;
            results
        })?;
        self.shared.wakes.events_changed();
        Ok(results)
    }

    async fn events_after(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        reading!(&self.shared.pool, |c| events_after(c, tenant, after, limit).await?)
    }

    async fn events_head(&self, tenant: TenantId) -> Result<u64, StoreError> {
        reading!(&self.shared.pool, |c| head(c, tenant).await?)
    }

    async fn events_pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Pending>, StoreError> {
        let most = signed(limit as u64);
        reading!(&self.shared.pool, |c| {
            let mut pending = Vec::new();
            for row in rows(c, PENDING, &[&At(now), &most]).await? {
                let id = TriggerId(row.try_get(0)?);
                match read_pending(&row) {
                    Ok(found) => {
                        let events = events_after(c, found.tenant, found.cursor, EVENTS_PER_DECISION).await?;
                        let more = events.last().is_some_and(|last| last.sequence < found.head);
                        pending.push(Pending { events, more, ..found });
                    }
                    Err(error) => {
                        tracing::error!(trigger = %id, %error, "a stored trigger can't be read; it starts nothing");
                    }
                }
            }
            pending
        })
    }

    async fn events_deliver(&self, deliver: Deliver, now: Timestamp) -> Result<u32, StoreError> {
        let all = event_deliver::deliver(&self.shared, &deliver, now).await?;
        if all.created > 0 {
            self.shared.wakes.runs_ready();
        }
        if !all.cancelled.is_empty() {
            self.shared.wakes.runs_changed(all.cancelled);
            self.shared.wakes.orders();
        }
        Ok(all.created)
    }

    async fn events_look(&self, looks: Vec<Look>, now: Timestamp) -> Result<u32, StoreError> {
        let column = |of: fn(&Look) -> u64| looks.iter().map(|look| signed(of(look))).collect::<Vec<i64>>();
        let ids: Vec<Uuid> = looks.iter().map(|look| look.id.0).collect();
        let (cursors, past) = (column(|look| look.cursor), column(|look| look.past));
        let seen = column(|look| look.seen);
        let look_at: Vec<Option<At>> = looks.iter().map(|look| look.look_at.map(At)).collect();
        let noted = in_transaction!(&self.shared.pool, |c| {
            execute(
                c,
                "WITH free AS MATERIALIZED (SELECT id FROM trigger WHERE id = ANY($1) AND state = 'active'
                     ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
                 UPDATE trigger g SET event_cursor = e.past, event_seen = e.seen, look_at = e.look_at, looked_at = $6
                 FROM free f JOIN unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                     AS e (id, cursor, past, seen, look_at) ON e.id = f.id
                 WHERE g.id = f.id AND g.event_cursor = e.cursor",
                &[&ids, &cursors, &past, &seen, &look_at, &At(now)],
            )
            .await?
        })?;
        Ok(u32::try_from(noted).unwrap_or(u32::MAX))
    }
}

fn read_pending(row: &Row) -> Result<Pending, StoreError> {
    let pending = Pending {
        id: TriggerId(row.try_get(0)?),
        tenant: TenantId(row.try_get(1)?),
        spec: row.try_get::<_, Json<_>>(2)?.0,
        after: row.try_get::<_, Option<_>>(3)?.map(TaskId),
        paused_through: row.try_get::<_, Option<At>>(4)?.map(|at| at.0),
        cursor: unsigned(row.try_get(5)?),
        events: Vec::new(),
        more: false,
        head: unsigned(row.try_get(6)?),
        expired_at: row.try_get::<_, Option<At>>(7)?.map(|at| at.0),
    };
    Ok(pending)
}

async fn events_after(
    c: &impl GenericClient,
    tenant: TenantId,
    after: u64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let (limit, bytes) = (signed(limit as u64), signed(EVENT_BYTES_PER_DECISION as u64));
    let found = rows(c, AFTER, &[&tenant.0, &signed(after), &limit, &bytes]).await?;
    found.iter().map(read_event).collect()
}

fn read_event(row: &Row) -> Result<Event, StoreError> {
    let topic: Topic = row.try_get::<_, Word<_>>(2)?.0;
    let (run, task) = (row.try_get::<_, Option<Uuid>>(7)?, row.try_get::<_, Option<Uuid>>(8)?);
    let ended = match (run, task, HostTopic::end_on(&topic)) {
        (Some(run), Some(task), Some(state)) => Some(Ended { run: RunId(run), task: TaskId(task), state }),
        _ => None,
    };
    Ok(Event {
        sequence: unsigned(row.try_get(0)?),
        id: row.try_get(1)?,
        topic,
        data: Payload { content_type: row.try_get(3)?, bytes: row.try_get(4)? },
        at: row.try_get::<_, At>(5)?.0,
        depth: row.try_get::<_, Small>(6)?.0,
        ended,
    })
}

/// The sequence of the last event.
pub(super) async fn head(c: &impl GenericClient, tenant: TenantId) -> Result<u64, StoreError> {
    let get = "SELECT sequence FROM event_head WHERE tenant_id = $1";
    Ok(row(c, get, &[&tenant.0]).await?.map(|found| found.try_get(0)).transpose()?.map_or(0, unsigned))
}

/// Keeps others from publishing until the transaction ends; the sequence of the last event, and the time of the next.
pub(super) async fn hold_head(
    c: &impl GenericClient,
    tenant: TenantId,
    now: Timestamp,
) -> Result<(u64, Timestamp), StoreError> {
    let hold = "INSERT INTO event_head AS h (tenant_id, sequence, at) VALUES ($1, 0, $2)
        ON CONFLICT (tenant_id) DO UPDATE SET at = greatest(h.at, EXCLUDED.at) RETURNING sequence, at";
    let found = row(c, hold, &[&tenant.0, &At(now)]).await?;
    let found = found.ok_or_else(|| StoreError::Corrupt("a tenant's events have no head".into()))?;
    Ok((unsigned(found.try_get(0)?), found.try_get::<_, At>(1)?.0))
}

/// Appends what a transaction has to tell of, as far as a trigger wants it.
pub(super) async fn tell(
    c: &impl GenericClient,
    accounts: &HashMap<TenantId, Account>,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    let mut telling: Vec<&Account> = accounts.values().filter(|account| !account.told.is_empty()).collect();
    telling.sort_by_key(|account| account.tenant);
    let mut new = NewRows::default();
    for account in telling {
        let tenant = account.tenant;
        let watches = "SELECT coalesce(bit_or(watches), 0) FROM trigger
            WHERE tenant_id = $1 AND watches <> 0 AND deleted_at IS NULL AND state <> 'finished'";
        let watches = row(c, watches, &[&tenant.0]).await?;
        let watches =
            watches.map(|row| row.try_get::<_, Small>(0)).transpose()?.map_or(0, |watches| watches.0);
        if account.told.iter().all(|event| watches & event.topic.bit() == 0) {
            continue;
        }
        let (mut last, at) = hold_head(c, tenant, account.now).await?;
        let once = account.told.iter().filter(|event| event.once).map(|event| event.id.as_str());
        let told = "SELECT id FROM event WHERE tenant_id = $1 AND id = ANY($2)";
        let told = rows(c, told, &[&tenant.0, &once.collect::<Vec<_>>()]).await?;
        let told: Vec<String> = told.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        for event in &account.told {
            if watches & event.topic.bit() != 0 && !told.contains(&event.id) {
                last += 1;
                let id = if event.once { event.id.clone() } else { format!("{}/{last}", event.id) };
                stored.add(tenant, signed(STORED_BYTES_PER_EVENT + event.data.bytes.len() as u64));
                let (topic, data) = (event.topic.as_str(), Cow::Borrowed(&event.data));
                new.push(tenant, last, at, NewRow { id, topic, data, depth: 0, ended: None });
            }
        }
        step_head(c, tenant, last).await?;
    }
    new.insert(c).await
}

/// Lets the tenant's last event have this sequence, under [`hold_head`].
pub(super) async fn step_head(c: &impl GenericClient, tenant: TenantId, last: u64) -> Result<(), StoreError> {
    let step = "UPDATE event_head SET sequence = $2 WHERE tenant_id = $1";
    execute(c, step, &[&tenant.0, &signed(last)]).await?;
    Ok(())
}

type Known<'a> = HashMap<String, (u64, (String, Cow<'a, Payload>))>;

/// The events that have one of these ids.
async fn same_ids<'a>(
    c: &impl GenericClient,
    tenant: TenantId,
    events: &[NewEvent],
) -> Result<Known<'a>, StoreError> {
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let get =
        "SELECT id, sequence, topic, content_type, data FROM event WHERE tenant_id = $1 AND id = ANY($2)";
    let mut known = HashMap::new();
    for row in rows(c, get, &[&tenant.0, &ids]).await? {
        let data = Payload { content_type: row.try_get(3)?, bytes: row.try_get(4)? };
        known.insert(row.try_get(0)?, (unsigned(row.try_get(1)?), (row.try_get(2)?, Cow::Owned(data))));
    }
    Ok(known)
}

/// An event to append.
pub(super) struct NewRow<'a> {
    pub id: String,
    pub topic: &'a str,
    pub data: Cow<'a, Payload>,
    pub depth: u32,
    pub ended: Option<(RunId, TaskId)>,
}

/// Events to insert, a column each.
#[derive(Default)]
pub(super) struct NewRows<'a> {
    tenants: Vec<Uuid>,
    sequences: Vec<i64>,
    ids: Vec<String>,
    topics: Vec<&'a str>,
    content_types: Vec<String>,
    data: Vec<Vec<u8>>,
    at: Vec<At>,
    depths: Vec<Small>,
    runs: Vec<Option<Uuid>>,
    tasks: Vec<Option<Uuid>>,
}

impl<'a> NewRows<'a> {
    pub fn push(&mut self, tenant: TenantId, sequence: u64, at: Timestamp, event: NewRow<'a>) {
        let data = event.data.into_owned();
        self.tenants.push(tenant.0);
        self.sequences.push(signed(sequence));
        self.ids.push(event.id);
        self.topics.push(event.topic);
        self.content_types.push(text(&data.content_type).into_owned());
        self.data.push(data.bytes);
        self.at.push(At(at));
        self.depths.push(Small(event.depth));
        self.runs.push(event.ended.map(|(run, _)| run.0));
        self.tasks.push(event.ended.map(|(_, task)| task.0));
    }

    pub async fn insert(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        execute(
            c,
            "INSERT INTO event (tenant_id, sequence, id, topic, content_type, data, at, depth, run_id, task_id)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bytea[],
                 $7::bigint[], $8::bigint[], $9::uuid[], $10::uuid[])",
            &[
                &self.tenants,
                &self.sequences,
                &self.ids,
                &self.topics,
                &self.content_types,
                &self.data,
                &self.at,
                &self.depths,
                &self.runs,
                &self.tasks,
            ],
        )
        .await?;
        Ok(())
    }
}
