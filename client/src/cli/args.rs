//! What can be said on the command line.

use super::{duration, wait};
use crate::bench::Op;
use crate::failover::Plan;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
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
  1  not applied: refused, not found, or no node was reached; for failover-test and check: a violation or error;
     for bench: requests that failed; also where the reader of a backup or a history went away
  2  usage: the arguments make no sense, nothing was asked
  3  unknown: a write that may have been applied; read to see

Answers go to standard output, all else to standard error. Colours and progress are for terminals only (NO_COLOR: no
colours). `balsa completion bash|zsh|fish` prints completion for a shell, `balsa man` the manual."
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
        /// What it was at this revision of the store
        #[arg(long, value_name = "REVISION")]
        revision: Option<u64>,
    },
    /// Print changes as they come, a line each
    #[command(after_help = "\
  balsa watch app/config                  one key, from now on
  balsa watch --prefix app/ --from 17     all keys below app/, from revision 17 on
  balsa -o json watch --prefix '' | jq .  all keys, for programs

It goes on by itself where a node goes away, and misses nothing. It ends with exit code 1 where what it wants is
compacted. A line `progress` says that all up to its revision was printed.")]
    Watch(WatchArgs),
    /// Forget history: what is needed only to read or watch from revisions below the one given
    Compact {
        /// The oldest revision that stays readable
        revision: u64,
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
    /// Print the keys of a range with their values, in order
    Range(RangeArgs),
    /// Delete all keys that begin so, in slices
    DeletePrefix {
        /// How they begin
        prefix: String,
    },
    /// Do a transaction that a JSON file describes
    #[command(after_help = "\
The file is the body of POST /v1/txn (docs/api.md), as in

  {\"if\": [{\"key\": \"a\", \"value\": 1}], \"then\": [{\"put\": {\"key\": \"a\", \"value\": 2}}], \"else\": [{\"get\": {\"key\": \"a\"}}]}

Exit code 1: the conditions did not hold, and `else` was done.")]
    Txn {
        /// The file; `-` for standard input
        file: String,
    },
    /// Grant a lease, keep it alive, end it, show it
    Lease {
        /// What to do
        #[command(subcommand)]
        command: LeaseCommand,
    },
    /// Run a command while a lock is held; the command is ended when the lock is lost
    #[command(after_help = "\
The command finds its fencing token in BALSA_LOCK_TOKEN. As in

  balsa lock nightly --wait 30s -- ./nightly.sh

Exit code: that of the command; 1: the lock was not got, or was lost.")]
    Lock(LockArgs),
    /// Stand for an election, and run a command while leading
    #[command(after_help = "\
While it leads, the key of that name has its value: `balsa get NAME` shows who leads, `balsa watch NAME` tells. Without a command
it leads until it is interrupted. As in

  balsa elect leader --value \"$HOSTNAME\" -- ./serve.sh")]
    Elect(ElectArgs),
    /// Delete every key of the cluster
    Clear {
        /// You mean it
        #[arg(long)]
        yes: bool,
    },
    /// Keep all that the cluster holds in a file, while it serves
    #[command(after_help = "\
  balsa backup balsa.backup                    into a file, which is there only once it is whole
  balsa backup - | gzip > balsa.backup.gz      onto standard output
  balsa backup --verify balsa.backup           from its first byte to its last; no node is asked

The backup is a state that stands still, no older than the call, from any node: keys with their revisions, leases,
recorded replies, sessions. Each part is checked as it arrives. To make a new cluster of one:

  balsa-node restore balsa.backup --data DIR

Exit code 1: it is not whole; --verify: damaged, cut off, or no backup.")]
    Backup(BackupArgs),
    /// Make a new cluster of one of a backup, in a blank data folder on this machine
    #[command(
        after_help = "\
Hands over to `balsa-node restore`, which `balsa restore --help` shows, too; the node's binary is the one beside this
program, or on the PATH. As in

  balsa restore balsa.backup --data DIR          checks all of it, says what it would do
  balsa restore balsa.backup --data DIR --yes    does it",
        disable_help_flag = true
    )]
    Restore {
        /// The backup, `--data DIR`, `--yes`, and what else `balsa-node restore` takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Show the cluster: members, leader, indexes, health
    Status,
    /// Show or change the members
    #[command(
        visible_alias = "member",
        after_help = "\
Nodes come in by themselves: start one with --join, and it learns, and votes once it has caught up.

  balsa-node serve --data data-3 --listen 127.0.0.1:3003 --peer-listen 127.0.0.1:3303 --join http://127.0.0.1:3000
  balsa members                        slots, roles, who lags, who does not answer
  balsa members remove --slot 3        then stop its process

A member keeps its slot for life. To replace one that is gone, start another node with its slot and an
empty data folder: it takes the place of the silent one once it has caught up, in one step.

  balsa-node serve --slot 2 --data data-new --listen ... --peer-listen ... --join http://127.0.0.1:3000

A change that would cost the cluster its quorum is refused, and says why. One at a time: others wait.
A removed node serves nothing; started again, it sets its data aside and joins as a new member."
    )]
    Members {
        /// What to do; nothing: list
        #[command(subcommand)]
        command: Option<MembersCommand>,
    },
    /// Hand leadership over
    Transfer {
        /// To which member, by its identity; nothing: the voter that is furthest
        #[arg(conflicts_with = "slot")]
        to: Option<String>,
        /// To the member at this slot
        #[arg(long)]
        slot: Option<u32>,
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
    /// A steady load, for as long as something else is done to the cluster; then check that no client noticed and
    /// nothing is lost
    #[command(after_help = "\
It ends after --duration, when the key of --until is there, or when it is interrupted, whatever comes first; then it
reads every write back. As in

  balsa load --until stop &
  kubectl rollout restart statefulset/balsa && kubectl rollout status statefulset/balsa
  balsa put stop 1; wait

Times without a write of 50 ms or more are told with when they began (in JSON). Exit code 1: a violation or an error.
It writes keys below load/ and leaves them there.")]
    Load(LoadArgs),
    /// Measure puts and gets: throughput, latencies, and what the servers spend on them
    #[command(after_help = "\
A closed loop: each connection sends its next request when it has its answer. Connections are spread evenly over
all endpoints from the leader on, so that a lone one goes to the leader. Compare with what HTTP alone costs on this machine, and with etcd through its JSON gateway, in one run,
interleaved in rounds; the table has the medians:

  balsa bench --connections 1,64 --duration 5s
  balsa bench --baseline --rounds 5 $(printf -- '--pid %s ' $(cat balsa-data/node-*/balsa.pid))
  balsa bench --op put --baseline --etcd http://127.0.0.1:2379,http://127.0.0.1:3379,http://127.0.0.1:4379

`server cpu` are the processor seconds, over all --pid together, for 100,000 requests; `generator` is this program's
own share of the machine. Figures mean something on a quiet machine, with data on a real disk and a release build.

It writes keys below bench/ and leaves them there.")]
    Bench(BenchArgs),
    /// Print a script that completes this tool's arguments in a shell
    #[command(after_help = "\
  balsa completion bash > /etc/bash_completion.d/balsa
  balsa completion zsh > \"${fpath[1]}/_balsa\"
  balsa completion fish > ~/.config/fish/completions/balsa.fish")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual as roff, for `man -l -`
    #[command(after_help = "\
  balsa man | man -l -
  balsa man lock | man -l -
  balsa man --all /usr/local/share/man/man1")]
    Man {
        /// Of this command; nothing: of the tool
        #[arg(conflicts_with = "all")]
        command: Option<String>,
        /// Write the pages of all commands into this folder
        #[arg(long, value_name = "DIR")]
        all: Option<PathBuf>,
    },
    /// The server of `bench --baseline`; ends with its standard input
    #[command(name = crate::bench::baseline::SUBCOMMAND, hide = true)]
    BenchBaseline,
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
    /// The key ends after so long, unless it is set again before
    #[arg(long, value_parser = duration, value_name = "TIME", conflicts_with = "lease")]
    pub ttl: Option<Duration>,
    /// The key ends with this lease
    #[arg(long, value_name = "N")]
    pub lease: Option<u64>,
    /// When to write
    #[command(flatten)]
    pub condition: ConditionArgs,
}

/// What to back up, and where to.
#[derive(Clone, Debug, ClapArgs)]
pub struct BackupArgs {
    /// The file; `-` for standard output
    pub file: PathBuf,
    /// Check the backup that is in the file, and tell what it is of
    #[arg(long)]
    pub verify: bool,
}

/// What to watch.
#[derive(Clone, Debug, ClapArgs)]
pub struct WatchArgs {
    /// The key
    #[arg(required_unless_present = "prefix")]
    pub key: Option<String>,
    /// All keys that begin so, in place of one; empty: all keys
    #[arg(long, value_name = "PREFIX", conflicts_with = "key")]
    pub prefix: Option<String>,
    /// From this revision on; nothing: from now on
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// Only these changes
    #[arg(long, value_enum)]
    pub events: Option<Events>,
    /// Print what was there before, too (in JSON)
    #[arg(long)]
    pub prev: bool,
    /// End after so many changes
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
}

/// Kinds of changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Events {
    /// A key was set.
    Put,
    /// A key was deleted.
    Delete,
}

/// What to read of a range.
#[derive(Clone, Debug, ClapArgs)]
pub struct RangeArgs {
    /// Keys that begin with this; nothing: all
    #[arg(conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
    /// From this key on
    #[arg(long, value_name = "KEY")]
    pub start: Option<String>,
    /// Up to this key, without it
    #[arg(long, value_name = "KEY")]
    pub end: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// The last key first
    #[arg(long)]
    pub desc: bool,
    /// Keys only
    #[arg(long)]
    pub keys: bool,
    /// How many there are, and nothing else
    #[arg(long, conflicts_with_all = ["keys", "limit"])]
    pub count: bool,
    /// As it was at this revision
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<u64>,
    /// What the asked node has, without asking the others: perhaps old
    #[arg(long)]
    pub stale: bool,
}

/// What to do with leases.
#[derive(Clone, Debug, Subcommand)]
pub enum LeaseCommand {
    /// Grant one, and print its number; nothing keeps it alive
    Grant {
        /// How long it lasts without a sign of life
        #[arg(value_parser = duration, value_name = "TIME")]
        ttl: Duration,
    },
    /// Give a sign of life, once
    Keep {
        /// Its number
        lease: u64,
    },
    /// End it, with its keys and locks
    Revoke {
        /// Its number
        lease: u64,
    },
    /// Show it, with its keys
    Get {
        /// Its number
        lease: u64,
    },
    /// Show all
    List,
}

/// What to run under which lock.
#[derive(Clone, Debug, ClapArgs)]
pub struct LockArgs {
    /// The lock's name; slashes are part of it
    pub name: String,
    /// How long it stays with a holder that died
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub ttl: Duration,
    /// How long to wait for it; nothing: not at all
    #[arg(long, default_value = "0s", value_parser = wait, value_name = "TIME")]
    pub wait: Duration,
    /// A key that shows that it is held
    #[arg(long, value_name = "KEY")]
    pub show: Option<String>,
    /// The value of that key
    #[arg(long, requires = "show")]
    pub value: Option<String>,
    /// The command, and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Whom to stand for, and what to run.
#[derive(Clone, Debug, ClapArgs)]
pub struct ElectArgs {
    /// The election's name, and the key that shows who leads
    pub name: String,
    /// What others see of this candidate while it leads: JSON as it is, other text as a JSON string
    #[arg(long)]
    pub value: String,
    /// How long a leader that died stays in its place
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub ttl: Duration,
    /// How long to wait for its turn
    #[arg(long, default_value = "10m", value_parser = wait, value_name = "TIME")]
    pub wait: Duration,
    /// The command, and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
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
    /// Take a node in by hand; one that is started with --join does this itself
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
    /// Make a learner a voter now; the leader does this itself once it has caught up
    Promote(MemberArgs),
    /// Take a member out for good; the leader hands over first
    Remove(MemberArgs),
}

/// Which member.
#[derive(Clone, Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct MemberArgs {
    /// Its identity, in hexadecimal digits
    pub id: Option<String>,
    /// Its slot
    #[arg(long)]
    pub slot: Option<u32>,
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
    /// How heavy the load is.
    #[command(flatten)]
    pub rate: RateArgs,
}

/// How heavy a load is.
#[derive(Clone, Debug, ClapArgs)]
pub struct RateArgs {
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

impl RateArgs {
    /// A plan with this load.
    pub(super) fn plan(&self, named: Plan) -> Plan {
        Plan {
            clients: self.clients,
            writes_per_second: self.writes_per_second,
            reads_per_second: self.reads_per_second,
            timeout: self.operation_timeout,
            ..named
        }
    }
}

/// A steady load.
#[derive(Clone, Debug, ClapArgs)]
pub struct LoadArgs {
    /// End after this time
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// End when this key is there
    #[arg(long, value_name = "KEY")]
    pub until: Option<String>,
    /// How heavy the load is.
    #[command(flatten)]
    pub rate: RateArgs,
}

/// What to measure.
#[derive(Clone, Debug, ClapArgs)]
pub struct BenchArgs {
    /// What to do; nothing: puts, then gets
    #[arg(long, value_enum, value_delimiter = ',')]
    pub op: Vec<Op>,
    /// By how many connections at once; several numbers are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "NUMBER")]
    pub connections: Vec<usize>,
    /// How long each load counts
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub duration: Duration,
    /// How long each load runs before it counts
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub warmup: Duration,
    /// How often everything is measured
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER")]
    pub keys: usize,
    /// The size of values, in bytes of JSON
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub value_bytes: usize,
    /// A node's process on this machine, to count its processor time; may be said for each
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Measure a server that does nothing, too: what HTTP alone costs here
    #[arg(long)]
    pub baseline: bool,
    /// Measure etcd's JSON gateway, too: its client URLs, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "URLS")]
    pub etcd: Vec<String>,
    /// A process of etcd on this machine; may be said for each
    #[arg(long, value_name = "PID", requires = "etcd")]
    pub etcd_pid: Vec<u32>,
}
