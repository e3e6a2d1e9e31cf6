//! Reads a script: commands, their input, and what etcd's nodes said; compares that with the group.

use super::group::Group;

/// One command with what belongs to it.
pub(crate) struct Command<'a> {
    /// Its words.
    pub(crate) words: Vec<&'a str>,
    /// Lines between the command and its output.
    pub(crate) input: Vec<&'a str>,
    /// What etcd's nodes said.
    pub(crate) output: Vec<&'a str>,
}

impl<'a> Command<'a> {
    /// The numbers among the words, which name nodes; all of the group where there is none.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.words.iter().skip(1).filter_map(|word| word.parse().ok()).collect()
    }

    /// The value of `name=value`.
    pub(crate) fn option(&self, name: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The numbers in `name=(1,2)` or `name=1`.
    pub(crate) fn numbers(&self, name: &str) -> Vec<u64> {
        let text = self.option(name).unwrap_or_default();
        text.split(['(', ',', ')']).filter_map(|word| word.parse().ok()).collect()
    }
}

fn parse(text: &str) -> Vec<Command<'_>> {
    let mut commands = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let words = line.split_whitespace().collect();
        let mut input = Vec::new();
        for line in lines.by_ref() {
            if line == "----" {
                break;
            }
            input.push(line);
        }
        let mut output = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            output.push(line);
        }
        commands.push(Command { words, input, output });
    }
    commands
}

/// What etcd's nodes are known to be, as far as their output told.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// Whether it leads, and its term.
    pub(crate) role: Option<(bool, u64)>,
    /// Its commit index.
    pub(crate) commit: Option<u64>,
    /// The members, to it; none while joint.
    pub(crate) members: Option<Members>,
}

/// Who is a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Members {
    /// In order.
    pub(crate) voters: Vec<u64>,
    /// In order.
    pub(crate) learners: Vec<u64>,
}

/// Runs a script; gives how many facts were compared, or the first that differs.
pub(crate) fn run(text: &str, group: &mut Group) -> Result<usize, String> {
    let mut known: Vec<Known> = Vec::new();
    let mut compared = 0;
    let commands = parse(text);
    for (at, command) in commands.iter().enumerate() {
        let name = command.words[0];
        let line = command.words.join(" ");
        let wrong = |why: String| format!("after `{line}` ({at}): {why}");
        group.command(command);
        known.resize(group.size(), Known::default());
        let silent = command.output == ["ok"] || command.option("log-level") == Some("none");
        if silent
            && matches!(name, "stabilize" | "campaign" | "process-ready" | "deliver-msgs" | "tick-election")
        {
            known.fill(Known::default());
        }
        learn(command, &mut known);
        match name {
            "raft-state" if !group.is_changing() => {
                for line in &command.output {
                    compared += state(line, group).map_err(wrong)?;
                }
            }
            "status" => {
                for line in &command.output {
                    compared += progress(line, command.nodes()[0], group).map_err(wrong)?;
                }
            }
            "raft-log" => {
                compared += group.compare_log(command.nodes()[0], &command.output).map_err(wrong)?
            }
            _ => {}
        }
        // All is quiet after an unrestricted `stabilize`, and at the end.
        let quiet = name == "stabilize" && command.nodes().is_empty();
        if quiet || at + 1 == commands.len() {
            for (node, known) in known.iter().enumerate() {
                compared += group.compare(node as u64 + 1, known).map_err(wrong)?;
            }
        }
    }
    Ok(compared)
}

/// `1: StateLeader (Voter) Term:1 Lead:1`
fn state(line: &str, group: &mut Group) -> Result<usize, String> {
    let (node, rest) = line.split_once(": ").ok_or("no node")?;
    let node = node.parse().map_err(|_| "no number")?;
    let leads = rest.starts_with("StateLeader");
    let term = value(rest, "Term:").ok_or("no term")?;
    let compared = group.compare(node, &Known { role: Some((leads, term)), ..Known::default() })?;
    Ok(compared)
}

/// `2: StateReplicate match=11 next=12`
fn progress(line: &str, leader: u64, group: &Group) -> Result<usize, String> {
    let (peer, rest) = line.split_once(": State").ok_or("no peer")?;
    let peer: u64 = peer.parse().map_err(|_| "no number")?;
    let state = rest.split_whitespace().next().unwrap_or_default();
    let matched = value(rest, "match=").ok_or("no match")?;
    if peer == leader {
        return Ok(0);
    }
    group.compare_progress(leader, peer, state, matched)
}

/// What the output tells of nodes: `INFO 1 became leader at term 1`, and `HardState Term:1 Vote:1 Commit:4`.
fn learn(command: &Command<'_>, known: &mut [Known]) {
    let mut handling = match command.words[..] {
        ["process-ready", node] => node.parse::<usize>().ok(),
        _ => None,
    };
    for line in command.output.iter().map(|line| line.trim()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [">", node, "handling", "Ready"] => handling = node.parse().ok(),
            [">", ..] => handling = None,
            ["INFO", node, "became", role, "at", "term", term] => {
                let (node, term) = (node.parse::<usize>().ok(), term.parse().ok());
                if let (Some(known), Some(term)) = (node.and_then(|node| known.get_mut(node - 1)), term) {
                    // A pre-candidate is in no new term.
                    known.role = Some((role == "leader", term));
                }
            }
            ["INFO", node, "switched", "to", "configuration", ref members @ ..] => {
                if let Some(known) =
                    node.parse::<usize>().ok().and_then(|node| known.get_mut(node.checked_sub(1)?))
                {
                    known.members = members_of(members);
                }
            }
            ["HardState", ..] => {
                if let Some(known) = handling.and_then(|node| known.get_mut(node - 1)) {
                    known.commit = value(line, "Commit:");
                }
            }
            _ => {}
        }
    }
}

fn value(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// `voters=(1 2) learners=(3)`; none where it is joint: `voters=(2 3)&&(1 2)`.
fn members_of(words: &[&str]) -> Option<Members> {
    let text = words.join(" ");
    let list = |name: &str| -> Vec<u64> {
        let rest = text.split_once(name).map_or("", |(_, rest)| rest);
        let list = rest.split_once(')').map_or("", |(list, _)| list);
        list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let members = Members { voters: list("voters=("), learners: list("learners=(") };
    (!text.contains("&&")).then_some(members)
}
