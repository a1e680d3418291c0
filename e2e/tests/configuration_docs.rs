//! docs/configuration-flags.md lists every flag, from the programs' own definitions. `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

const HEAD: &str = "# Every flag

*For users. Generated from the programs' own definitions. A flag wins over its environment variable.*
";

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn row(arg: &Arg) -> Option<String> {
    let long = arg.get_long()?;
    if matches!(long, "help" | "version") || arg.is_hide_set() {
        return None;
    }
    let value = arg.get_value_names().filter(|_| arg.get_action().takes_values()).map(|n| format!(" {}", n[0]));
    let env = arg.get_env().map(|e| format!("`{}`", e.to_string_lossy())).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|d| d.to_string_lossy()).collect();
    let default = if defaults.is_empty() || !arg.get_action().takes_values() {
        String::new()
    } else {
        format!("`{}`", defaults.join(","))
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    Some(format!("| `--{long}{}` | {env} | {} | {} |", cell(&value.unwrap_or_default()), cell(&default), cell(&help)))
}

fn table(text: &mut String, command: &Command) {
    let rows: Vec<String> = command.get_arguments().filter_map(row).collect();
    if !rows.is_empty() {
        let _ =
            writeln!(text, "\n| flag | environment | default | what it does |\n|---|---|---|---|\n{}", rows.join("\n"));
    }
}

/// `program` and those of its commands that have flags of their own.
fn program(text: &mut String, mut command: Command) {
    command.build();
    let name = command.get_name().to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "\n## {name}\n\n{about}");
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let positionals: Vec<String> =
            sub.get_positionals().map(|p| format!(" {}", p.get_id().as_str().to_uppercase())).collect();
        let _ = writeln!(text, "\n### `{name} {}{}`\n\n{about}", sub.get_name(), positionals.concat());
        table(text, sub);
    }
}

#[test]
fn configuration_flags_md_lists_every_flag() {
    let mut new = HEAD.to_owned();
    program(&mut new, register::cli::Cli::command());
    program(&mut new, discover::cli::Cli::command());
    testing::is_current("docs/configuration-flags.md", &new);
}
