-- Runs of a trigger for times that are past, asked for by hand.

CREATE TABLE backfill (
    id              UUID PRIMARY KEY,
    tenant_id       UUID NOT NULL REFERENCES tenant (id),
    trigger_id      UUID NOT NULL REFERENCES trigger (id),
    from_at         BIGINT NOT NULL,
    to_at           BIGINT NOT NULL,
    concurrency     BIGINT NOT NULL,
    again           TEXT NOT NULL,
    state           TEXT NOT NULL,
    -- The first nominal time that is not dealt with, and the last that it goes to.
    next_at         BIGINT,
    last_at         BIGINT NOT NULL,
    -- When it is to be taken a step further; none while it waits for the end of a run.
    wake_at         BIGINT,
    waits_for       TEXT,
    times           BIGINT NOT NULL,
    left_to_trigger BIGINT NOT NULL,
    created         BIGINT NOT NULL DEFAULT 0,
    left_out        BIGINT NOT NULL DEFAULT 0,
    unfinished      BIGINT NOT NULL DEFAULT 0,
    succeeded       BIGINT NOT NULL DEFAULT 0,
    failed          BIGINT NOT NULL DEFAULT 0,
    cancelled       BIGINT NOT NULL DEFAULT 0,
    created_at      BIGINT NOT NULL,
    finished_at     BIGINT
);
CREATE INDEX backfill_wake ON backfill (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX backfill_tenant ON backfill (tenant_id, id);
CREATE INDEX backfill_trigger ON backfill (trigger_id, id);
-- What the retention looks for.
CREATE INDEX backfill_finished ON backfill (finished_at) WHERE finished_at IS NOT NULL;

-- Its runs don't count for their trigger's overlap policy. Other runs don't write to the index: a trigger's own are
-- found by their occurrence.
ALTER TABLE run ADD COLUMN backfill_id UUID;
CREATE INDEX run_backfill ON run (trigger_id, nominal_at) WHERE backfill_id IS NOT NULL;
