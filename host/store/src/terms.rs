//! What a run takes from its task's revision, its trigger and its start when it is created, decided for every driver
//! alike.

use innkeeper_domain::Timestamp;
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::host::Labels;
use innkeeper_domain::task::TaskSpec;

/// What all runs of a revision have, unless more is said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    deadlines: Deadlines,
    labels: Labels,
}

/// What one run has of it, as its row keeps it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pinned {
    pub start_by: Option<Timestamp>,
    pub end_by: Option<Timestamp>,
    /// See [`Labels`].
    pub labels: String,
}

impl Terms {
    pub fn of(spec: &TaskSpec) -> Self {
        Self { deadlines: spec.deadlines(), labels: spec.labels.clone() }
    }

    /// Of a run with a nominal time, and what its trigger or its start says beside.
    pub fn pinned(&self, own: Deadlines, labels: &Labels, nominal: Timestamp, created: Timestamp) -> Pinned {
        let (deadlines, due) = (own.or(self.deadlines), nominal.max(created));
        Pinned {
            start_by: deadlines.start_by(due),
            end_by: deadlines.end_by(due),
            labels: if labels.is_empty() {
                self.labels.to_string()
            } else {
                self.labels.with(labels).to_string()
            },
        }
    }
}
