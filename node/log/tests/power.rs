//! Power is lost, or the process dies, at every single call to the disk: what was acknowledged is there, and the log
//! is always one of the states it was asked to go through (hazards 2, 23, 24, 41, 42).

mod support;

use balsa_log::files::sim::SplitMix;
use balsa_log::{Log, SimDisk};
use support::{Model, Step, View, folder, open, run, script, tell, thoroughness};

/// Runs the script until the `nth` call fails and all after it; the process is gone then. None: it never came so far.
fn run_until(nth: u64) -> Option<(SimDisk, Model, bool)> {
    let disk = SimDisk::new();
    disk.halt_at(nth);
    let (model, log, result) = run(&disk, &script());
    result.is_err().then_some((disk, model, log.is_some()))
}

/// Opens, or creates where creation never returned, and goes on a little.
fn recover(disk: &SimDisk, mut model: Model, created: bool, context: &str) {
    if !created && !Log::exists(&folder(disk)).unwrap() {
        model.create(disk).unwrap_or_else(|error| panic!("{context}: create again: {error}"));
        return;
    }
    let (mut log, recovered) = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    model.recovered(&recovered, context);
    // What an opening returned is durable from then on, even if power fails right behind it.
    let dark = disk.fork();
    dark.power_loss(&mut || 0);
    let (_, again) = open(&dark).unwrap_or_else(|error| panic!("{context}, in the dark: {error}"));
    assert_eq!(View::of(&again), View::of(&recovered), "{context}, in the dark");
    for step in [Step::Append(3, 400), Step::Sync, Step::Overwrite(2), Step::Append(1, 60)] {
        model.step(&mut log, step).unwrap_or_else(|error| panic!("{context}: {step:?}: {error}"));
    }
    drop(log);
    disk.power_loss(&mut || 0);
    let (_, recovered) = open(disk).unwrap_or_else(|error| panic!("{context}, again: {error}"));
    model.recovered(&recovered, context);
}

#[test]
fn power_loss_at_every_call() {
    let mut calls = 0;
    let seeds = thoroughness("BALSA_TORTURE_SEEDS", 24);
    while let Some((base, model, created)) = run_until(calls + 1) {
        calls += 1;
        for seed in 0..seeds {
            let disk = base.fork();
            let mut random = SplitMix::new(seed * 7919 + calls);
            match seed {
                0 => disk.power_loss(&mut || 0),
                1 => disk.power_loss(&mut || u64::MAX),
                _ => disk.power_loss(&mut || random.next_u64()),
            }
            recover(&disk, model.clone(), created, &format!("call {calls}, seed {seed}"));
        }
    }
    tell("power lost at each call, other sectors lost each time", calls * seeds);
    assert!(calls > 100, "{calls} calls");
}

#[test]
fn the_process_dies_at_every_call() {
    let mut calls = 0;
    while let Some((disk, model, created)) = run_until(calls + 1) {
        calls += 1;
        disk.crash();
        recover(&disk, model, created, &format!("call {calls}"));
    }
    tell("the process dies at each call", calls);
    assert!(calls > 100, "{calls} calls");
}

#[test]
fn power_loss_at_every_call_of_a_recovery() {
    let mut calls = 0;
    let mut recoveries = 0;
    while let Some((base, model, created)) = run_until(calls + 1) {
        calls += 1;
        if !created {
            continue;
        }
        let mut random = SplitMix::new(calls);
        base.power_loss(&mut || random.next_u64());
        for nth in 1.. {
            let disk = base.fork();
            disk.halt_at(nth);
            if open(&disk).is_ok() {
                break;
            }
            recoveries += 1;
            disk.power_loss(&mut || random.next_u64());
            recover(&disk, model.clone(), created, &format!("call {calls}, then call {nth} of the recovery"));
        }
    }
    tell("power lost at each call of a recovery", recoveries);
    assert!(recoveries > 1000, "{recoveries} recoveries");
}
