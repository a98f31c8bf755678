//! Who may call what, written by hand.

use innkeeper_domain::access::Role;

/// The least role that may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    Viewer,
    Operator,
    Owner,
    Admin,
}

/// Whether a token for some tasks may call, if its role may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tasks {
    Yes,
    No,
}

impl Least {
    pub fn role(self) -> Role {
        match self {
            Self::Viewer => Role::Viewer,
            Self::Operator => Role::Operator,
            Self::Owner => Role::Owner,
            Self::Admin => Role::Admin,
        }
    }
}

use Least::{Admin, Operator, Owner, Viewer};
use Tasks::{No, Yes};

pub const EXPECTED: &[(&str, Least, Tasks)] = &[
    ("TenantService/CreateTenant", Admin, No),
    ("TenantService/ListTenants", Admin, No),
    ("TenantService/UpdateTenant", Admin, No),
    ("TenantService/DeleteTenant", Admin, No),
    ("TenantService/GetTenant", Viewer, Yes),
    ("TenantService/PauseTenant", Owner, No),
    ("TenantService/UnpauseTenant", Owner, No),
    ("QuotaService/GetQuotas", Viewer, No),
    ("QuotaService/SetQuotas", Admin, No),
    ("TokenService/CreateToken", Owner, No),
    ("TokenService/ListTokens", Owner, No),
    ("TokenService/RevokeToken", Owner, No),
    ("TokenService/WhoAmI", Viewer, Yes),
    ("AuditService/ListAudit", Owner, No),
    ("UsageService/ListUsage", Viewer, Yes),
    ("SecretService/SetSecret", Owner, No),
    ("SecretService/ListSecrets", Owner, No),
    ("SecretService/DeleteSecret", Owner, No),
    ("SecretService/RotateSecrets", Admin, No),
    ("HolidayService/PutHolidayCalendar", Owner, No),
    ("HolidayService/GetHolidayCalendar", Viewer, No),
    ("HolidayService/ListHolidayCalendars", Viewer, No),
    ("HolidayService/DeleteHolidayCalendar", Owner, No),
    ("EventService/PublishEvents", Operator, No),
    ("EventService/ListEvents", Viewer, No),
    ("EventService/TailEvents", Viewer, No),
    ("ForecastService/Forecast", Viewer, Yes),
    ("HostService/GetHost", Admin, No),
    ("HostService/ListHosts", Admin, No),
    ("HostService/SetHostState", Admin, No),
    ("HostService/PauseFleet", Admin, No),
    ("HostService/UnpauseFleet", Admin, No),
    ("ComponentService/PushComponent", Owner, No),
    ("ComponentService/BeginUpload", Owner, No),
    ("ComponentService/DeleteComponent", Owner, No),
    ("ComponentService/GetComponent", Viewer, No),
    ("ComponentService/ListComponents", Viewer, No),
    ("TaskService/CreateTask", Owner, No),
    ("TaskService/UpdateTask", Owner, No),
    ("TaskService/RollbackTask", Owner, No),
    ("TaskService/DeleteTask", Owner, No),
    ("TaskService/PauseTask", Operator, Yes),
    ("TaskService/ResumeTask", Operator, Yes),
    ("TaskService/GetTask", Viewer, Yes),
    ("TaskService/ListTasks", Viewer, Yes),
    ("TaskService/ListRevisions", Viewer, Yes),
    ("TriggerService/CreateTrigger", Owner, No),
    ("TriggerService/DeleteTrigger", Owner, No),
    ("TriggerService/PauseTrigger", Operator, Yes),
    ("TriggerService/ResumeTrigger", Operator, Yes),
    ("TriggerService/GetTrigger", Viewer, Yes),
    ("TriggerService/ListTimes", Viewer, Yes),
    ("TriggerService/ListTriggers", Viewer, Yes),
    ("TriggerService/ListSkips", Viewer, Yes),
    ("BackfillService/PlanBackfill", Viewer, Yes),
    ("BackfillService/CreateBackfill", Operator, Yes),
    ("BackfillService/GetBackfill", Viewer, Yes),
    ("BackfillService/ListBackfills", Viewer, Yes),
    ("BackfillService/CancelBackfill", Operator, Yes),
    ("RunService/StartRun", Operator, Yes),
    ("RunService/StartRuns", Operator, Yes),
    ("RunService/CancelRun", Operator, Yes),
    ("RunService/CancelRuns", Operator, Yes),
    ("RunService/PauseRun", Operator, Yes),
    ("RunService/ResumeRun", Operator, Yes),
    ("RunService/RetryRun", Operator, Yes),
    ("RunService/RetryRuns", Operator, Yes),
    ("RunService/GetRun", Viewer, Yes),
    ("RunService/ListRuns", Viewer, Yes),
    ("RunService/WatchRun", Viewer, Yes),
    ("RunService/StreamLogs", Viewer, Yes),
];
