-- Holiday calendars: dates on which the triggers that exclude them don't run.

CREATE TABLE holiday_calendar (
    tenant_id   BLOB NOT NULL REFERENCES tenant (id),
    name        TEXT NOT NULL,
    -- As JSON, and how many they are.
    holidays    TEXT NOT NULL,
    count       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
