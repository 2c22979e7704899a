//! `completion`: what a shell needs to complete command lines.

use clap::CommandFactory;

use super::{Cli, Session};

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl completion bash > ~/.local/share/bash-completion/completions/rmqctl
  rmqctl completion zsh > ~/.zfunc/_rmqctl     with ~/.zfunc in $fpath
  rmqctl completion fish > ~/.config/fish/completions/rmqctl.fish")]
pub struct Completion {
    /// Whose script
    shell: clap_complete::Shell,
}

/// `completion`
pub fn completion(args: Completion, session: &Session<'_>) -> u8 {
    session.ui.out(&script(args.shell));
    0
}

fn script(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rmqctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_commands_and_flags() {
        for shell in clap_complete::Shell::value_variants() {
            let script = script(*shell);
            for word in ["restart", "slaves-per-master", "render"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
