-- What tenants may do and have: states, quotas, tokens, the audit log, usage, secrets.

ALTER TABLE tenant ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE tenant ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE tenant ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;
ALTER TABLE tenant ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}';
-- From then on its name is `~` and its id, so that others can have the name.
ALTER TABLE tenant ADD COLUMN deleted_at INTEGER;

-- Until now there were only the tokens of admin.token files, which come back when their hosts start.
DROP TABLE token;
CREATE TABLE token (
    hash        BLOB PRIMARY KEY,
    id          BLOB NOT NULL UNIQUE,
    tenant_id   BLOB REFERENCES tenant (id),
    role        TEXT NOT NULL,
    -- Names as JSON; none: every task.
    tasks       TEXT,
    proof       TEXT NOT NULL,
    note        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) WITHOUT ROWID;
CREATE INDEX token_tenant ON token (tenant_id, id);

-- Names a tenant without a reference: lines outlive it.
CREATE TABLE audit (
    id          BLOB PRIMARY KEY,
    at          INTEGER NOT NULL,
    tenant_id   BLOB,
    tenant      TEXT,
    actor       TEXT NOT NULL,
    role        TEXT,
    address     TEXT NOT NULL,
    action      TEXT NOT NULL,
    object      TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    before      TEXT NOT NULL,
    after       TEXT NOT NULL,
    count       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX audit_tenant ON audit (tenant_id, id) WHERE tenant_id IS NOT NULL;
-- Of all lines few are about what was refused.
CREATE INDEX audit_refused ON audit (id) WHERE outcome <> 'done';
CREATE INDEX audit_tenant_refused ON audit (tenant_id, id) WHERE outcome <> 'done';

-- What attempts and runs that ended on a day used. Each host writes rows of its own shard, so that hosts
-- don't wait for each other; the sum counts. Names its task, for that may be gone.
CREATE TABLE usage (
    tenant_id       BLOB NOT NULL,
    day             INTEGER NOT NULL,
    task_id         BLOB NOT NULL,
    shard           INTEGER NOT NULL,
    task            TEXT NOT NULL,
    runs            INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    cpu             INTEGER NOT NULL,
    wall            INTEGER NOT NULL,
    memory_seconds  INTEGER NOT NULL,
    input_bytes     INTEGER NOT NULL,
    output_bytes    INTEGER NOT NULL,
    log_bytes       INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, day, task_id, shard)
) WITHOUT ROWID;
-- What the retention looks for.
CREATE INDEX usage_day ON usage (day);
ALTER TABLE attempt ADD COLUMN cpu INTEGER NOT NULL DEFAULT 0;

-- Bytes of runs with their inputs, outputs and logs; the sum over the shards counts.
CREATE TABLE stored (
    tenant_id   BLOB NOT NULL,
    shard       INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, shard)
) WITHOUT ROWID;
INSERT INTO stored (tenant_id, shard, bytes)
    SELECT r.tenant_id, 0, sum(1024 + length(r.input) + coalesce(length(r.output), 0)
        + coalesce((SELECT sum(octet_length(l.text) + 32) FROM run_log l WHERE l.run_id = r.id), 0))
    FROM run r GROUP BY r.tenant_id;

-- Of tenants with a quota of starts: when the next start would be on time if they came evenly.
CREATE TABLE start_rate (
    tenant_id   BLOB PRIMARY KEY,
    on_time_at  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE secret (
    tenant_id   BLOB NOT NULL REFERENCES tenant (id),
    name        TEXT NOT NULL,
    key_id      TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
) WITHOUT ROWID;

-- Claims share what is ready between tenants, so each tenant's queue is a range of its own.
DROP INDEX run_ready;
DROP INDEX run_ready_requires;
CREATE INDEX run_ready ON run (requires, tenant_id, available_at, id) WHERE state IN ('queued', 'waiting');
DROP INDEX run_host;
CREATE INDEX run_host ON run (host_id, tenant_id) WHERE state = 'running';

-- What is cleared away of a tenant, and which those are.
CREATE INDEX tenant_deleted ON tenant (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX task_tenant ON task (tenant_id);
CREATE INDEX trigger_tenant ON trigger (tenant_id);
