//! `completions`: the script that a shell reads once. It asks `lovablectl`
//! itself at each press of the key, so that it never grows old.

use clap::CommandFactory;
use clap_complete::env::Shells;

use super::{Cli, Context, Exit, Trouble, complete::VARIABLE};

/// bash: eval "$(lovablectl completions bash)" in ~/.bashrc
/// zsh: source <(lovablectl completions zsh) in ~/.zshrc, after compinit
/// fish: lovablectl completions fish > ~/.config/fish/completions/lovablectl.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// bash takes a name apart at each colon, and the names of models have some: the words are
/// put together here, and what stands before the last colon is taken off again.
const BASH: &str = r#"_lovablectl() {
    local line=${COMP_LINE:0:COMP_POINT} words index current before
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    index=$(( ${#words[@]} - 1 ))
    current=${words[index]}
    before=${current%"${current##*[:=]}"}
    local IFS=$'\n'
    COMPREPLY=($(_CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$index VARIABLE=bash lovablectl -- "${words[@]}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/:] ]] && compopt -o nospace
    return 0
}
complete -o bashdefault -F _lovablectl lovablectl
"#;

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let script = script(&args.shell)?;
    context.out.text(&script)?;
    Ok(Exit::Fine)
}

fn script(shell: &str) -> Result<String, Trouble> {
    if shell == "bash" {
        return Ok(BASH.replace("VARIABLE", VARIABLE));
    }
    let name = Cli::command().get_name().to_owned();
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(shell) else {
        return Err(Trouble::Usage(format!("no completions for {shell}")));
    };
    completer.write_registration(VARIABLE, &name, &name, &name, &mut script).map_err(Trouble::Output)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_how_to_ask() {
        for shell in ["bash", "zsh", "fish"] {
            let script = script(shell).unwrap();
            assert!(script.contains(&format!("{VARIABLE}=")), "{shell}: {script}");
            assert!(script.contains("lovablectl"), "{shell}: {script}");
        }
    }
}
