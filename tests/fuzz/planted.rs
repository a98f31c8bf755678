//! Bugs put in on purpose: what finds nothing must be able to find something.

use crate::campaign::{command, seed_of};
use crate::engine::{Case, Input, Seen, Target, Until};
use crate::mutate::{Grow, bytes};
use crate::random::Random;
use std::hint::black_box;
use std::path::Path;

/// Seeds in which each must be found.
const SEEDS: u64 = 2_000;

/// The bugs.
pub const CASES: [Case; 3] = [
    Case { name: "planted-panic", seeds: 0, new: || Box::new(Bug::Panic) },
    Case { name: "planted-promise", seeds: 0, new: || Box::new(Bug::Promise) },
    Case { name: "planted-overflow", seeds: 0, new: || Box::new(Bug::Overflow) },
];

enum Bug {
    /// On another thread.
    Panic,
    Promise,
    /// Of the stack.
    Overflow,
}

const EXAMPLES: Grow =
    Grow { corpus: &[b"let x = 1;", b"let name = (2 + 3);"], tokens: &["(", ")", "((", "let"] };

impl Target for Bug {
    fn make(&mut self, random: &mut Random) -> Input {
        vec![bytes(random, &EXAMPLES), bytes(random, &EXAMPLES)]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let nested = input.iter().any(|piece| piece.windows(2).any(|pair| pair == b"(("));
        match self {
            _ if !nested => Ok(Seen::Taken),
            Self::Panic => {
                let thread = std::thread::spawn(|| panic!("two brackets"));
                assert!(thread.join().is_err());
                Ok(Seen::Refused)
            }
            Self::Promise => Err("two brackets".into()),
            Self::Overflow => Ok(if deeper(0) == 0 { Seen::Taken } else { Seen::Refused }),
        }
    }
}

#[expect(unconditional_recursion, reason = "that is the bug")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth + 1)) + 1)
}

/// Whether each is found, told of with its seed, and made short.
pub fn are_found(folder: &Path) -> bool {
    CASES.iter().all(|case| {
        let last = folder.join(case.name);
        let output = command(case.name, 1, Until::Seeds(SEEDS), &last).output().expect("this program starts");
        let (said, seed) = (String::from_utf8_lossy(&output.stdout), seed_of(&last));
        let told = case.name == "planted-overflow"
            || (said.contains(&format!("seed {seed} fails: "))
                && said.contains("2 will do: ")
                && said.contains("two brackets")
                && said.contains("  \"((\"\n"));
        let found = !output.status.success() && seed > 0 && told;
        let how = if found { "is found" } else { "isn't found as it should be" };
        println!("{} {how}, by seed {seed}", case.name);
        if !found {
            println!("{said}");
        }
        found
    })
}
