//! The program `register`; see the library for how it works.

use std::process::ExitCode;

use agent::lifecycle::Exit;
use agent::telemetry::init_logging;
use containers::docker::Endpoint;
use register::cli::{Cli, Command, RunArgs};
use register::commands::{Failure, check, exec, look, ls, operate, put, run, stop};
use register::privileges;

fn main() -> ExitCode {
    agent::tls::install_provider();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let args = Cli::with_register_me(Cli::with_default_command(std::env::args_os()), &variable);
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are errors to clap; both go where clap sends them.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match start(cli) {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("register: {failure}");
            failure.exit.into()
        }
    }
}

/// Gives the status with which to end.
fn start(cli: Cli) -> Result<u8, Failure> {
    init_logging(cli.log_format, &cli.log).map_err(Failure::usage)?;
    if let Command::Run(args) = &cli.command {
        drop_privileges(args)?;
    }
    // One thread: nothing here computes for long, and each further one costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(Box::pin(command(cli.command)))
}

async fn command(command: Command) -> Result<u8, Failure> {
    let done = match command {
        Command::Exec(args) => return Box::pin(exec::exec(&args)).await,
        Command::Run(args) => run::run(&args).await,
        Command::Plan(args) => look::plan(&args).await,
        Command::Explain(args) => look::explain(&args).await,
        Command::Ls(args) => ls::ls(&args).await,
        Command::Drain(args) => operate::drain(&args, true).await,
        Command::Undrain(args) => operate::drain(&args, false).await,
        Command::Stop(args) => stop::stop(&args).await,
        Command::Status(args) => operate::status(&args).await,
        Command::History(args) => operate::history(&args).await,
        Command::Check(args) => check::check(&args),
        Command::Put(args) => Box::pin(put::put(*args)).await,
        Command::Pages(pages) => pages.make(Cli::described(), &mut std::io::stdout()).map_err(Failure::runtime),
        Command::Version => operate::version(),
    };
    done.map(|()| Exit::Ok.code())
}

/// Before any thread starts: `--user`.
fn drop_privileges(args: &RunArgs) -> Result<(), Failure> {
    // The image sets REGISTER_USER, and Docker can only empty a variable, not unset it.
    let Some(user) = args.user.as_deref().filter(|user| !user.is_empty()) else { return Ok(()) };
    let endpoint = args.watches_docker().then(|| look::docker(&args.docker)).transpose()?;
    let socket = match &endpoint {
        Some((Endpoint::Unix(path), _)) => Some(path.as_path()),
        Some((Endpoint::Http { .. }, _)) | None => None,
    };
    privileges::drop_to(user, socket, args.control.parent()).map_err(Failure::usage)
}
