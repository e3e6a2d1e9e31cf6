//! `balsa completion` and `balsa man`: what the arguments say of themselves, for shells and for readers.

use super::Stop;
use super::args::Args;
use super::output::Output;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;
use std::path::Path;

/// Prints a shell's completion script.
pub(super) fn completion(shell: Shell, output: &Output) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "balsa", &mut script);
    printed(output, &script)
}

/// Prints the page of a command, or of the tool.
pub(super) fn page(of: Option<&str>, output: &Output) -> Result<(), Stop> {
    let mut whole = Args::command();
    whole.build();
    let command = match of {
        None => whole,
        Some(name) => {
            let found: Option<&Command> = whole.find_subcommand(name);
            let found = found.ok_or_else(|| Stop::Usage(format!("there is no command `{name}`")))?;
            found.clone().bin_name(format!("balsa {name}"))
        }
    };
    let mut roff = Vec::new();
    Man::new(command).render(&mut roff).map_err(failed)?;
    printed(output, &roff)
}

/// Writes the pages of all commands into a folder, which is made where it is not there.
pub(super) fn pages(folder: &Path) -> Result<(), Stop> {
    let written =
        std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Args::command(), folder));
    written.map_err(|error| Stop::Test(format!("{}: {error}", folder.display())))
}

fn printed(output: &Output, bytes: &[u8]) -> Result<(), Stop> {
    if output.bytes(bytes) { Ok(()) } else { Err(Stop::NobodyReads) }
}

fn failed(error: io::Error) -> Stop {
    Stop::Test(format!("the manual cannot be written: {error}"))
}
