//! Golden scripts: a whole cluster, driven step by step by the text files in `scripts/`.
//!
//! A script opens with a sentence of intent. Lines that begin with two spaces are what the line above them
//! gave; all else is a command or a comment (`#`). `BALSA_BLESS=1 cargo test -p balsa-raft --test scripts`
//! writes the output anew: read the diff, then commit it. `help` below lists the commands.

mod harness;

use balsa_raft::{
    Body, Change, Config, Entry, EntryKind, HardState, Index, Membership, Message, NodeId, Raft, ReadId,
    Role, SnapshotOutcome, Term,
};
use bytes::Bytes;
use harness::{Cluster, Disk, Event, kind_letter};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;

/// The commands, one a line. NODE is a number; a LINK is `1->2`, and may be followed by the name of a
/// message.
const HELP: &str = "
append-bytes N                the limit of an append, in bytes (before the nodes)
founders 1,2,3 [learners=4]   a founded cluster: each has the same first entry
blank NODE                    a node with an empty disk
log-of NODE term=T [vote=N] [commit=I] T:TEXT...   a node whose disk holds these entries (`1:m123` is a membership)
tick NODE [N]                 N ticks of its clock
campaign NODE                 ticks until its election timer runs out
win NODE                      the same, and delivers and persists what concerns votes until it leads; appends stay in flight
elect NODE                    the same, and settles; shows the outcome alone
lost NODE PEER                its connection to PEER broke
restored NODE PEER            it is connected to PEER again
unreachable NODE PEER         nothing reaches PEER
propose NODE TEXT...          proposes each word
member NODE +v4 +l5 -2 [context=TEXT]   proposes a membership change
transfer NODE [TO]            hands leadership over
read NODE ID                  asks to confirm a read
deliver [LINK] [KIND] [N]     delivers the first N (default: all present) such messages
copy LINK KIND                sends the first such message once more, kept aside
park LINK [KIND]              keeps such messages aside
unpark                        puts what was kept aside back at the end of the network
drop [LINK] [KIND]            loses all such messages
messages                      shows what is in flight
partition 1 | 2,3             loses everything between the groups
heal                          loses nothing more
stall NODE / unstall NODE     its writes do not complete / complete again when the cluster settles
persist NODE [N]              completes its oldest N writes (default: all)
pending NODE                  shows its writes under way
settle                        delivers and persists until all is quiet
rounds N                      N times: a tick for each node, then settle
crash NODE [N]                it dies; N of its writes under way (default 0) had become durable
restart NODE                  it starts from its disk
compact NODE INDEX            checkpoints its state and compacts up to INDEX
snapshot NODE PEER            the driver streams a snapshot (the oldest one wanted)
snapshot-failed NODE PEER     the driver could not
snapshot-delayed NODE PEER    takes a snapshot of NODE now, to be installed later
install PEER                  installs what was delayed
status [NODE...]              who is what
log NODE                      its log
peers NODE                    what a leader knows of its peers
";

struct Script {
    cluster: Cluster,
    parked: VecDeque<Message>,
    delayed: Vec<(NodeId, NodeId, Term, balsa_raft::SnapshotMeta, harness::State)>,
}

type Words<'a> = Vec<&'a str>;

impl Script {
    fn new() -> Script {
        let config = Config { max_append_bytes: 400, ..Config::with_defaults(NodeId(1), 1) };
        Script { cluster: Cluster::new(config), parked: VecDeque::new(), delayed: Vec::new() }
    }

    /// Carries out one line; gives what it shows.
    fn run(&mut self, line: &str) -> String {
        let words: Words<'_> = line.split_whitespace().collect();
        let mut out = String::new();
        self.command(&words, &mut out);
        for event in std::mem::take(&mut self.cluster.events) {
            let _ = writeln!(out, "{}", print_event(&event));
        }
        out
    }

    fn command(&mut self, words: &Words<'_>, out: &mut String) {
        let (name, rest) = (words[0], &words[1..]);
        let node = |at: usize| NodeId(number(rest[at]));
        match name {
            "founders" => self.found(rest),
            "blank" => self.cluster.add(node(0), Disk::blank()),
            "log-of" => self.log_of(rest),
            "tick" => {
                for _ in 0..rest.get(1).map_or(1, |word| number(word)) {
                    self.cluster.input(node(0), |raft| raft.tick());
                }
            }
            "append-bytes" => self.cluster.config.max_append_bytes = number(rest[0]) as usize,
            "campaign" => self.campaign(node(0)),
            "win" | "elect" => {
                self.campaign(node(0));
                self.gather_votes(node(0));
                if name == "elect" {
                    self.cluster.settle();
                }
                self.cluster.events.clear();
                self.status(&rest[..1], out);
            }
            "lost" => self.quiet(node(0), |raft| raft.handle_connection_lost(NodeId(number(rest[1])))),
            "restored" => {
                self.quiet(node(0), |raft| raft.handle_connection_restored(NodeId(number(rest[1]))))
            }
            "unreachable" => self.quiet(node(0), |raft| raft.handle_unreachable(NodeId(number(rest[1])))),
            "propose" => {
                // All in one batch, as a driver would.
                for text in &rest[1..] {
                    let data = Bytes::copy_from_slice(text.as_bytes());
                    let result = self.cluster.input_only(node(0), |raft| raft.propose(data));
                    show(out, result.map(|result| result.map(|(term, index)| format!("{term}:{index}"))));
                }
                self.cluster.drain(node(0));
            }
            "member" => {
                let context = rest.iter().find_map(|word| word.strip_prefix("context=")).unwrap_or("");
                let changes: Vec<Change> = rest[1..].iter().filter_map(|word| change(word)).collect();
                let result = self.cluster.change(node(0), &changes, context);
                show(out, result.map(|result| result.map(|(term, index)| format!("{term}:{index}"))));
            }
            "transfer" => {
                let to = rest.get(1).map(|word| NodeId(number(word)));
                let result = self.cluster.input(node(0), |raft| raft.transfer_leadership(to));
                show(out, result.map(|result| result.map(|to| format!("to {to}"))));
            }
            "read" => {
                let result = self.cluster.read(node(0), ReadId(number(rest[1])));
                show(out, result.map(|result| result.map(|()| "queued".to_owned())));
            }
            "deliver" => self.deliver(rest, out),
            "copy" => match self.find(rest).first() {
                Some(&at) => self.parked.push_back(self.cluster.network[at].clone()),
                None => out.push_str("no such message\n"),
            },
            "park" => {
                for message in self.remove(rest) {
                    let _ = writeln!(out, "{}", print_message(&message));
                    self.parked.push_back(message);
                }
            }
            "unpark" => self.cluster.network.append(&mut self.parked),
            "drop" => {
                for message in self.remove(rest) {
                    let _ = writeln!(out, "{}", print_message(&message));
                }
            }
            "messages" => {
                for message in &self.cluster.network {
                    let _ = writeln!(out, "{}", print_message(message));
                }
            }
            "partition" => self.partition(rest),
            "heal" => self.cluster.cut.clear(),
            "stall" => self.cluster.nodes.get_mut(&node(0)).expect("a node").stalled = true,
            "unstall" => self.cluster.nodes.get_mut(&node(0)).expect("a node").stalled = false,
            "persist" => {
                self.cluster.persist(node(0), rest.get(1).map_or(usize::MAX, |word| number(word) as usize));
            }
            "pending" => {
                for persist in &self.cluster.node(node(0)).pending {
                    let entries = persist.entries.iter().map(print_entry).collect::<Vec<_>>().join(" ");
                    let hard =
                        persist.hard_state.map(|hard| format!(" term={} vote={}", hard.term, id(hard.vote)));
                    let snapshot = persist
                        .snapshot
                        .as_ref()
                        .map(|meta| format!(" snapshot={}:{}", meta.term, meta.index));
                    let _ = writeln!(
                        out,
                        "#{}{}{} entries=[{entries}]",
                        persist.token.0,
                        hard.unwrap_or_default(),
                        snapshot.unwrap_or_default()
                    );
                    for message in &persist.then_send {
                        let _ = writeln!(out, "  then {}", print_message(message));
                    }
                }
            }
            "settle" => self.cluster.settle(),
            "rounds" => {
                for _ in 0..number(rest[0]) {
                    for id in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
                        self.cluster.input(id, |raft| raft.tick());
                    }
                    self.cluster.settle();
                }
            }
            "crash" => self.cluster.crash(node(0), rest.get(1).map_or(0, |word| number(word) as usize), 0),
            "restart" => self.cluster.restart(node(0)),
            "compact" => {
                self.cluster.checkpoint(node(0));
                self.cluster.compact(node(0), Index(number(rest[1])));
            }
            "snapshot" | "snapshot-failed" | "snapshot-delayed" => self.snapshot(name, node(0), node(1), out),
            "install" => {
                let at =
                    self.delayed.iter().position(|delayed| delayed.1 == node(0)).expect("a delayed snapshot");
                let (from, to, term, meta, state) = self.delayed.remove(at);
                let index = meta.index;
                let told = self.cluster.install(from, to, term, meta, state);
                self.cluster.events.push(Event::Snapshot(from, to, index, told));
            }
            "status" => self.status(rest, out),
            "log" => {
                let raft = self.cluster.raft(node(0)).expect("a running node");
                let (first, last) = (raft.first_index(), raft.last_index());
                let entries = (first.0..=last.0).map(|index| {
                    let term = raft.term_at(Index(index)).expect("an entry");
                    format!("{term}:{index}")
                });
                let entries = entries.collect::<Vec<_>>().join(" ");
                let _ = writeln!(out, "behind {}: {entries}", first.prev());
            }
            "peers" => {
                for peer in self.cluster.raft(node(0)).expect("a running node").status().peers {
                    let _ = writeln!(
                        out,
                        "{}: {:?} match={} next={}{}",
                        peer.id,
                        peer.state,
                        peer.matched,
                        peer.next,
                        if peer.active { "" } else { " silent" }
                    );
                }
            }
            other => panic!("unknown command {other}; there are:{HELP}"),
        }
    }

    fn quiet(&mut self, id: NodeId, input: impl FnOnce(&mut Raft)) {
        self.cluster.input(id, input);
    }

    fn found(&mut self, rest: &[&str]) {
        let mut membership = Membership::of_voters(numbers(rest[0]));
        if let Some(learners) = rest.iter().find_map(|word| word.strip_prefix("learners=")) {
            membership.learners = numbers(learners).collect();
        }
        for id in membership.members() {
            self.cluster.add(id, Disk::founder(&membership));
        }
    }

    fn log_of(&mut self, rest: &[&str]) {
        let (mut hard_state, mut entries) = (HardState::default(), Vec::new());
        for word in &rest[1..] {
            if let Some(term) = word.strip_prefix("term=") {
                hard_state.term = Term(number(term));
            } else if let Some(vote) = word.strip_prefix("vote=") {
                hard_state.vote = Some(NodeId(number(vote)));
            } else if let Some((term, text)) = word.split_once(':') {
                let index = Index(entries.len() as u64 + 1);
                let (kind, data) = match text.strip_prefix('m') {
                    Some(voters) => {
                        let voters = voters.chars().map(|digit| NodeId(number(&digit.to_string())));
                        (EntryKind::Membership, Membership::of_voters(voters).encode())
                    }
                    None => (EntryKind::Command, Bytes::copy_from_slice(text.as_bytes())),
                };
                entries.push(Entry { index, term: Term(number(term)), kind, data });
            }
        }
        self.cluster.add(NodeId(number(rest[0])), Disk { hard_state, entries, ..Disk::blank() });
    }

    fn campaign(&mut self, id: NodeId) {
        let sent = |cluster: &Cluster| cluster.network.iter().filter(|message| message.from == id).count();
        let before = sent(&self.cluster);
        for _ in 0..2 * self.cluster.config.election_ticks {
            self.cluster.input(id, |raft| raft.tick());
            let role = self.cluster.raft(id).map(Raft::role);
            if sent(&self.cluster) > before || role != Some(Role::Follower) {
                return;
            }
        }
    }

    fn gather_votes(&mut self, id: NodeId) {
        for _ in 0..10 {
            for kind in ["PreVote", "PreVoteReply", "Vote", "VoteReply"] {
                while let Some(&at) = self.find(&[kind]).first() {
                    self.cluster.deliver(at);
                }
            }
            if self.cluster.raft(id).is_some_and(Raft::is_leader) {
                return;
            }
            let running = self.cluster.nodes.values().filter(|node| !node.stalled);
            for id in running.map(|node| node.id).collect::<Vec<_>>() {
                self.cluster.persist(id, usize::MAX);
            }
        }
    }

    fn snapshot(&mut self, name: &str, from: NodeId, to: NodeId, out: &mut String) {
        if name == "snapshot-failed" {
            self.cluster.snapshots_wanted.retain(|&(a, b, _)| (a, b) != (from, to));
            return self.quiet(from, |raft| raft.handle_snapshot_sent(to, SnapshotOutcome::Failed));
        }
        let wanted = &mut self.cluster.snapshots_wanted;
        let Some(at) = wanted.iter().position(|&(a, b, _)| (a, b) == (from, to)) else {
            return out.push_str("none is wanted\n");
        };
        let (.., term) = wanted.remove(at);
        match name {
            "snapshot" => self.cluster.snapshot(from, to, term),
            _ => {
                let state = self.cluster.node(from).state;
                let raft = self.cluster.raft(from).expect("a running node");
                let meta = raft.snapshot_meta_at(state.applied).expect("a snapshot");
                self.delayed.push((from, to, term, meta, state));
            }
        }
    }

    fn deliver(&mut self, rest: &[&str], out: &mut String) {
        let limit = rest.last().and_then(|word| word.parse::<usize>().ok());
        for _ in 0..limit.unwrap_or_else(|| self.find(rest).len()) {
            let Some(&at) = self.find(rest).first() else { return };
            let message = self.cluster.network[at].clone();
            let (from, to) = (message.from, message.to);
            let lost = self.cluster.cut.contains(&(from, to)) || self.cluster.raft(to).is_none();
            let _ = writeln!(out, "{}{}", print_message(&message), if lost { " (lost)" } else { "" });
            self.cluster.deliver(at);
            for event in std::mem::take(&mut self.cluster.events) {
                let _ = writeln!(out, "{}", print_event(&event));
            }
        }
    }

    /// The places of the messages that a link and a kind select.
    fn find(&self, filter: &[&str]) -> Vec<usize> {
        let link = filter.iter().find_map(|word| word.split_once("->"));
        let kind = filter.iter().find(|word| word.starts_with(|first: char| first.is_ascii_uppercase()));
        let selected = self.cluster.network.iter().enumerate().filter(|(_, message)| {
            link.is_none_or(|(from, to)| {
                (from == "*" || message.from == NodeId(number(from)))
                    && (to == "*" || message.to == NodeId(number(to)))
            }) && kind.is_none_or(|kind| kind_of(&message.body) == *kind)
        });
        selected.map(|(at, _)| at).collect()
    }

    fn remove(&mut self, filter: &[&str]) -> Vec<Message> {
        let mut removed = Vec::new();
        while let Some(&at) = self.find(filter).first() {
            removed.extend(self.cluster.network.remove(at));
        }
        removed
    }

    fn partition(&mut self, rest: &[&str]) {
        let groups: Vec<Vec<NodeId>> =
            rest.iter().filter(|word| **word != "|").map(|word| numbers(word).collect()).collect();
        for (at, group) in groups.iter().enumerate() {
            for (_, other) in groups.iter().enumerate().filter(|(other, _)| *other != at) {
                for &from in group {
                    self.cluster.cut.extend(other.iter().map(|&to| (from, to)));
                }
            }
        }
    }

    fn status(&self, rest: &[&str], out: &mut String) {
        let wanted: Vec<NodeId> = rest.iter().map(|word| NodeId(number(word))).collect();
        for node in self.cluster.nodes.values().filter(|node| wanted.is_empty() || wanted.contains(&node.id))
        {
            let Some(raft) = &node.raft else {
                let _ = writeln!(out, "{}: down", node.id);
                continue;
            };
            let status = raft.status();
            let _ = writeln!(
                out,
                "{}: {:?} term={} leader={} vote={} commit={} applied={} stable={} last={}:{} {}",
                status.id,
                status.role,
                status.term,
                id(status.leader),
                id(status.vote),
                status.commit,
                status.applied,
                status.stable,
                raft.term_at(status.last).unwrap_or_default(),
                status.last,
                print_membership(&status.membership)
            );
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn numbers(list: &str) -> impl Iterator<Item = NodeId> {
    list.split(',').map(|word| NodeId(number(word)))
}

fn change(word: &str) -> Option<Change> {
    if let Some(id) = word.strip_prefix("+v") {
        Some(Change::AddVoter(NodeId(number(id))))
    } else if let Some(id) = word.strip_prefix("+l") {
        Some(Change::AddLearner(NodeId(number(id))))
    } else {
        word.strip_prefix('-').map(|id| Change::Remove(NodeId(number(id))))
    }
}

fn show<E: std::fmt::Display>(out: &mut String, result: Option<Result<String, E>>) {
    let _ = match result {
        None => writeln!(out, "down"),
        Some(Ok(text)) => writeln!(out, "{text}"),
        Some(Err(error)) => writeln!(out, "refused: {error}"),
    };
}

fn id(id: Option<NodeId>) -> String {
    id.map_or("-".to_owned(), |id| id.to_string())
}

fn print_membership(membership: &Membership) -> String {
    let list = |set: &std::collections::BTreeSet<NodeId>| {
        set.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",")
    };
    let mut text = format!("voters={}", list(&membership.voters));
    for (name, set) in [
        ("outgoing", &membership.outgoing),
        ("learners", &membership.learners),
        ("learners-next", &membership.learners_next),
    ] {
        if !set.is_empty() {
            text += &format!(" {name}={}", list(set));
        }
    }
    if !membership.context.is_empty() {
        text += &format!(" context={}", String::from_utf8_lossy(&membership.context));
    }
    text
}

fn print_entry(entry: &Entry) -> String {
    let text = match entry.kind {
        EntryKind::Command => String::from_utf8_lossy(&entry.data).into_owned(),
        kind => kind_letter(kind).to_string(),
    };
    format!("{}:{}={text}", entry.term, entry.index)
}

fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteReply { .. } => "PreVoteReply",
        Body::Vote { .. } => "Vote",
        Body::VoteReply { .. } => "VoteReply",
        Body::Append { .. } => "Append",
        Body::AppendAccepted { .. } => "AppendAccepted",
        Body::AppendRejected { .. } => "AppendRejected",
        Body::Heartbeat { .. } => "Heartbeat",
        Body::HeartbeatReply { .. } => "HeartbeatReply",
        Body::TimeoutNow { .. } => "TimeoutNow",
        Body::SnapshotInstalled { .. } => "SnapshotInstalled",
    }
}

fn print_message(message: &Message) -> String {
    let detail = match &message.body {
        Body::PreVote { last_index, last_term } => format!("last={last_term}:{last_index}"),
        Body::Vote { last_index, last_term, transfer } => {
            format!("last={last_term}:{last_index}{}", if *transfer { " transfer" } else { "" })
        }
        Body::PreVoteReply { granted } | Body::VoteReply { granted } => {
            if *granted { "granted" } else { "refused" }.to_owned()
        }
        Body::Append { prev_index, prev_term, entries, commit } => {
            let entries = entries.iter().map(print_entry).collect::<Vec<_>>().join(" ");
            format!("prev={prev_term}:{prev_index} [{entries}] commit={commit}")
        }
        Body::AppendAccepted { match_index } | Body::SnapshotInstalled { match_index } => {
            format!("match={match_index}")
        }
        Body::AppendRejected { prev_index, hint_index, hint_term } => {
            format!("prev={prev_index} hint={hint_term}:{hint_index}")
        }
        Body::Heartbeat { commit, context } => format!("commit={commit} context={context}"),
        Body::HeartbeatReply { context } => format!("context={context}"),
        Body::TimeoutNow { last_index } => format!("last={last_index}"),
    };
    format!("{}->{} term={} {} {detail}", message.from, message.to, message.term, kind_of(&message.body))
}

fn print_event(event: &Event) -> String {
    match event {
        Event::Role(node, role, term, leader) => {
            format!("{node}: {role:?} in term {term}, leader {}", id(*leader))
        }
        Event::Committed(node, index) => format!("{node}: commits {index}"),
        Event::Membership(node, membership) => format!("{node}: {}", print_membership(membership)),
        Event::ReadConfirmed(node, read) => format!("{node}: read {} at {}", read.id.0, read.index),
        Event::ReadDropped(node, read) => format!("{node}: drops read {}", read.0),
        Event::SnapshotWanted(node, peer) => format!("{node}: wants to send {peer} a snapshot"),
        Event::Snapshot(from, to, index, told) => format!("{from}->{to} snapshot at {index}: {told}"),
    }
}

/// The script with its output written anew.
fn replay(text: &str) -> String {
    let mut script = Script::new();
    let mut replayed = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        replayed.push_str(line);
        replayed.push('\n');
        if !line.trim().is_empty() && !line.starts_with('#') {
            for shown in script.run(line).lines() {
                let _ = writeln!(replayed, "  {shown}");
            }
        }
    }
    replayed
}

#[test]
fn scripts_play_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let bless = std::env::var_os("BALSA_BLESS").is_some();
    let listing = std::fs::read_dir(&folder).expect("the folder of scripts");
    let mut paths: Vec<_> = listing.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut failures = Vec::new();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read_to_string(&path).expect("a readable script");
        assert!(text.starts_with("# "), "{name} has no sentence of intent");
        println!("{name}");
        let replayed = replay(&text);
        if bless {
            std::fs::write(&path, &replayed).expect("a writable script");
        } else if replayed != text {
            let difference = text.lines().zip(replayed.lines()).enumerate().find(|(_, (a, b))| a != b);
            failures.push(format!("{name} differs, first at {difference:?}"));
        }
    }
    assert!(failures.is_empty(), "{}\nBALSA_BLESS=1 writes the output anew", failures.join("\n"));
}
