//! The command line.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words = line.split_whitespace().map(std::ffi::OsString::from);
    Cli::read(Cli::with_default_command(words))
}

#[test]
fn run_is_meant_where_no_command_is_given() {
    for line in ["register", "register --ttl 5s", "register run --ttl 5"] {
        let Command::Run(run) = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!(run.form.ttl.as_secs(), if line == "register" { 10 } else { 5 });
    }
    for line in ["register --log debug status", "register --log=debug --log-format text status"] {
        assert!(matches!(parse(line).unwrap().command, Command::Status(_)), "{line}");
    }
    let unknown = parse("register runn").unwrap_err().to_string();
    assert!(unknown.contains("'runn'") && unknown.contains("run"), "{unknown}");
}

#[test]
fn a_value_is_no_command_and_every_command_is_one() {
    use clap::CommandFactory as _;
    for line in ["register --on-exit drain", "register -c put --docker", "register --log-format json --ttl 5s"] {
        assert!(matches!(parse(line).unwrap().command, Command::Run(_)), "{line}");
    }
    let Command::Run(run) = parse("register -c nerve.json -i i-1 -k").unwrap().command else { panic!() };
    assert_eq!(run.nerve.config, Some("nerve.json".into()));
    assert!(run.nerve.check_config && !run.watches_docker());
    for command in Cli::command().get_subcommands() {
        let error = parse(&format!("register {} --no-such-flag", command.get_name())).unwrap_err().to_string();
        assert!(error.contains("--no-such-flag"), "{error}");
    }
    Cli::command().debug_assert();
}

#[test]
fn values_that_cannot_work_are_refused_with_what_is_accepted() {
    for (line, why) in [
        ("register --ttl 1s", "between 2s and 24h"),
        ("register --ttl soon", "such as 10s"),
        ("register --resync 0", "below 1s"),
        ("register --metadata-interval 1s", "below 5s"),
        ("register --check-target host", "published"),
        ("register --health maybe", "hide, down or ignore"),
        ("register --filter status=running", "label=KEY"),
        ("register --admin 9180", "127.0.0.1:9180"),
        ("register drain", "CONTAINER"),
        ("register drain --all web", "cannot be used"),
        ("register put a/b 10.0.0.1:80", "service name"),
        ("register put web 10.0.0.1:80 --layout host", "--node-name"),
        ("register put web 10.0.0.1:80 --vhost a:80", "without a port"),
        ("register put web 10.0.0.1:80 --vhost a/../b", "path"),
        ("register put web 10.0.0.1:80 --sticky", "--vhost"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}

/// Every flag of `run` that takes a value, with what a hostile hand might give it.
#[test]
fn no_value_of_any_flag_panics_and_what_is_refused_names_its_flag() {
    use clap::CommandFactory as _;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    let command = Cli::command();
    let run = command.get_subcommands().find(|c| c.get_name() == "run").unwrap();
    let takes_a_value = |arg: &&clap::Arg| arg.get_long().is_some() && arg.get_action().takes_values();
    let flags: Vec<String> =
        run.get_arguments().filter(takes_a_value).filter_map(|arg| Some(arg.get_long()?.to_owned())).collect();
    assert!(flags.len() > 25, "{flags:?}");
    let rubbish = prop_oneof![
        any::<Vec<u8>>(),
        "\\PC{0,20}".prop_map(String::into_bytes),
        "-?[0-9]{0,30}(ms|s|h)?".prop_map(String::into_bytes),
        Just(vec![b'x'; 100_000]),
        Just(vec![0xff, 0xfe]),
    ];
    let one = (proptest::sample::select(flags), rubbish);
    TestRunner::new(ProptestConfig::with_cases(150))
        .run(&one, |(flag, value)| {
            use std::os::unix::ffi::OsStringExt as _;
            let mut joined = format!("--{flag}=").into_bytes();
            joined.extend(value);
            let args = ["register", "run"].map(std::ffi::OsString::from).into_iter();
            if let Err(error) = Cli::try_parse_from(args.chain([std::ffi::OsString::from_vec(joined)])) {
                let text = error.to_string();
                // What is no UTF-8 is refused before clap knows which flag it was for.
                let named = text.contains(&format!("--{flag}")) || text.contains("UTF-8");
                prop_assert!(named, "{flag}: {text}");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_help_of_run_begins_with_what_is_used_most() {
    let help = parse("register run --help").unwrap_err().to_string();
    let at = |word: &str| help.find(word).unwrap_or_else(|| panic!("{word}: {help}"));
    let first_heading = at("\nDocker and containers:");
    assert!(at("--etcd-host") < at("--host-ip") && MOST_USED.len() == 10);
    for id in MOST_USED {
        assert!(at(&format!("--{}", id.replace('_', "-"))) < first_heading, "{id}: {help}");
    }
    assert!(
        at("--etcd-ca") > at("\netcd:") && at("--resync") > at("\nThe agent:") && at("--log ") > at("\nLog:"),
        "{help}"
    );
}
