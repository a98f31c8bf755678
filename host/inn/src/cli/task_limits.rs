//! What `inn task create` and `update` say of limits.

use innkeeper_api::proto::TaskSpec;

/// How many runs of a task may execute, and in which order.
#[derive(Debug, Default, clap::Args)]
pub struct Limits {
    /// How many of its runs may execute at one time, on all hosts [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Of runs for which this CEL expression over the input is the same, so many execute as --key-concurrency says
    #[arg(long, value_name = "EXPRESSION")]
    concurrency_key: Option<String>,
    /// How many runs of the same key may execute at one time [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    key_concurrency: Option<u32>,
    /// How many of its attempts may begin in a second, minute, hour or day
    #[arg(long, value_name = "N/s|m|h|d")]
    rate: Option<String>,
    /// Priority of its runs, 0 to 9: of what is ready the highest begins first [default: 5]
    #[arg(long, value_name = "0..9", value_parser = clap::value_parser!(u32).range(0..=9))]
    priority: Option<u32>,
}

/// Which limits a task is to have no more.
#[derive(Debug, Default, clap::Args)]
pub struct Clear {
    /// Let any number of its runs execute at one time
    #[arg(long, conflicts_with = "concurrency")]
    clear_concurrency: bool,
    /// Tell its runs apart by no key any more
    #[arg(long, conflicts_with_all = ["concurrency_key", "key_concurrency"])]
    clear_concurrency_key: bool,
    /// Let its attempts begin at any rate
    #[arg(long, conflicts_with = "rate")]
    clear_rate: bool,
}

impl Limits {
    pub fn change_anything(&self) -> bool {
        self.concurrency.is_some()
            || self.concurrency_key.is_some()
            || self.key_concurrency.is_some()
            || self.rate.is_some()
            || self.priority.is_some()
    }

    /// Puts what was given into a definition.
    pub fn apply(self, spec: &mut TaskSpec) {
        spec.concurrency = self.concurrency.unwrap_or(spec.concurrency);
        if let Some(key) = self.concurrency_key {
            spec.concurrency_key = key;
        }
        spec.key_concurrency = self.key_concurrency.unwrap_or(spec.key_concurrency);
        if let Some(rate) = self.rate {
            spec.rate = rate;
        }
        spec.priority = self.priority.or(spec.priority);
    }
}

impl Clear {
    pub fn anything(&self) -> bool {
        self.clear_concurrency || self.clear_concurrency_key || self.clear_rate
    }

    pub fn apply(&self, spec: &mut TaskSpec) {
        if self.clear_concurrency {
            spec.concurrency = 0;
        }
        if self.clear_concurrency_key {
            spec.concurrency_key = String::new();
            spec.key_concurrency = 1;
        }
        if self.clear_rate {
            spec.rate = String::new();
        }
    }
}

/// A task's limits, for people; empty if it has none.
pub fn words(spec: &TaskSpec) -> String {
    let runs = |count: u32| if count == 1 { "1 run".to_string() } else { format!("{count} runs") };
    let mut words = Vec::new();
    if spec.concurrency > 0 {
        words.push(format!("{} at one time", runs(spec.concurrency)));
    }
    if !spec.concurrency_key.is_empty() {
        words.push(format!("{} at one time for each `{}`", runs(spec.key_concurrency), spec.concurrency_key));
    }
    if !spec.rate.is_empty() {
        words.push(spec.rate.clone());
    }
    words.join("\n")
}
