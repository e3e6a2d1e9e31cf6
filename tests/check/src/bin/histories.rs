//! The bar `histories`: all verdicts on the histories of others, and the time that a large history takes.
//!
//! The folder of histories is named by `BALSA_TESTDATA`; without it the bar fails, since it has nothing to judge.

use balsa_check::generate::{Options, generate};
use balsa_check::{Kind, Outcome, Verdict, check, foreign};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A history of 10^5 operations must be judged in this time.
const LARGE_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run() {
        Ok(figures) => {
            println!("histories: PASS {figures}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("histories: FAIL {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let folder = std::env::var_os("BALSA_TESTDATA").ok_or("BALSA_TESTDATA names no folder with histories")?;
    let (right, all) = judge_all(&PathBuf::from(folder).join("histories"))?;
    if right != all || all != 108 {
        return Err(format!("{right}/{all} verdicts agree"));
    }
    let mut slowest = Duration::ZERO;
    for (name, unknown_per_mille, revisions, wrong) in [
        ("search", 0, false, false),
        ("search, 1% unknown", 10, false, false),
        ("search, 1% unknown, one read wrong", 10, false, true),
        ("replay", 0, true, false),
        ("replay, 1% unknown", 10, true, false),
        ("replay, 1% unknown, one read wrong", 10, true, true),
    ] {
        let took = large(name, unknown_per_mille, revisions, wrong)?;
        slowest = slowest.max(took);
    }
    if slowest > LARGE_MAX {
        return Err(format!("a history of 10^5 operations took {slowest:.2?}"));
    }
    Ok(format!("{right}/{all} verdicts agree; 10^5 operations on 100 keys in {slowest:.2?} at most"))
}

fn judge_all(folder: &std::path::Path) -> Result<(usize, usize), String> {
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).map_err(|error| format!("cannot read {name}: {error}"))
    };
    let (mut right, mut all) = (0, 0);
    let mut times: Vec<(Duration, String)> = Vec::new();
    for line in read("verdicts.tsv")?.lines() {
        let (name, expected) = line.split_once('\t').ok_or("verdicts.tsv: no tabulator")?;
        let text = read(name)?;
        let history =
            if name.ends_with(".log") { foreign::register(&text) } else { foreign::key_value(&text) };
        let history = history.map_err(|error| format!("{name}: {error}"))?;
        let began = Instant::now();
        let verdict = check(&history);
        times.push((began.elapsed(), name.to_owned()));
        let linearizable = matches!(verdict, Verdict::Linearizable { .. });
        let decided = !matches!(verdict, Verdict::Undecided(_));
        all += 1;
        if decided && linearizable == (expected == "linearizable") {
            right += 1;
        } else {
            println!("{name}: {verdict:?}, expected {expected}");
        }
    }
    times.sort_unstable();
    let total: Duration = times.iter().map(|(took, _)| *took).sum();
    println!("{right}/{all} verdicts agree, in {total:.2?} altogether; the slowest:");
    for (took, name) in times.iter().rev().take(3) {
        println!("  {name} {took:.2?}");
    }
    Ok((right, all))
}

fn large(name: &str, unknown_per_mille: u64, revisions: bool, wrong: bool) -> Result<Duration, String> {
    let options = Options {
        seed: 1,
        operations: 100_000,
        keys: 100,
        clients: 20,
        unknown_per_mille,
        revisions,
        clears_per_mille: if revisions { 1 } else { 0 },
        txns_per_mille: if revisions { 100 } else { 0 },
    };
    let mut history = generate(options);
    if wrong {
        let last = history.operations.iter_mut().rev().find_map(|operation| match &mut operation.kind {
            Kind::Get { value: Some(value), .. } if operation.outcome == Outcome::Ok => Some(value),
            _ => None,
        });
        *last.ok_or("no read in the history")? = "never".into();
    }
    let began = Instant::now();
    let verdict = check(&history);
    let took = began.elapsed();
    println!("{name}: 10^5 operations on 100 keys in {took:.2?}");
    match (verdict, wrong) {
        (Verdict::Linearizable { .. }, false) | (Verdict::Violation(_), true) => Ok(took),
        (verdict, _) => Err(format!("{name}: {verdict:?}")),
    }
}
