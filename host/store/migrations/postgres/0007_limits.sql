-- Limits: gates that runs have to pass before they can be claimed; priorities; pauses of tasks and runs.

-- Of a task, of one of its keys, or of a trigger. A task's is kept as long as the task has limits, others as long as
-- runs hold a slot or wait. `kind` is the bit of it in runs' columns: 1 a trigger's, 2 a key's, 4 a task's.
CREATE TABLE gate (
    owner       UUID NOT NULL,
    kind        SMALLINT NOT NULL,
    key         TEXT NOT NULL,
    task_id     UUID NOT NULL,
    tenant_id   UUID NOT NULL,
    -- How many may hold a slot; any number if NULL.
    most        BIGINT,
    -- As `10/s`, and when the next would be on time if they came evenly.
    rate        TEXT,
    on_time_at  BIGINT,
    taken       BIGINT NOT NULL,
    held        BIGINT NOT NULL,
    -- Before that nobody need look.
    wake_at     BIGINT NOT NULL,
    PRIMARY KEY (owner, kind, key)
);
CREATE INDEX gate_open ON gate (tenant_id, wake_at) WHERE held > 0 AND (most IS NULL OR taken < most);
CREATE INDEX gate_tenant ON gate (tenant_id);

ALTER TABLE run ADD COLUMN priority SMALLINT NOT NULL DEFAULT 5;
-- The gates that it has to pass, those of which it holds a slot, and what keeps it from being claimed: 0 nothing, a
-- gate, or 8, somebody who paused it.
ALTER TABLE run ADD COLUMN gates SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN passed SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN hold SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN concurrency_key TEXT;
DROP INDEX run_ready;
CREATE INDEX run_ready ON run (requires, tenant_id, priority, available_at, id)
    WHERE state IN ('queued', 'waiting') AND hold = 0;
CREATE INDEX run_held_trigger ON run (trigger_id, nominal_at, id) WHERE hold = 1;
CREATE INDEX run_held_key ON run (task_id, concurrency_key, priority, available_at, id) WHERE hold = 2;
CREATE INDEX run_held_task ON run (task_id, priority, available_at, id) WHERE hold = 4;

ALTER TABLE task ADD COLUMN paused_at BIGINT;
ALTER TABLE task ADD COLUMN pause_note TEXT NOT NULL DEFAULT '';

-- Of tenants with a quota of begins: when the next attempt would begin on time if they came evenly.
CREATE TABLE begin_rate (
    tenant_id   UUID PRIMARY KEY,
    on_time_at  BIGINT NOT NULL
);
