//! `balsa restore`: hands over to the node's binary, which knows data folders.

use super::Stop;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// Runs `balsa-node restore` with these arguments; its exit code is this one's.
pub(super) fn run(arguments: &[OsString]) -> Result<u8, Stop> {
    let binary = node_binary();
    let status = Command::new(&binary).arg("restore").args(arguments).status();
    let status =
        status.map_err(|error| Stop::Usage(format!("{} cannot be run: {error}", binary.display())))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(super::EXIT_NOT_APPLIED))
}

/// The node's binary: the one beside this program, or the one on the `PATH`.
pub(super) fn node_binary() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("balsa-node"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("balsa-node"))
}
