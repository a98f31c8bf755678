//! Who may call what: one rule for every call of `innkeeper.v1`. A call without one is nobody's. What is only known
//! from a request's fields (whose token is made, a list of every tenant's) is decided where they are read.

use innkeeper_domain::access::Role;

/// The rule of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Service and method, such as `TaskService/CreateTask`.
    pub call: &'static str,
    /// The least role that may call it.
    pub least: Role,
    pub concerns: Concerns,
    pub does: Does,
    pub for_some_tasks: ForSomeTasks,
}

/// Whom a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concerns {
    /// One tenant: the caller's, or the one that an admin names.
    Tenant,
    /// All of them.
    Host,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Reads,
    /// Refused while the tenant is suspended, but for admins.
    Changes,
}

/// What a token that is for some tasks may do with a call, if its role may call it at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForSomeTasks {
    /// Nothing: it concerns more than those.
    Refused,
    /// Call it for what belongs to those; everything else is answered as what doesn't exist.
    Checked,
    /// See those of a list that belong to them.
    Filtered,
    /// What any token may: it tells only of the token and its tenant.
    Allowed,
}

/// What is known of a path before it is known who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// For everybody: load balancers and orchestrators ask for health without a token.
    Open,
    /// For everybody who is known: this service tells nothing of what a tenant has.
    Known(&'static str),
    Ruled(&'static Rule),
    /// There is no such call, or nobody has said who may call it.
    Unruled,
}

const PACKAGE: &str = "/innkeeper.v1.";

/// What is known of a path.
pub(crate) fn of_path(path: &str) -> Path {
    if path == "/grpc.health.v1.Health/Check" {
        return Path::Open;
    }
    // `Watch` lasts: strangers could hold as many as they like.
    if path.starts_with("/grpc.health.v1.Health/") {
        return Path::Known("Health");
    }
    if path.starts_with("/grpc.reflection.v1.ServerReflection/") {
        return Path::Known("ServerReflection");
    }
    let rule = path.strip_prefix(PACKAGE).and_then(|call| RULES.iter().find(|rule| rule.call == call));
    rule.map_or(Path::Unruled, Path::Ruled)
}

const fn rule(
    call: &'static str,
    least: Role,
    concerns: Concerns,
    does: Does,
    for_some_tasks: ForSomeTasks,
) -> Rule {
    Rule { call, least, concerns, does, for_some_tasks }
}

use Concerns::{Host, Tenant};
use Does::{Changes, Reads};
use ForSomeTasks::{Allowed, Checked, Filtered, Refused};
use Role::{Admin, Operator, Owner, Viewer};

/// The rules, by call.
pub(crate) const RULES: &[Rule] = &[
    rule("AuditService/ListAudit", Owner, Tenant, Reads, Refused),
    rule("BackfillService/CancelBackfill", Operator, Tenant, Changes, Checked),
    rule("BackfillService/CreateBackfill", Operator, Tenant, Changes, Checked),
    rule("BackfillService/GetBackfill", Viewer, Tenant, Reads, Checked),
    rule("BackfillService/ListBackfills", Viewer, Tenant, Reads, Filtered),
    rule("BackfillService/PlanBackfill", Viewer, Tenant, Reads, Checked),
    rule("ComponentService/BeginUpload", Owner, Tenant, Changes, Refused),
    rule("ComponentService/DeleteComponent", Owner, Tenant, Changes, Refused),
    rule("ComponentService/GetComponent", Viewer, Tenant, Reads, Refused),
    rule("ComponentService/ListComponents", Viewer, Tenant, Reads, Refused),
    rule("ComponentService/PushComponent", Owner, Tenant, Changes, Refused),
    rule("EventService/ListEvents", Viewer, Tenant, Reads, Refused),
    rule("EventService/PublishEvents", Operator, Tenant, Changes, Refused),
    rule("EventService/TailEvents", Viewer, Tenant, Reads, Refused),
    rule("ForecastService/Forecast", Viewer, Tenant, Reads, Filtered),
    rule("HolidayService/DeleteHolidayCalendar", Owner, Tenant, Changes, Refused),
    rule("HolidayService/GetHolidayCalendar", Viewer, Tenant, Reads, Refused),
    rule("HolidayService/ListHolidayCalendars", Viewer, Tenant, Reads, Refused),
    rule("HolidayService/PutHolidayCalendar", Owner, Tenant, Changes, Refused),
    rule("HostService/GetHost", Admin, Host, Reads, Refused),
    rule("HostService/ListHosts", Admin, Host, Reads, Refused),
    rule("HostService/PauseFleet", Admin, Host, Changes, Refused),
    rule("HostService/SetHostState", Admin, Host, Changes, Refused),
    rule("HostService/UnpauseFleet", Admin, Host, Changes, Refused),
    rule("QuotaService/GetQuotas", Viewer, Tenant, Reads, Refused),
    rule("QuotaService/SetQuotas", Admin, Tenant, Changes, Refused),
    rule("RunService/CancelRun", Operator, Tenant, Changes, Checked),
    rule("RunService/CancelRuns", Operator, Tenant, Changes, Checked),
    rule("RunService/GetRun", Viewer, Tenant, Reads, Checked),
    rule("RunService/ListRuns", Viewer, Tenant, Reads, Filtered),
    rule("RunService/PauseRun", Operator, Tenant, Changes, Checked),
    rule("RunService/ResumeRun", Operator, Tenant, Changes, Checked),
    rule("RunService/RetryRun", Operator, Tenant, Changes, Checked),
    rule("RunService/RetryRuns", Operator, Tenant, Changes, Checked),
    rule("RunService/StartRun", Operator, Tenant, Changes, Checked),
    rule("RunService/StartRuns", Operator, Tenant, Changes, Checked),
    rule("RunService/StreamLogs", Viewer, Tenant, Reads, Checked),
    rule("RunService/WatchRun", Viewer, Tenant, Reads, Checked),
    rule("SecretService/DeleteSecret", Owner, Tenant, Changes, Refused),
    rule("SecretService/ListSecrets", Owner, Tenant, Reads, Refused),
    rule("SecretService/RotateSecrets", Admin, Host, Changes, Refused),
    rule("SecretService/SetSecret", Owner, Tenant, Changes, Refused),
    rule("TaskService/CreateTask", Owner, Tenant, Changes, Refused),
    rule("TaskService/DeleteTask", Owner, Tenant, Changes, Refused),
    rule("TaskService/GetTask", Viewer, Tenant, Reads, Checked),
    rule("TaskService/ListRevisions", Viewer, Tenant, Reads, Checked),
    rule("TaskService/ListTasks", Viewer, Tenant, Reads, Filtered),
    rule("TaskService/PauseTask", Operator, Tenant, Changes, Checked),
    rule("TaskService/ResumeTask", Operator, Tenant, Changes, Checked),
    rule("TaskService/RollbackTask", Owner, Tenant, Changes, Refused),
    rule("TaskService/UpdateTask", Owner, Tenant, Changes, Refused),
    rule("TenantService/CreateTenant", Admin, Host, Changes, Refused),
    rule("TenantService/DeleteTenant", Admin, Host, Changes, Refused),
    rule("TenantService/GetTenant", Viewer, Tenant, Reads, Allowed),
    rule("TenantService/ListTenants", Admin, Host, Reads, Refused),
    rule("TenantService/PauseTenant", Owner, Tenant, Changes, Refused),
    rule("TenantService/UnpauseTenant", Owner, Tenant, Changes, Refused),
    rule("TenantService/UpdateTenant", Admin, Host, Changes, Refused),
    rule("TokenService/CreateToken", Owner, Tenant, Changes, Refused),
    rule("TokenService/ListTokens", Owner, Tenant, Reads, Refused),
    rule("TokenService/RevokeToken", Owner, Tenant, Changes, Refused),
    rule("TokenService/WhoAmI", Viewer, Tenant, Reads, Allowed),
    rule("TriggerService/CreateTrigger", Owner, Tenant, Changes, Refused),
    rule("TriggerService/DeleteTrigger", Owner, Tenant, Changes, Refused),
    rule("TriggerService/GetTrigger", Viewer, Tenant, Reads, Checked),
    rule("TriggerService/ListSkips", Viewer, Tenant, Reads, Checked),
    rule("TriggerService/ListTimes", Viewer, Tenant, Reads, Checked),
    rule("TriggerService/ListTriggers", Viewer, Tenant, Reads, Filtered),
    rule("TriggerService/PauseTrigger", Operator, Tenant, Changes, Checked),
    rule("TriggerService/ResumeTrigger", Operator, Tenant, Changes, Checked),
    rule("UsageService/ListUsage", Viewer, Tenant, Reads, Checked),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::DESCRIPTORS;
    use prost::Message;
    use prost_types::FileDescriptorSet;
    use std::collections::BTreeSet;
    use std::fmt::Write;
    use std::{env, fs};

    #[test]
    fn every_call_has_one_rule_and_every_rule_a_call() {
        let described = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let files = described.file.iter().filter(|file| file.package() == "innkeeper.v1");
        let services = files.flat_map(|file| &file.service);
        let calls: BTreeSet<String> = services
            .flat_map(|service| {
                service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
            })
            .collect();
        let ruled: Vec<String> = RULES.iter().map(|rule| rule.call.to_string()).collect();
        assert!(calls.len() > 40, "the descriptors have {} calls", calls.len());
        assert_eq!(ruled, calls.into_iter().collect::<Vec<_>>(), "rules on the left, calls on the right");
    }

    #[test]
    fn what_has_no_rule_is_nobodys() {
        for path in
            ["/innkeeper.v1.RunService/Nonsense", "/other.Service/Call", "/", "", "/grpc.health.v1.Health"]
        {
            assert_eq!(of_path(path), Path::Unruled, "{path}");
        }
        assert_eq!(of_path("/grpc.health.v1.Health/Check"), Path::Open);
        assert_eq!(of_path("/grpc.health.v1.Health/Watch"), Path::Known("Health"));
        assert!(
            matches!(of_path("/innkeeper.v1.RunService/StartRun"), Path::Ruled(rule) if rule.least == Operator)
        );
    }

    #[test]
    fn rules_go_together() {
        for rule in RULES {
            assert_eq!(rule.concerns == Host, rule.least == Admin && rule.call != "QuotaService/SetQuotas");
            // Owners' tokens are never for some tasks only.
            assert!(rule.least < Owner || rule.for_some_tasks == Refused, "{}", rule.call);
        }
    }

    fn table() -> String {
        let mut table = String::from(
            "| call | viewer | operator | owner | admin | a token for some tasks |\n\
             | --- | :-: | :-: | :-: | :-: | --- |\n",
        );
        for rule in RULES {
            let may = |role| if role >= rule.least { "yes" } else { "-" };
            let tasks = match rule.for_some_tasks {
                Refused => "no",
                Checked => "theirs",
                Filtered => "lists theirs",
                Allowed => "yes",
            };
            let [viewer, operator, owner, admin] = [Viewer, Operator, Owner, Admin].map(may);
            let call = rule.call;
            writeln!(table, "| `{call}` | {viewer} | {operator} | {owner} | {admin} | {tasks} |").unwrap();
        }
        table
    }

    /// With `UPDATE_DOCS=1` it writes the table instead.
    #[test]
    fn the_table_in_the_docs_is_of_these_rules() {
        const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../SECURITY.md");
        let (begin, end) = ("<!-- roles -->\n", "<!-- /roles -->");
        let docs = fs::read_to_string(DOCS).unwrap();
        let (before, rest) = docs.split_once(begin).expect("SECURITY.md marks where the table begins");
        let (found, after) = rest.split_once(end).expect("SECURITY.md marks where the table ends");
        let table = table();
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(DOCS, format!("{before}{begin}{table}{end}{after}")).unwrap();
        } else {
            assert_eq!(found, table, "run the test with UPDATE_DOCS=1 to write the table anew");
        }
    }
}
