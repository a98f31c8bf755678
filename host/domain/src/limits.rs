//! Every bound, with its unit. What a user can reach is refused with the bound's value in the error.

mod audit;
mod component;
mod outbound;
mod scratch;

pub use audit::*;
pub use component::*;
pub use outbound::*;
pub use scratch::*;
use std::time::Duration;

/// One kibibyte.
pub const KIB: u64 = 1024;
/// One mebibyte.
pub const MIB: u64 = 1024 * KIB;

// Tenants.

/// The greatest weight of a tenant.
pub const TENANT_WEIGHT_MAX: u32 = 1_000;
/// Tenants of one host or fleet.
pub const TENANTS_MAX: u64 = 10_000;
/// Tasks that a token may be restricted to.
pub const TOKEN_TASKS_MAX: usize = 100;
/// Tokens of one tenant that are neither expired nor revoked.
pub const TOKENS_PER_TENANT_MAX: u64 = 1_000;
/// Secrets of one tenant.
pub const SECRETS_PER_TENANT_MAX: u64 = 1_000;
/// Secrets that a task may name.
pub const TASK_SECRETS_MAX: usize = 64;
/// The least bytes of a secret: shorter ones could not be masked in logs without masking much else.
pub const SECRET_BYTES_MIN: usize = 4;
/// The most bytes of a secret.
pub const SECRET_BYTES_MAX: usize = 32 * 1024;
/// The most bytes of all secrets that one attempt is shown: its log is searched for each of them.
pub const ATTEMPT_SECRETS_BYTES_MAX: usize = 64 * 1024;
/// Keys of a key ring: the current one, and older ones that some secrets may still be sealed under.
pub const KEYS_MAX: usize = 8;
/// Secrets that one step of a rotation seals anew.
pub const ROTATION_STEP: usize = 100;
/// What a run counts among stored bytes, beside its input, output and log.
pub const STORED_BYTES_PER_RUN: u64 = 1024;
/// What a line of a log counts among stored bytes, beside its text.
pub const STORED_BYTES_PER_LINE: u64 = 32;
/// How long it is kept what tenants have used.
pub const USAGE_KEPT: Duration = Duration::from_secs(3 * 366 * 24 * 3600);

// Tasks and triggers.

/// Characters in a name.
pub const NAME_CHARS_MAX: usize = 63;
/// Entries in a task's config.
pub const CONFIG_ENTRIES_MAX: usize = 256;
/// Bytes of a task's config, keys and values together.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Arguments of a task.
pub const ARGUMENTS_MAX: usize = 256;
/// Bytes of a task's arguments together.
pub const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
/// Hosts that a task may be granted.
pub const HTTP_GRANTS_MAX: usize = 100;
/// Characters of a cron expression.
pub const CRON_CHARS_MAX: usize = 256;
/// The last year in which a cron expression is due; one that comes later counts as one that never does. Far
/// enough that no host lives to see it, and near enough that a date that never comes is found out at once.
pub const CRON_YEAR_MAX: u16 = 2200;
/// Characters of a time zone's name that are looked at for what was meant, and shown.
pub const ZONE_CHARS_MAX: usize = 64;
/// Bytes of a file with holidays.
pub const HOLIDAY_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Holidays of a calendar, a yearly one counting as one.
pub const HOLIDAYS_PER_CALENDAR_MAX: usize = 2_000;
/// Days of all events of a file, those that are known already included.
pub const HOLIDAY_DATES_READ_MAX: usize = 20_000;
/// Characters of a holiday's title.
pub const HOLIDAY_TITLE_CHARS_MAX: usize = 200;
/// Holiday calendars of one tenant.
pub const HOLIDAY_CALENDARS_PER_TENANT_MAX: u64 = 100;
/// Holiday calendars that a trigger may exclude.
pub const TRIGGER_EXCLUDES_MAX: usize = 8;
/// Holidays in a row that a search for a time that is none passes over; beyond it there is none. More than ten
/// years of every day.
pub const HOLIDAYS_PASSED_MAX: usize = 4_000;
/// How long holidays in a row may last for the time after them to be shown with a trigger.
pub const HOLIDAYS_SHOWN_BEYOND: Duration = Duration::from_secs(400 * 24 * 3600);
/// Characters of a note.
pub const NOTE_CHARS_MAX: usize = 1_000;
/// The shortest interval between two firings of a trigger.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Next changes of a zone's clock at which the smallest gap between two firings of a trigger is looked for. More
/// than 28 years have, after which weekdays and dates meet again.
pub const LEAST_GAP_CHANGES: usize = 64;
/// The longest interval, and the longest catch-up window.
pub const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The longest jitter of a trigger.
pub const JITTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// Nominal times that one decision about one trigger goes through; the rest waits for the next decision.
pub const FIRINGS_PER_DECISION_MAX: usize = 10_000;
/// Runs that one decision about one trigger starts; the rest waits for the next decision.
pub const RUNS_PER_DECISION_MAX: usize = 100;
/// A firing handled later than this after its nominal time counts as missed.
pub const MISSED_AFTER: Duration = Duration::from_secs(10);
/// Next times that can be asked for at once.
pub const NEXT_TIMES_MAX: usize = 10_000;
/// Nominal times in the range of one backfill.
pub const BACKFILL_TIMES_MAX: usize = 100_000;
/// Unfinished runs that one backfill may have at one time.
pub const BACKFILL_CONCURRENCY_MAX: u32 = 1_000;
/// Backfills of one trigger that have neither finished nor been cancelled.
pub const BACKFILLS_PER_TRIGGER_MAX: u64 = 10;
/// Nominal times that one step of a backfill goes through; the rest waits for the next step.
pub const BACKFILL_TIMES_PER_STEP_MAX: usize = 200;
/// Backfills that are taken a step further before the store is asked anew which have most cause to be.
pub const BACKFILLS_PER_LOOK: usize = 32;
/// How long a backfill waits before it tries again what was refused for a reason that passes.
pub const BACKFILL_WAIT: Duration = Duration::from_secs(2);
/// Times at each end of its range that the plan of a backfill shows.
pub const BACKFILL_TIMES_SHOWN: usize = 5;

// Events, and what starts runs beside the clock.

/// Characters of a topic, or of a pattern of topics.
pub const TOPIC_CHARS_MAX: usize = 200;
/// Segments of a topic.
pub const TOPIC_SEGMENTS_MAX: usize = 8;
/// Bytes of an event's data.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Characters of an event's id.
pub const EVENT_ID_CHARS_MAX: usize = 128;
/// Events that are published by one call.
pub const EVENTS_PER_CALL_MAX: usize = 500;
/// What an event counts among stored bytes, beside its data.
pub const STORED_BYTES_PER_EVENT: u64 = 256;
/// How long events are kept, if nothing else is said.
pub const EVENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How much longer than others events are kept that a trigger hasn't had yet, as a factor.
pub const EVENTS_HELD_FACTOR: u32 = 4;
/// Events that one decision about one trigger looks at.
pub const EVENTS_PER_DECISION: usize = 500;
/// Bytes of their data, and one event more.
pub const EVENT_BYTES_PER_DECISION: usize = 4 * 1024 * 1024;
/// Triggers that one look at the events goes through.
pub const EVENT_TRIGGERS_PER_LOOK: usize = 32;
/// Bytes of data of the events that are gathered into one run.
pub const EVENT_BATCH_BYTES_MAX: usize = 512 * 1024;
/// Runs in a row of which each was started by an event of the one before.
pub const CAUSE_DEPTH_MAX: u32 = 16;
/// Triggers of a tenant that come after tasks.
pub const AFTER_TRIGGERS_PER_TENANT_MAX: usize = 10_000;
/// Events that are gathered into one run.
pub const EVENT_BATCH_MAX: usize = 200;
/// The longest time that events wait to be gathered into one run.
pub const EVENT_WAIT_MAX: Duration = Duration::from_secs(3600);
/// The most that the time of a webhook's signature may be away from the host's.
pub const WEBHOOK_TOLERANCE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of an occurrence's name.
pub const OCCURRENCE_BYTES_MAX: usize = 256;

// Forecasts.

/// The hours that a forecast looks ahead, when the request doesn't say.
pub const FORECAST_HOURS_DEFAULT: u32 = 24;
/// The most hours that it can be asked for.
pub const FORECAST_HOURS_MAX: u32 = 744;
/// Triggers that one forecast reckons with, the first by name.
pub const FORECAST_TRIGGERS_MAX: usize = 100_000;
/// Times that it goes through; it is incomplete from the one on that would be one more. A trigger that is due every
/// second of 31 days has fewer.
pub const FORECAST_TIMES_MAX: u64 = 3_000_000;
/// Busiest minutes that it tells.
pub const FORECAST_MINUTES_SHOWN: usize = 10;
/// Tasks that it tells of a busy minute, the most frequent.
pub const FORECAST_MINUTE_TASKS_SHOWN: usize = 5;
/// Tasks that it tells of, those with the most runs.
pub const FORECAST_TASKS_SHOWN: usize = 1_000;
/// Triggers of one kind that it names as left out or estimated.
pub const FORECAST_NAMES_SHOWN: usize = 20;
/// Forecasts that may be under way on one host, each on a thread of its own.
pub const FORECASTS_MAX: usize = 4;
/// Of these, forecasts of one tenant.
pub const FORECASTS_PER_TENANT_MAX: usize = 2;

// Runs.

/// Bytes of a run's input.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a run's output.
pub const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a content type.
pub const CONTENT_TYPE_CHARS_MAX: usize = 255;
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Unfinished runs of one task; a start beyond it is refused.
pub const UNFINISHED_RUNS_PER_TASK_MAX: u64 = 1_000_000;
/// Runs of a trigger with the overlap policy `buffer-all` that wait for the one before them.
pub const BUFFERED_RUNS_MAX: u64 = 1_000;
/// Runs of a task, or of one of its keys, that its limits may let execute at one time.
pub const CONCURRENCY_MAX: u32 = 100_000;
/// Runs in the time of a rate.
pub const RATE_COUNT_MAX: u32 = 100_000;
/// A run's priority if nobody gives it another, and the highest; the lowest is 0.
pub const PRIORITY_DEFAULT: u8 = 5;
pub const PRIORITY_MAX: u8 = 9;
/// Gates of one tenant that are looked at before the next tenant's are, and how often a claim goes round.
pub const GATES_PER_LOOK: usize = 64;
pub const GATE_ROUNDS_MAX: usize = 8;
/// After how long a gate is looked at again whose rate has let runs pass that nobody has claimed.
pub const UNCLAIMED_LOOK: Duration = Duration::from_millis(100);
/// Starts in one call.
pub const STARTS_PER_CALL_MAX: usize = 1_000;
/// Tries of one run.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// How often a run is taken up again after its host was lost.
pub const HOST_LOSSES_MAX: u32 = 3;
/// The longest time one attempt may take.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest timeout.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// What an attempt gets when its task doesn't say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// How long a cancelled guest may take to end by itself, when its task doesn't say.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// The longest that a task may say.
pub const CANCEL_GRACE_MAX: Duration = Duration::from_secs(300);
/// The shortest deadline of a run.
pub const DEADLINE_MIN: Duration = Duration::from_millis(1);
/// The longest deadline of a run.
pub const DEADLINE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// How long after an attempt should be over, by its run's deadline or a cancel, it is ended under its host, which ought
/// to have done so. Longer than a host that works takes to commit an end.
pub const OVERDUE_GRACE: Duration = Duration::from_secs(15);
/// Runs that one step of a bulk cancel or retry goes through, and that one look for passed deadlines ends.
pub const RUNS_PER_STEP_MAX: usize = 500;
/// The longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(24 * 3600);

// The sandbox.

/// Memory of one run: all linear memories and tables together, in bytes.
pub const MEMORY_MAX: u64 = 1024 * MIB;
/// What a run gets when its task doesn't say, in bytes.
pub const MEMORY_DEFAULT: u64 = 64 * MIB;
/// The least memory that can be asked for: one WebAssembly page.
pub const MEMORY_MIN: u64 = 64 * KIB;
/// Core instances in one component. Python's runtime makes about thirty.
pub const CORE_INSTANCES_MAX: u32 = 128;
/// Linear memories in one component.
pub const MEMORIES_PER_COMPONENT_MAX: u32 = 4;
/// Tables in one component.
pub const TABLES_PER_COMPONENT_MAX: u32 = 8;
/// Elements of one table.
pub const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// Bytes of a guest's stack.
pub const GUEST_STACK_BYTES: usize = 1024 * 1024;
/// Bytes of a run's log; what comes after is dropped and counted.
pub const LOG_BYTES_MAX: usize = 1024 * 1024;
/// Lines of a run's log; what comes after is dropped and counted.
pub const LOG_LINES_MAX: usize = 10_000;
/// Bytes of one line; the rest of it is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 8 * 1024;
/// Lines that the host adds to a run's log: denials, backtraces.
pub const LOG_NOTES_MAX: usize = 100;
/// Characters of a failure's code.
pub const FAILURE_CODE_CHARS_MAX: usize = 64;
/// Bytes of a failure's message; the rest of it is cut off.
pub const FAILURE_MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a progress note; the rest of it is cut off.
pub const PROGRESS_NOTE_BYTES_MAX: usize = 256;
/// Things of the host's (files, streams, requests, responses, timers ...) that a guest may hold at once.
pub const HANDLES_MAX: usize = 1_000;
/// Handles that the parts of a guest may hold at once, to the host's things and to resources of each other's.
pub const COMPONENT_HANDLES_MAX: usize = 10_000;
/// Bytes that a guest may hand over to the host in one call, its output included: enough that what is over a bound of
/// its own is told so by that.
pub const HOST_CALL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Random bytes of one request.
pub const RANDOM_BYTES_MAX: u64 = MIB;

// The control plane.

/// Bytes of one gRPC message; inputs of a batch share it.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Rows of one page of a list.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Rows of a page when the request doesn't say.
pub const PAGE_ROWS_DEFAULT: usize = 100;
/// The longest that a call may take until its answer, or its stream, begins; uploads are the longest.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Calls at one time on one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;
/// Bytes of one tenant's requests under way on one host, and of what these take when they are decoded. Twice what its
/// uploads can have.
pub const CALL_BYTES_PER_TENANT_MAX: usize = 256 * 1024 * 1024;
/// The same of everybody's: so much memory is left to calls beside runs. Twice what all uploads can have.
pub const CALL_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Fields of one request, those of the messages in it included: more than as many starts as a call takes have. Few
/// bytes can be many fields, and each takes memory when it is decoded.
pub const FIELDS_PER_MESSAGE_MAX: usize = 100_000;
/// Streams of runs and logs that one tenant may have open on one host.
pub const STREAMS_PER_TENANT_MAX: usize = 200;
/// Log-ins of one address that may fail within [`LOGIN_FAILURES_WINDOW`].
pub const LOGIN_FAILURES_MAX: u32 = 10;
/// How long failed log-ins count, from the first of them.
pub const LOGIN_FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// How often something unknown is looked up for an address that has failed so often.
pub const LOGIN_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses whose failed log-ins are remembered.
pub const LOGIN_ADDRESSES_MAX: usize = 4_096;
/// Hashes of what somebody has lately logged in with, remembered twice so many at most.
pub const LOGIN_GOOD_MAX: usize = 4_096;
/// Connections at one time; more are closed at once. Fewer than the files that a process may usually have open.
pub const CONNECTIONS_MAX: usize = 640;
/// Of these, from one address; addresses of one /64 network of IPv6 count as one.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// TLS handshakes at one time; connections that come meanwhile are closed at once. More than two addresses can
/// have open.
pub const HANDSHAKES_MAX: usize = 320;
/// How long a TLS handshake may take, and after it the beginning of HTTP/2.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection of HTTP/2 may last on which nobody has called whom the host knows. One that asks for health
/// may last once more as long.
pub const STRANGER_CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Bytes of a file with certificates, a key or a list of revoked certificates.
pub const TLS_FILE_BYTES_MAX: u64 = 16 * MIB;
/// How often such files are looked at for changes.
pub const TLS_FILES_LOOK: Duration = Duration::from_secs(10);
/// Names taken from a client's certificate.
pub const CERTIFICATE_NAMES_MAX: usize = 16;
/// Bytes of one of them; longer ones are left out.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 255;

// Identity providers.

/// Bytes of a token of an identity provider.
pub const IDENTITY_TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the subject in it.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// How far a provider's clock and this host's may be apart.
pub const IDENTITY_LEEWAY: Duration = Duration::from_secs(60);
/// Bytes of a provider's description, or of its keys.
pub const IDENTITY_DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// Keys of a provider.
pub const IDENTITY_KEYS_MAX: usize = 100;
/// How long it may take to fetch them.
pub const IDENTITY_FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often they are fetched.
pub const IDENTITY_FETCH_INTERVAL: Duration = Duration::from_secs(600);
/// The least time between two fetches: when a token names an unknown key, or the last one has failed.
pub const IDENTITY_FETCH_PAUSE: Duration = Duration::from_secs(30);
/// How long keys are used that could not be fetched anew.
pub const IDENTITY_KEYS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Signatures that are checked at one time; others wait.
pub const IDENTITY_CHECKS_MAX: usize = 4;

// Uploads.

/// How many new bytes of an upload are kept at once, so that a cut connection costs no more than these. An
/// upload of no more bytes is not kept in part.
pub const UPLOAD_PIECE_BYTES: u64 = MIB;
/// Uploads that a tenant may have begun and not ended.
pub const UPLOADS_BEGUN_MAX: usize = 16;
/// How long an upload that was cut off can be gone on with.
pub const UPLOAD_KEPT: Duration = Duration::from_secs(24 * 3600);

// The host.

/// Labels of a host, and labels that a task may require.
pub const LABELS_MAX: usize = 16;
/// Characters of a label's key, and of its value.
pub const LABEL_CHARS_MAX: usize = 63;
/// Hosts that are told of at once.
pub const HOSTS_LISTED_MAX: usize = 1_000;

/// How long a host may go without a sign of life before its runs are taken up by another.
pub const LEASE: Duration = Duration::from_secs(15);
/// The shortest lease that a host can be given.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest lease that a host can be given.
pub const LEASE_MAX: Duration = Duration::from_secs(600);
/// How long an idempotency key names its run, as long as the run is kept.
pub const IDEMPOTENCY_KEY_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long runs are kept after their end.
pub const RUNS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long logs are kept after the end of their runs.
pub const LOGS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long it is on record that nominal times were skipped.
pub const SKIPS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// The shortest that a host can be told to keep any of these.
pub const KEPT_MIN: Duration = Duration::from_secs(60);
/// The longest that a host can be told to keep any of these.
pub const KEPT_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// Runs, or skip records, that one step of the retention deletes.
pub const RETENTION_STEP: usize = 500;
/// Lines of logs that it deletes; the run that they were of goes when the last of them has.
pub const RETENTION_STEP_LINES: usize = 20_000;
/// How long a host that is told to stop waits for its runs.
pub const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// The longest that a host can be told to wait for its runs.
pub const DRAIN_GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Writes that one commit of the embedded store takes together.
pub const WRITES_PER_COMMIT_MAX: usize = 512;
/// From so many bytes on a write of the embedded store waits for smaller ones.
pub const LARGE_WRITE_BYTES: usize = 32 * 1024;
/// After so many bytes a commit takes no further write.
pub const WRITES_PER_COMMIT_BYTES: usize = 256 * 1024;
/// The same of a commit that isn't synced.
pub const PARTS_PER_COMMIT_BYTES: usize = 64 * 1024;
/// The pieces that the embedded store writes an output in.
pub const OUTPUT_PIECE_BYTES: usize = 64 * 1024;
/// What a line of a log costs beside its text when it is written, in bytes of one value that would take as long.
pub const LOG_LINE_COST: usize = 64;
/// What the news of an attempt cost beside their lines, in the same.
pub const NEWS_COST: usize = 1024;
/// Lines of logs that one write takes, of one attempt, and bytes of their texts; the embedded store has them in one piece.
pub const LOG_WRITE_LINES: usize = 1_000;
pub const LOG_WRITE_BYTES: usize = 64 * 1024;
/// Writes that may wait for the embedded store, and large ones beside them.
pub const WRITES_WAITING_MAX: usize = 8_192;
pub const LARGE_WRITES_WAITING_MAX: usize = 1_024;
/// Connections that a host has to a shared database for calls and runs.
pub const DATABASE_CONNECTIONS: usize = 12;
/// Connections that it has beside them for its signs of life, which must not wait for calls; one more listens.
pub const DATABASE_CONNECTIONS_VITAL: usize = 2;
/// How long a statement of a shared database may take.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it waits for a lock.
pub const DATABASE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction of it may do nothing, and hold its locks: none does so on purpose, but a host may
/// freeze in the middle of one. Less than others wait for a lock.
pub const DATABASE_IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Calls that went to it together, failed because one of them waited too long, and now go one by one: how many
/// of them may do so before the rest is given up.
pub const BLOCKED_CALLS_MAX: usize = 3;
/// Calls that start runs that one commit of a shared database takes together.
pub const STARTS_PER_COMMIT_MAX: usize = 64;
/// Ends of attempts that one commit of a shared database takes together.
pub const FINISHES_PER_COMMIT_MAX: usize = 256;

// Backups.

/// Bytes of one row in a backup: a component's bytes, or a run with its input and output.
pub const BACKUP_RECORD_BYTES_MAX: u32 = 68 * 1024 * 1024;
/// Bytes of rows that go from a store to a backup, or back, at once; one row may be larger.
pub const BACKUP_BATCH_BYTES: usize = 256 * 1024;
/// Rows that do so at once.
pub const BACKUP_BATCH_ROWS: usize = 1_000;
/// How often a backup begins anew because a component was deleted just then.
pub const BACKUP_TRIES_MAX: usize = 10;

// Expressions.

/// Characters of an expression.
pub const EXPRESSION_CHARS_MAX: usize = 1_000;
/// Brackets of an expression within each other.
pub const EXPRESSION_DEPTH_MAX: usize = 24;
/// Values that one evaluation goes through, counted each time (see `expression::place`).
pub const EXPRESSION_WORK_MAX: usize = 1024 * 1024;
/// The same of all that is evaluated in one decision about events: others wait for it.
pub const EVALUATIONS_WORK_MAX: usize = 8 * 1024 * 1024;
/// The same of a key, which is made where runs are inserted.
pub const EXPRESSION_KEY_WORK_MAX: usize = 8 * 1024;
/// Bytes of JSON of which a key is made.
pub const EXPRESSION_KEY_INPUT_BYTES_MAX: usize = 64 * 1024;

// Webhooks.

/// Webhooks that a host takes at one time, each with its body in memory.
pub const WEBHOOKS_MAX: usize = 64;
/// How many of them may be one tenant's.
pub const WEBHOOKS_PER_TENANT_MAX: usize = 16;
/// How many of them may come from one address: half of a tenant's, so that no one sender takes them all.
pub const WEBHOOKS_PER_ADDRESS_MAX: usize = 8;
/// How long a body may take to come.
pub const WEBHOOK_BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may stand still meanwhile: nobody knows yet whose it is.
pub const WEBHOOK_BODY_STILL_MAX: Duration = Duration::from_secs(3);
/// Triggers whose failures are remembered to have been said.
pub const WEBHOOK_FAILURES_SAID_MAX: usize = 256;
/// How long a sender can wait for the output.
pub const WEBHOOK_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a connection of HTTP/1 may last: for one request with its body and its answer.
pub const HTTP1_CONNECTION_LIFE: Duration = Duration::from_secs(150);
/// Bytes of a delivery's id.
pub const WEBHOOK_ID_CHARS_MAX: usize = 256;
/// Signatures of one request that are looked at.
pub const WEBHOOK_SIGNATURES_MAX: usize = 8;
