-- Deadlines, forced cancels, retries by hand and labels of runs; pauses of tenants and of the whole fleet.

ALTER TABLE run ADD COLUMN start_by INTEGER;
ALTER TABLE run ADD COLUMN end_by INTEGER;
-- Of a run that executes and is to be cancelled: when it is ended, whatever its host does.
ALTER TABLE run ADD COLUMN cancel_by INTEGER;
-- When somebody last wanted it tried again though it was over.
ALTER TABLE run ADD COLUMN reopened_at INTEGER;
-- KEY=VALUE,KEY=VALUE in the order of the keys; empty for most.
ALTER TABLE run ADD COLUMN labels TEXT NOT NULL DEFAULT '';
-- What has passed its time. Runs without deadlines write to none of these.
CREATE INDEX run_start_by ON run (start_by) WHERE start_by IS NOT NULL AND state = 'queued' AND started_at IS NULL;
CREATE INDEX run_end_by ON run (end_by) WHERE end_by IS NOT NULL AND state IN ('queued', 'waiting', 'running');
CREATE INDEX run_cancel_by ON run (cancel_by) WHERE cancel_by IS NOT NULL AND state = 'running';
CREATE INDEX run_labelled ON run (tenant_id, id) WHERE labels <> '';

-- By its owner; none when it isn't paused.
ALTER TABLE tenant ADD COLUMN paused_at INTEGER;
ALTER TABLE tenant ADD COLUMN pause_note TEXT NOT NULL DEFAULT '';

-- One row while the fleet is paused. Hosts have it in their own rows too, which their claims hold.
CREATE TABLE fleet_pause (
    id          INTEGER PRIMARY KEY,
    note        TEXT NOT NULL,
    at          INTEGER NOT NULL
);
ALTER TABLE host ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
