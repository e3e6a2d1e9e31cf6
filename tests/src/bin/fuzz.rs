//! Feeds bent inputs to everything that reads bytes from elsewhere: `fuzz --seconds 60`. A case that goes wrong prints the
//! line that replays it.
//!
//! Each target runs in a process of its own, so that a case which ends the process (no memory, no stack) is found as well:
//! the process notes each case before it begins it.

use balsa_tests::fuzz::{self, targets};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::{Read, Seek, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bent inputs for everything that reads bytes from elsewhere.
#[derive(Parser)]
struct Args {
    /// How long, all targets together
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first case; another one tries other inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// Only this case of the target, in this process
    #[arg(long, requires = "target")]
    case: Option<u64>,
    /// Where a process notes its case
    #[arg(long, hide = true)]
    notes: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match (&args.target, args.case, &args.notes) {
        (Some(name), Some(case), _) => replay(name, case),
        (Some(name), None, Some(notes)) => run_here(name, &args, notes),
        _ => run_all(&args),
    };
    match result {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn replay_line(name: &str, case: u64) -> String {
    format!("cargo run --release -p balsa-tests --bin fuzz -- --target {name} --case {case}")
}

fn find(name: &str) -> Result<fuzz::Target, String> {
    targets::all().into_iter().find(|target| target.name == name).ok_or(format!("there is no target {name}"))
}

fn allocated() -> usize {
    INSTRUMENTED_SYSTEM.stats().bytes_allocated
}

fn replay(name: &str, case: u64) -> Result<String, String> {
    let outcome = fuzz::run(&mut find(name)?, case, allocated);
    outcome
        .map(|()| format!("{name}: case {case} passes"))
        .map_err(|fault| format!("{name}: case {case}: {fault}"))
}

/// Runs a target until its time is over; what it ends with is how many cases there were.
fn run_here(name: &str, args: &Args, notes: &std::path::Path) -> Result<String, String> {
    let mut notes = std::fs::File::create(notes).map_err(|error| error.to_string())?;
    let mut target = find(name)?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    // Every case of a run has a number of its own, and runs of other seeds have others.
    let first = args.seed << 32;
    let mut case = first;
    while Instant::now() < end {
        let noted = notes.rewind().and_then(|()| notes.write_all(&case.to_le_bytes()));
        noted.map_err(|error| error.to_string())?;
        fuzz::run(&mut target, case, allocated).map_err(|fault| {
            format!("{name}: case {case}: {fault}\n  replay: {}", replay_line(name, case))
        })?;
        case += 1;
    }
    Ok(format!("{}", case - first))
}

fn run_all(args: &Args) -> Result<String, String> {
    let names: Vec<_> = targets::all().into_iter().map(|target| (target.name, target.about)).collect();
    let names: Vec<_> = names
        .into_iter()
        .filter(|(name, _)| args.target.as_deref().is_none_or(|only| only == *name))
        .collect();
    if names.is_empty() {
        return Err(format!("there is no target {}", args.target.as_deref().unwrap_or_default()));
    }
    let seconds = (args.seconds / names.len() as u64).max(1);
    let (mut cases, mut wrong) = (0, 0);
    for (name, about) in &names {
        match run_apart(name, args.seed, seconds) {
            Ok(count) => {
                println!("{name} ({about}): {count} cases");
                cases += count;
            }
            Err(why) => {
                println!("{why}");
                wrong += 1;
            }
        }
    }
    let figures = format!("{cases} cases of {} targets, {wrong} went wrong", names.len());
    if wrong == 0 { Ok(format!("fuzz: PASS: {figures}")) } else { Err(format!("fuzz: FAIL: {figures}")) }
}

/// Runs a target in a process of its own.
fn run_apart(name: &str, seed: u64, seconds: u64) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let mut notes = tempfile::NamedTempFile::new().map_err(failed)?;
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["--target", name, "--seed", &seed.to_string(), "--seconds", &seconds.to_string(), "--notes"])
        .arg(notes.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + Duration::from_secs(seconds + 60);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said).map_err(failed)?;
    }
    if status.is_some_and(|status| status.success()) {
        return said.trim().parse().map_err(|_| format!("{name}: it ended with {said:?}"));
    }
    if !said.trim().is_empty() {
        return Err(said.trim().to_owned());
    }
    let mut case = [0; 8];
    notes.as_file_mut().read_exact(&mut case).map_err(failed)?;
    let case = u64::from_le_bytes(case);
    let how = status.map_or("it does not end".into(), |status| format!("its process ended by {status}"));
    Err(format!("{name}: case {case}: {how}\n  replay: {}", replay_line(name, case)))
}
