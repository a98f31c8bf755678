//! Which tasks and triggers name which secrets, found alike by every driver. A driver selects by the text of definitions which it
//! reads at all, for there may be many, and few name a secret.

use innkeeper_domain::name::Name;
use innkeeper_domain::rule::Rule;
use innkeeper_domain::secret::{SealedSecret, SecretInfo};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::trigger::TriggerSpec;

/// What is in the JSON of every definition that names secrets.
pub(crate) const SECRETS_IN_JSON: &str = r#""secrets":{""#;

/// What is in the JSON of every definition that names this secret.
pub(crate) fn in_json(secret: &Name) -> String {
    format!("\"{secret}\"")
}

pub(crate) fn names(spec: &TaskSpec, secret: &Name) -> bool {
    spec.secrets.values().any(|name| name == secret)
}

/// Whether it verifies its requests with this secret.
pub(crate) fn verifies_with(spec: &TriggerSpec, secret: &Name) -> bool {
    matches!(&spec.rule, Rule::Webhook(rule) if rule.secret == *secret)
}

/// The secret as people see it, with those of these tasks that name it.
pub(crate) fn with_users(secret: SealedSecret, users: &[(Name, TaskSpec)]) -> SecretInfo {
    let tasks = users.iter().filter(|(_, spec)| names(spec, &secret.name)).map(|(task, _)| task.clone());
    SecretInfo {
        tasks: tasks.collect(),
        name: secret.name,
        key_id: secret.key_id,
        created_at: secret.created_at,
        updated_at: secret.updated_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::component::Digest;

    #[test]
    fn definitions_that_name_secrets_are_known_by_their_text() {
        let name: Name = "key-1".parse().unwrap();
        let none = TaskSpec::new(Digest([1; 32]));
        let one = TaskSpec { secrets: [("KEY".to_string(), name.clone())].into(), ..none.clone() };
        let json = |spec| serde_json::to_string(spec).unwrap();
        assert!(json(&one).contains(SECRETS_IN_JSON) && json(&one).contains(&in_json(&name)));
        assert!(!json(&none).contains(SECRETS_IN_JSON));
    }
}
