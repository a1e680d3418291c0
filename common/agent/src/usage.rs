//! The help of a command with many flags: those that most people need come first, the others below headings.

use clap::{Arg, Command};

/// The heading of flags that have none of their own.
const OTHERS: &str = "The agent";

/// The command with the flags of these ids in front, in this order, and a heading for each other flag.
#[must_use]
pub fn grouped(command: Command, first: &[&str]) -> Command {
    command.mut_args(|arg| place(arg, first))
}

fn place(arg: Arg, first: &[&str]) -> Arg {
    match first.iter().position(|id| arg.get_id() == id) {
        Some(at) => arg.help_heading(None::<&'static str>).display_order(at),
        None if arg.is_positional() || arg.get_help_heading().is_some() => arg,
        None => arg.help_heading(OTHERS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_most_comes_first_and_the_rest_is_below_headings() {
        let flag = |name: &'static str| Arg::new(name).long(name);
        let command = Command::new("c").args([
            flag("rare"),
            flag("b").help_heading("Deep"),
            flag("own").help_heading("Deep"),
            flag("a"),
        ]);
        let help = grouped(command, &["a", "b"]).render_help().to_string();
        let places = ["--a", "--b", "Deep:", "--own", "The agent:", "--rare"]
            .map(|word| help.find(word).unwrap_or_else(|| panic!("{word}: {help}")));
        let mut sorted = places;
        sorted.sort_unstable();
        assert!(places[..2] == sorted[..2] && places[2] < places[3] && places[4] < places[5], "{help}");
    }
}
