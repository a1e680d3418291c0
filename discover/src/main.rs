//! The `discover` binary: see the library of the same name.

use std::process::ExitCode;

use agent::lifecycle::Exit;
use discover::cli;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // nobody is left to tell
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    agent::tls::install_provider();
    // One thread: a turn is milliseconds of work, and every thread's stack and arena is memory on every host.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::main(cli))),
        Err(error) => {
            eprintln!("discover: starting: {error}");
            Exit::Runtime.into()
        }
    }
}
