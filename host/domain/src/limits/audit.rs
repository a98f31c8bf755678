//! Bounds of the audit log.

use std::time::Duration;

/// Bytes of a before or after in the audit log; larger ones are left out.
pub const AUDIT_VALUE_BYTES_MAX: usize = 16 * 1024;
/// How long lines of the audit log are kept.
pub const AUDIT_KEPT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Lines about refusals that may wait for the audit log; what is over is counted.
pub const DENIALS_WAITING_MAX: usize = 1_000;
/// Refusals of the same kind within so long are one line of the audit log.
pub const DENIALS_FOLDED: Duration = Duration::from_secs(1);
/// Lines about refusals of people whom nobody knows that may wait beside these.
pub const DENIALS_UNKNOWN_WAITING_MAX: usize = 1_000;
/// Refusals of people whom nobody knows, from one address, within so long are one line.
pub const DENIALS_UNKNOWN_FOLDED: Duration = Duration::from_secs(60);
/// Lines that begin in a minute about refusals of one tenant's; what is beyond is one line more.
pub const DENIALS_LINES_MAX: usize = 60;
/// The same of people whom nobody knows, all together; what is beyond is one line more, and one for each tenant whose
/// webhooks they tried.
pub const DENIALS_UNKNOWN_LINES_MAX: usize = 60;
/// How long that minute is, and how long what is beyond is one line.
pub const DENIALS_MINUTE: Duration = Duration::from_secs(60);
