-- Ids are 16 bytes (UUIDv7), instants are microseconds since 1970 in UTC, specs are JSON.

CREATE TABLE tenant (
    id          BLOB PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- A token with no tenant is for all of them.
CREATE TABLE token (
    hash        BLOB PRIMARY KEY,
    tenant_id   BLOB REFERENCES tenant (id),
    role        TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- The bytes are files, stored once however many tenants have uploaded them.
CREATE TABLE component (
    tenant_id   BLOB NOT NULL REFERENCES tenant (id),
    digest      BLOB NOT NULL,
    size        INTEGER NOT NULL,
    shape       TEXT NOT NULL,
    adapted     INTEGER NOT NULL,
    imports     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, digest)
) WITHOUT ROWID;
CREATE INDEX component_newest ON component (tenant_id, created_at, digest);

CREATE TABLE task (
    id          BLOB PRIMARY KEY,
    tenant_id   BLOB NOT NULL REFERENCES tenant (id),
    name        TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    unfinished  INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    deleted_at  INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX task_name ON task (tenant_id, name) WHERE deleted_at IS NULL;

CREATE TABLE task_revision (
    task_id     BLOB NOT NULL REFERENCES task (id),
    number      INTEGER NOT NULL,
    component   BLOB NOT NULL,
    spec        TEXT NOT NULL,
    rollback_of INTEGER,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (task_id, number)
) WITHOUT ROWID;
CREATE INDEX task_revision_component ON task_revision (component);

CREATE TABLE trigger (
    id                   BLOB PRIMARY KEY,
    tenant_id            BLOB NOT NULL REFERENCES tenant (id),
    task_id              BLOB NOT NULL REFERENCES task (id),
    name                 TEXT NOT NULL,
    spec                 TEXT NOT NULL,
    input_type           TEXT NOT NULL,
    input                BLOB NOT NULL,
    state                TEXT NOT NULL,
    pause_note           TEXT NOT NULL DEFAULT '',
    paused_at            INTEGER,
    paused_through       INTEGER,
    next_at              INTEGER,
    last_nominal         INTEGER,
    last_success_nominal INTEGER,
    started              INTEGER NOT NULL DEFAULT 0,
    skipped              INTEGER NOT NULL DEFAULT 0,
    unfinished           INTEGER NOT NULL DEFAULT 0,
    created_at           INTEGER NOT NULL,
    deleted_at           INTEGER
);
CREATE UNIQUE INDEX trigger_name ON trigger (tenant_id, name) WHERE deleted_at IS NULL;
CREATE INDEX trigger_task ON trigger (task_id) WHERE deleted_at IS NULL;
CREATE INDEX trigger_due ON trigger (next_at) WHERE state = 'active';

CREATE TABLE skip (
    id          INTEGER PRIMARY KEY,
    trigger_id  BLOB NOT NULL REFERENCES trigger (id),
    first_at    INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    reason      TEXT NOT NULL
);
CREATE INDEX skip_trigger ON skip (trigger_id, id);

CREATE TABLE run (
    id                   BLOB PRIMARY KEY,
    tenant_id            BLOB NOT NULL,
    task_id              BLOB NOT NULL,
    revision             INTEGER NOT NULL,
    trigger_id           BLOB,
    -- What makes it one of its trigger's: for cron, interval and once the nominal time.
    occurrence           TEXT,
    nominal_at           INTEGER NOT NULL,
    last_success_nominal INTEGER,
    state                TEXT NOT NULL,
    attempt              INTEGER NOT NULL DEFAULT 0,
    -- Attempts that ended without an outcome, and those of them whose host was lost.
    interruptions        INTEGER NOT NULL DEFAULT 0,
    losses               INTEGER NOT NULL DEFAULT 0,
    host_id              BLOB,
    idempotency_key      TEXT,
    cancel_requested     INTEGER NOT NULL DEFAULT 0,
    progress             TEXT,
    created_at           INTEGER NOT NULL,
    available_at         INTEGER NOT NULL,
    started_at           INTEGER,
    finished_at          INTEGER,
    failure_kind         TEXT,
    failure_code         TEXT,
    failure_message      TEXT,
    input_type           TEXT NOT NULL,
    output_type          TEXT,
    input                BLOB NOT NULL,
    output               BLOB
);
CREATE INDEX run_ready ON run (available_at, id) WHERE state IN ('queued', 'waiting');
CREATE INDEX run_host ON run (host_id) WHERE state = 'running';
CREATE INDEX run_tenant ON run (tenant_id, id);
CREATE INDEX run_task ON run (task_id, id);
CREATE UNIQUE INDEX run_occurrence ON run (trigger_id, occurrence) WHERE trigger_id IS NOT NULL;
CREATE UNIQUE INDEX run_idempotency ON run (task_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE attempt (
    run_id          BLOB NOT NULL,
    number          INTEGER NOT NULL,
    host_id         BLOB NOT NULL,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER NOT NULL,
    failure_kind    TEXT,
    failure_code    TEXT,
    failure_message TEXT,
    wall            INTEGER NOT NULL,
    peak_memory     INTEGER NOT NULL,
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID;

CREATE TABLE run_log (
    run_id      BLOB NOT NULL,
    attempt     INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    level       INTEGER NOT NULL,
    text        TEXT NOT NULL,
    PRIMARY KEY (run_id, attempt, sequence)
) WITHOUT ROWID;

-- One row for each life of a host process.
CREATE TABLE host (
    id          BLOB PRIMARY KEY,
    started_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL
) WITHOUT ROWID;
