-- When triggers are due beside their nominal times, and what those were reckoned from.

-- The nominal time and its jitter: when the scheduler turns to the trigger.
ALTER TABLE trigger ADD COLUMN due_at INTEGER;
-- Of a fixed delay, how long after the end of its run it is due again.
ALTER TABLE trigger ADD COLUMN delay INTEGER;
ALTER TABLE trigger ADD COLUMN not_after INTEGER;
-- The last nominal time that is accounted for, and the civil time less UTC then, in seconds.
ALTER TABLE trigger ADD COLUMN covered_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE trigger ADD COLUMN covered_offset INTEGER NOT NULL DEFAULT 0;
-- The edition of the zones that the next nominal time was reckoned by; empty if no zone matters.
ALTER TABLE trigger ADD COLUMN zone_edition TEXT NOT NULL DEFAULT '';
UPDATE trigger SET due_at = next_at,
    covered_at = max(created_at, coalesce(last_nominal, 0),
        coalesce((SELECT max(last_at) FROM skip WHERE trigger_id = trigger.id), 0));
DROP INDEX trigger_due;
CREATE INDEX trigger_due ON trigger (due_at) WHERE state = 'active';
CREATE INDEX trigger_edition ON trigger (zone_edition, id) WHERE state <> 'finished' AND zone_edition <> '';
