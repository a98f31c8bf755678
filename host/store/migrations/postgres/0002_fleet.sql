-- What a host says of itself, what tasks require of their host, and uploads that can be gone on with.

ALTER TABLE host ADD COLUMN name TEXT COLLATE "C" NOT NULL DEFAULT 'host';
ALTER TABLE host ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';
ALTER TABLE host ADD COLUMN labels TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN capacity BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN state TEXT NOT NULL DEFAULT 'active';

-- What lost hosts were told to be, for when hosts of their names come again.
CREATE TABLE host_told (
    name        TEXT COLLATE "C" PRIMARY KEY,
    state       TEXT NOT NULL
);

-- KEY=VALUE,KEY=VALUE in the order of the keys; empty for most.
ALTER TABLE run ADD COLUMN requires TEXT COLLATE "C" NOT NULL DEFAULT '';
DROP INDEX run_ready;
CREATE INDEX run_ready ON run (available_at, id) WHERE state IN ('queued', 'waiting') AND requires = '';
CREATE INDEX run_ready_requires ON run (requires, available_at, id)
    WHERE state IN ('queued', 'waiting') AND requires <> '';

CREATE TABLE upload (
    tenant_id   UUID NOT NULL REFERENCES tenant (id),
    digest      BYTEA NOT NULL,
    size        BIGINT NOT NULL,
    received    BIGINT NOT NULL DEFAULT 0,
    changed_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, digest)
);

CREATE TABLE upload_chunk (
    tenant_id   UUID NOT NULL,
    digest      BYTEA NOT NULL,
    first_byte  BIGINT NOT NULL,
    bytes       BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, digest, first_byte),
    FOREIGN KEY (tenant_id, digest) REFERENCES upload (tenant_id, digest) ON DELETE CASCADE
);
ALTER TABLE upload_chunk ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Compiled components, for hosts of one kind: the variant names engine, processor and key.
CREATE TABLE artifact (
    digest      BYTEA NOT NULL,
    variant     TEXT COLLATE "C" NOT NULL,
    bytes       BYTEA NOT NULL,
    PRIMARY KEY (digest, variant)
);
ALTER TABLE artifact ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Whoever deletes a task looks for its triggers, those too that are deleted.
DROP INDEX trigger_task;
CREATE INDEX trigger_task ON trigger (task_id);
-- What the retention looks for.
CREATE INDEX task_deleted ON task (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX trigger_deleted ON trigger (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX skip_last ON skip (last_at);

-- A task's runs that have not begun, and a trigger's among them: to cancel them must not take longer the more
-- runs there were before, for others wait meanwhile. Starts and claims write to it; ends don't.
CREATE INDEX run_unbegun ON run (task_id, id) WHERE state IN ('queued', 'waiting');
-- What people look for in a long history; only ends that are no success write to it. Lists of unfinished runs
-- have no index of their own: every start and every claim of every run would write to it.
CREATE INDEX run_unsuccessful ON run (tenant_id, id) WHERE state IN ('failed', 'cancelled');

-- Rows of runs change a few times within a second: what they leave behind is cleared away soon.
ALTER TABLE run SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
