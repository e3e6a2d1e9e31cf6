//! Membership changes, simple and joint, legal and illegal.

use crate::{Case, read_tables};
use balsa_raft::{Change, ChangeError, Membership, NodeId};
use std::collections::BTreeSet;

/// `v1` makes a voter, `l1` a learner, `r1` removes, `u1` does nothing to a membership.
fn changes(case: &Case) -> Vec<Change> {
    let words = case.input.iter().flat_map(|line| line.split_whitespace());
    words
        .filter_map(|word| {
            let id = NodeId(word[1..].parse().unwrap_or_else(|_| panic!("{}: {word}", case.place)));
            match &word[..1] {
                "v" => Some(Change::AddVoter(id)),
                "l" => Some(Change::AddLearner(id)),
                "r" => Some(Change::Remove(id)),
                "u" => None,
                _ => panic!("{}: {word}", case.place),
            }
        })
        .collect()
}

/// A membership as the tables print it.
fn print(membership: &Membership) -> String {
    let list = |set: &BTreeSet<NodeId>| set.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters=({})", list(&membership.voters));
    if membership.is_joint() {
        text += &format!("&&({})", list(&membership.outgoing));
    }
    if !membership.learners.is_empty() {
        text += &format!(" learners=({})", list(&membership.learners));
    }
    if !membership.learners_next.is_empty() {
        text += &format!(" learners_next=({})", list(&membership.learners_next));
    }
    if membership.auto_leave {
        text += " autoleave";
    }
    text
}

/// An error as the tables print it.
fn print_error(error: ChangeError, command: &str) -> &'static str {
    match error {
        ChangeError::AlreadyJoint if command == "simple" => {
            "can't apply simple config change in joint config"
        }
        ChangeError::AlreadyJoint => "config is already joint",
        ChangeError::NotJoint => "can't leave a non-joint config",
        ChangeError::NoVoters => "can't make a zero-voter config joint",
        ChangeError::RemovesAllVoters => "removed all voters",
        ChangeError::NeedsJoint => "more than one voter changed without entering joint config",
        ChangeError::UnknownMember(_) | ChangeError::ZeroNode => "refused only when proposed",
    }
}

#[test]
fn memberships_change_as_in_the_tables() {
    let Some(tables) = read_tables("raft-tables/confchange/testdata") else { return };
    let mut count = 0;
    for (_, cases) in &tables {
        let mut membership = Membership::default();
        for case in cases {
            let command = case.command.split_whitespace().next().unwrap_or_default();
            let changes = changes(case);
            let auto_leave = case.argument("autoleave") == Some("true");
            let result = match command {
                "simple" => membership.simple(&changes),
                "enter-joint" => membership.enter_joint(auto_leave, &changes),
                "leave-joint" => membership.leave_joint(),
                other => panic!("{}: unknown command {other}", case.place),
            };
            let expected = case.expected.first().map(String::as_str);
            match result {
                Ok(next) => {
                    assert_eq!(Some(print(&next).as_str()), expected, "{}", case.place);
                    assert_eq!(Membership::decode(&next.encode()), Ok(next.clone()), "{}", case.place);
                    membership = next;
                }
                Err(error) => assert_eq!(Some(print_error(error, command)), expected, "{}", case.place),
            }
            count += 1;
        }
    }
    println!("{count} cases");
    assert!(count > 50, "only {count} cases found");
}
