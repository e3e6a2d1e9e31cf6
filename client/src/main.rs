//! The command line tool `balsa`; see [`balsa_client::cli`].

use balsa_client::cli::{self, Args};
use clap::Parser;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(args)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "balsa: cannot start: {error}"); // whether it is heard or not
            ExitCode::from(cli::EXIT_NOT_APPLIED)
        }
    }
}
