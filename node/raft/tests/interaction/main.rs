//! The interaction scripts of etcd's raft, where `BALSA_TESTDATA` names the folder that holds them: a whole group, step by
//! step, with what etcd's nodes said. Our nodes take the same steps, and what it means is compared, not the wording: who
//! leads, how terms follow one another, what is committed, what the leader knows of its peers, what the logs hold.
//!
//! Terms are compared by their order: etcd's nodes begin in term 0 with a snapshot of term 1, which our core refuses as
//! contradictory, so ours are ahead by one. Where a script switches pre-votes or the check of a quorum off, which Balsa
//! always has, the adapter grants what these would deny ([`group`]).
//!
//! Four scripts do not run, see [`DIFFERENT`].

#[path = "../harness/mod.rs"]
mod harness;

mod group;
mod script;

use group::Group;
use std::path::PathBuf;

/// Scripts whose meaning is not Balsa's, and why.
const DIFFERENT: [(&str, &str); 4] = [
    (
        "async_storage_writes_append_aba_race.txt",
        "a vote request leaves only when the candidate's own vote is durable (thesis 3.8), so that the script's order of \
         steps cannot happen; scripts/aba_completion.txt shows the same race",
    ),
    (
        "confchange_v1_remove_leader.txt",
        "a leader whose removal has committed steps down (thesis 4.2.2); etcd's goes on unless it is told not to",
    ),
    (
        "confchange_v1_remove_leader_stepdown.txt",
        "a removal is effective as soon as it is appended, so that it commits later, and with it the entry behind it; \
         scripts/remove_leader.txt shows ours",
    ),
    (
        "confchange_v2_replace_leader.txt",
        "the leader leaves a joint phase by itself as soon as it has committed; nobody can be asked to do it later",
    ),
];

#[test]
fn scripts_of_others_mean_the_same() {
    let Some(folder) = std::env::var_os("BALSA_TESTDATA") else {
        println!("left out: BALSA_TESTDATA names no folder with interaction scripts");
        return;
    };
    let folder = PathBuf::from(folder).join("raft-tables/testdata");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder of scripts")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let (mut agree, mut wrong) = (0, Vec::new());
    for name in &names {
        if let Some((_, why)) = DIFFERENT.iter().find(|(different, _)| different == name) {
            println!("{name}: left out: {why}");
            continue;
        }
        let text = std::fs::read_to_string(folder.join(name)).expect(name);
        let outcome = std::panic::catch_unwind(|| {
            let mut group = Group::default();
            script::run(&text, &mut group)
        });
        match outcome {
            Ok(Ok(0)) => wrong.push(format!("{name}: nothing was compared")),
            Ok(Ok(compared)) => {
                println!("{name}: agrees in {compared} facts");
                agree += 1;
            }
            Ok(Err(why)) => wrong.push(format!("{name}: {why}")),
            Err(_) => wrong.push(format!("{name}: a panic")),
        }
    }
    assert!(wrong.is_empty(), "{agree} agree; {}", wrong.join("\n"));
    assert_eq!((names.len(), agree), (28, 24));
}
