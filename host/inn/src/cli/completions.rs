//! `inn completions`.

use super::Verdict;
use anyhow::Result;
use clap_complete::Shell;
use std::io::Write;

/// Print a shell's completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn completions bash > ~/.local/share/bash-completion/completions/inn
  inn completions zsh  > ~/.zfunc/_inn
  inn completions fish > ~/.config/fish/completions/inn.fish")]
pub struct Args {
    shell: Shell,
}

pub fn run(args: &Args, command: &mut clap::Command) -> Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "inn", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Verdict::Succeeded)
}
