//! Votes and commit indexes of majority and joint quorums.

use crate::{Case, read_tables};
use balsa_raft::quorum::{VoteResult, joint_reached, joint_vote};
use balsa_raft::{Index, Membership, NodeId};
use std::collections::BTreeMap;

/// The numbers of a list; `zero` is an empty set.
fn ids(list: &str) -> Vec<NodeId> {
    // "123" without commas is how one table writes a single voter, by accident; its outcome is the same.
    let numbers = list.split([',', ' ']).filter(|word| !word.is_empty() && *word != "zero");
    numbers.map(|word| NodeId(word.parse().expect("a number"))).collect()
}

/// The membership of a case, and the value of each of its voters in the order in which they are first named.
fn read(case: &Case, values: &str) -> (Membership, BTreeMap<NodeId, String>) {
    let (voters, outgoing) =
        (ids(case.argument("cfg").unwrap_or("")), ids(case.argument("cfgj").unwrap_or("")));
    let mut named: Vec<NodeId> = Vec::new();
    for &id in voters.iter().chain(&outgoing) {
        if !named.contains(&id) {
            named.push(id);
        }
    }
    let words = case.argument(values).unwrap_or("").split(',').map(|word| word.trim().to_owned());
    let values = named.into_iter().zip(words).filter(|(_, word)| word != "_").collect();
    let mut membership = Membership::of_voters(voters);
    membership.outgoing = outgoing.into_iter().collect();
    (membership, values)
}

fn check(case: &Case) {
    let result = case.expected.last().unwrap_or_else(|| panic!("{}: no result", case.place)).as_str();
    match case.command.split_whitespace().next() {
        Some("committed") => {
            let (membership, known) = read(case, "idx");
            let reached = joint_reached(&membership, |id| {
                known.get(&id).map_or(Index::ZERO, |word| Index(word.parse().expect("an index")))
            });
            let expected = match result {
                "<empty majority quorum>∞" | "∞" => None,
                number => Some(Index(number.parse().unwrap_or_else(|_| panic!("{}: {number}", case.place)))),
            };
            assert_eq!(reached, expected, "{}: {}", case.place, case.command);
        }
        Some("vote") => {
            let (membership, known) = read(case, "votes");
            let outcome = joint_vote(&membership, |id| known.get(&id).map(|word| word == "y"));
            let expected = match result {
                "VoteWon" => VoteResult::Won,
                "VoteLost" => VoteResult::Lost,
                "VotePending" => VoteResult::Pending,
                other => panic!("{}: {other}", case.place),
            };
            assert_eq!(outcome, expected, "{}: {}", case.place, case.command);
        }
        other => panic!("{}: unknown command {other:?}", case.place),
    }
}

#[test]
fn quorums_are_as_in_the_tables() {
    let Some(tables) = read_tables("raft-tables/quorum/testdata") else { return };
    let mut count = 0;
    for case in tables.iter().flat_map(|(_, cases)| cases) {
        check(case);
        count += 1;
    }
    println!("{count} cases");
    assert!(count > 50, "only {count} cases found");
}
