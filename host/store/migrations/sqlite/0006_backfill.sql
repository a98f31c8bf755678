-- Runs of a trigger for times that are past, asked for by hand.

CREATE TABLE backfill (
    id              BLOB PRIMARY KEY,
    tenant_id       BLOB NOT NULL REFERENCES tenant (id),
    trigger_id      BLOB NOT NULL REFERENCES trigger (id),
    from_at         INTEGER NOT NULL,
    to_at           INTEGER NOT NULL,
    concurrency     INTEGER NOT NULL,
    again           TEXT NOT NULL,
    state           TEXT NOT NULL,
    -- The first nominal time that is not dealt with, and the last that it goes to.
    next_at         INTEGER,
    last_at         INTEGER NOT NULL,
    -- When it is to be taken a step further; none while it waits for the end of a run.
    wake_at         INTEGER,
    waits_for       TEXT,
    times           INTEGER NOT NULL,
    left_to_trigger INTEGER NOT NULL,
    created         INTEGER NOT NULL DEFAULT 0,
    left_out        INTEGER NOT NULL DEFAULT 0,
    unfinished      INTEGER NOT NULL DEFAULT 0,
    succeeded       INTEGER NOT NULL DEFAULT 0,
    failed          INTEGER NOT NULL DEFAULT 0,
    cancelled       INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER
);
CREATE INDEX backfill_wake ON backfill (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX backfill_tenant ON backfill (tenant_id, id);
CREATE INDEX backfill_trigger ON backfill (trigger_id, id);
-- What the retention looks for.
CREATE INDEX backfill_finished ON backfill (finished_at) WHERE finished_at IS NOT NULL;

-- Its runs don't count for their trigger's overlap policy. Other runs don't write to the index: a trigger's own are
-- found by their occurrence.
ALTER TABLE run ADD COLUMN backfill_id BLOB;
CREATE INDEX run_backfill ON run (trigger_id, nominal_at) WHERE backfill_id IS NOT NULL;
