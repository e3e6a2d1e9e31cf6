//! What can be said on the command line.

use super::duration;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Talks to a Balsa cluster: a strongly consistent, replicated key-value store.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "balsa",
    version,
    after_help = "\
Examples:
  balsa put app/config '{\"color\":\"blue\"}'      JSON is written as it is, any other text as a JSON string
  balsa get app/config
  balsa put app/config - < config.json          the value from standard input
  balsa put app/lock me --if-absent             create only; exit code 1 if somebody else was faster
  balsa -o json get app/config | jq .revision
  balsa --endpoints http://a:3000,http://b:3000 status

Any node takes any request, so one endpoint is enough; with more, a node that is down is not noticed.
A call is retried until its deadline; a write is applied once, however often it is sent.

Exit codes:
  0  done
  1  not applied: refused, not found, or no node was reached; for failover-test and check: a violation or error
  2  usage: the arguments make no sense, nothing was asked
  3  unknown: a write that may have been applied; read to see"
)]
pub struct Args {
    /// Nodes to ask, separated by commas
    #[arg(
        long,
        global = true,
        env = "BALSA_ENDPOINTS",
        default_value = "http://127.0.0.1:3000",
        value_name = "URLS"
    )]
    pub endpoints: String,
    /// Deadline of the call, over all retries: a number with ms, s or m
    #[arg(long, global = true, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// How the answer is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How answers are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: the node's answer as it is; errors as problem documents on standard error.
    Json,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print a key's value, as a quorum confirms it
    Get {
        /// The key; slashes are part of it
        key: String,
        /// The value's bytes, and nothing else
        #[arg(long)]
        raw: bool,
        /// What the asked node has, without asking the others: perhaps old
        #[arg(long)]
        stale: bool,
    },
    /// Write a key
    Put(PutArgs),
    /// Delete a key; one that is absent is no error
    Delete {
        /// The key
        key: String,
        /// Only where the key's revision is this one
        #[arg(long, value_name = "REVISION", conflicts_with = "if_exists")]
        if_revision: Option<u64>,
        /// Only where the key is there
        #[arg(long)]
        if_exists: bool,
        /// Print what was there
        #[arg(long)]
        prev: bool,
    },
    /// Delete every key of the cluster
    Clear {
        /// You mean it
        #[arg(long)]
        yes: bool,
    },
    /// Show the cluster: members, leader, indexes, health
    Status,
    /// Show or change the members
    Members {
        /// What to do; nothing: list
        #[command(subcommand)]
        command: MembersCommand,
    },
    /// Hand leadership over
    Transfer {
        /// To which member, by its identity; nothing: the voter that is furthest
        to: Option<String>,
    },
    /// Judge whether a recorded history of operations is linearizable; asks no node
    #[command(after_help = "\
The file has a JSON object a line, one line an operation; docs/history.md describes it.

Exit codes: 0 linearizable, 1 violation, 2 the file cannot be read or nobody can decide.")]
    Check {
        /// The history; `-` for standard input
        file: PathBuf,
        /// Draw a violation as a page
        #[arg(long, value_name = "OUT")]
        html: Option<PathBuf>,
        /// Draw a violation as an image
        #[arg(long, value_name = "OUT")]
        svg: Option<PathBuf>,
    },
    /// Strike the leader under load, and check that no client notices and nothing is lost
    #[command(after_help = "\
The command runs by `sh -c`, with the leader in its environment: BALSA_LEADER_ID, BALSA_LEADER_SLOT,
BALSA_LEADER_ADDRESS (for clients) and BALSA_LEADER_PEER_ADDRESS. As in

  balsa failover-test --kill-command 'kill -9 $(cat balsa-data/node-$((BALSA_LEADER_SLOT + 1))/balsa.pid)'
  balsa failover-test --processes --kills 20
  balsa failover-test --kill-command 'kubectl delete pod balsa-$BALSA_LEADER_SLOT --grace-period=0 --force'

It writes keys below failover-test/ and leaves them there.")]
    FailoverTest(FailoverArgs),
}

/// What to write.
#[derive(Clone, Debug, ClapArgs)]
pub struct PutArgs {
    /// The key; slashes are part of it
    pub key: String,
    /// The value: JSON as it is, other text as a JSON string, `-` for standard input
    pub value: String,
    /// Store the value's bytes with this type instead of JSON, as in text/plain
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Print what was there before
    #[arg(long)]
    pub prev: bool,
    /// When to write
    #[command(flatten)]
    pub condition: ConditionArgs,
}

/// When to write.
#[derive(Clone, Debug, ClapArgs)]
#[group(multiple = false)]
pub struct ConditionArgs {
    /// Only where the key's revision is this one
    #[arg(long, value_name = "REVISION")]
    pub if_revision: Option<u64>,
    /// Only where the key is absent
    #[arg(long)]
    pub if_absent: bool,
    /// Only where the key is there
    #[arg(long)]
    pub if_exists: bool,
}

/// A condition that was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The key's revision is this one.
    Revision(u64),
    /// The key is absent.
    Absent,
    /// The key is there.
    Exists,
}

impl ConditionArgs {
    /// The one that was chosen.
    pub fn chosen(&self) -> Option<Condition> {
        match self.if_revision {
            Some(revision) => Some(Condition::Revision(revision)),
            None if self.if_absent => Some(Condition::Absent),
            None => self.if_exists.then_some(Condition::Exists),
        }
    }
}

/// What to do with members.
#[derive(Clone, Debug, Subcommand)]
pub enum MembersCommand {
    /// Show them
    List,
    /// Take a node in, as a learner
    Add {
        /// Its identity, in hexadecimal digits
        id: String,
        /// Where peers reach it
        #[arg(long, value_name = "HOST:PORT")]
        peer_address: String,
        /// Where clients reach it
        #[arg(long, value_name = "HOST:PORT")]
        client_address: String,
        /// Its slot; nothing: the lowest free one
        #[arg(long)]
        slot: Option<u32>,
    },
    /// Make a learner that has caught up a voter
    Promote {
        /// Its identity
        id: String,
    },
    /// Take a member out
    Remove {
        /// Its identity
        id: String,
    },
}

/// How to test failover.
#[derive(Clone, Debug, ClapArgs)]
pub struct FailoverArgs {
    /// Strikes the leader
    #[arg(long, value_name = "COMMAND", required_unless_present = "processes")]
    pub kill_command: Option<String>,
    /// Start three nodes on this machine, test those, and kill them with -9; the endpoints are not used
    #[arg(long, conflicts_with_all = ["kill_command", "heal_command"])]
    pub processes: bool,
    /// The node's binary for --processes; nothing: the one beside this program, or on the PATH
    #[arg(long, value_name = "FILE", requires = "processes")]
    pub node_binary: Option<PathBuf>,
    /// Where --processes keeps the nodes' data while it runs
    #[arg(long, value_name = "DIR", requires = "processes", default_value = ".")]
    pub data: PathBuf,
    /// Brings it back, where nothing else does
    #[arg(long, value_name = "COMMAND")]
    pub heal_command: Option<String>,
    /// How often the leader is struck
    #[arg(long, default_value_t = 1)]
    pub kills: u32,
    /// Writes a second
    #[arg(long, default_value_t = 200)]
    pub writes_per_second: u32,
    /// Reads a second
    #[arg(long, default_value_t = 200)]
    pub reads_per_second: u32,
    /// Clients that share the load
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
    /// Deadline of an operation under load
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub operation_timeout: Duration,
}
