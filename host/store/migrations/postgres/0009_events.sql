-- Messages on topics, and what starts runs when they come.

-- The last event of a tenant: whoever publishes holds the row, so that sequences are in the order of commits.
CREATE TABLE event_head (
    tenant_id  UUID PRIMARY KEY REFERENCES tenant (id),
    sequence   BIGINT NOT NULL,
    at         BIGINT NOT NULL,
    -- Of the last event that isn't kept any more.
    expired_at BIGINT
);
CREATE TABLE event (
    tenant_id    UUID NOT NULL REFERENCES tenant (id),
    sequence     BIGINT NOT NULL,
    id           TEXT NOT NULL,
    topic        TEXT NOT NULL,
    content_type TEXT NOT NULL,
    data         BYTEA NOT NULL,
    at           BIGINT NOT NULL,
    -- How many runs in a row led to it, each started by an event of the one before.
    depth        BIGINT NOT NULL DEFAULT 0,
    -- Of the end of a run.
    run_id       UUID,
    task_id      UUID,
    PRIMARY KEY (tenant_id, sequence)
);
CREATE UNIQUE INDEX event_id ON event (tenant_id, id);
-- What the retention looks for.
CREATE INDEX event_at ON event (at);

-- Of what follows events: the last that was dealt with, the last that was looked at, when to look again although no
-- other has come, and when it was last looked at.
ALTER TABLE trigger ADD COLUMN event_cursor BIGINT;
ALTER TABLE trigger ADD COLUMN event_seen BIGINT;
ALTER TABLE trigger ADD COLUMN look_at BIGINT;
ALTER TABLE trigger ADD COLUMN looked_at BIGINT;
-- The task that it comes after, and the ends of runs that its pattern wants, a bit each.
ALTER TABLE trigger ADD COLUMN after_task_id UUID;
ALTER TABLE trigger ADD COLUMN watches BIGINT NOT NULL DEFAULT 0;
CREATE INDEX trigger_events ON trigger (tenant_id, event_seen) WHERE state = 'active' AND event_cursor IS NOT NULL;
CREATE INDEX trigger_after ON trigger (after_task_id) WHERE after_task_id IS NOT NULL;
CREATE INDEX trigger_watches ON trigger (tenant_id) WHERE watches <> 0;
-- Whether triggers may come after it; and the ends of runs that any trigger of the tenant may want, so that the end of a
-- run that nobody waits for costs nothing.
ALTER TABLE task ADD COLUMN followed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tenant ADD COLUMN watched BIGINT NOT NULL DEFAULT 0;
-- How many runs in a row led to it, each started by an event of the one before.
ALTER TABLE run ADD COLUMN depth BIGINT NOT NULL DEFAULT 0;
