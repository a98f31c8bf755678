-- Holiday calendars: dates on which the triggers that exclude them don't run.

CREATE TABLE holiday_calendar (
    tenant_id   UUID NOT NULL REFERENCES tenant (id),
    name        TEXT COLLATE "C" NOT NULL,
    -- As JSON, and how many they are.
    holidays    TEXT NOT NULL,
    count       BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
