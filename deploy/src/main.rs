//! `balsa-deploy`, or `kubectl balsa` where it is on the PATH as `kubectl-balsa`.

use balsa_deploy::cli::{Args, run};
use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("balsa-deploy: {failure}");
            ExitCode::FAILURE
        }
    }
}
