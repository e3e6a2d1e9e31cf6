//! The failover test: against any cluster, under load, the leader is struck and must be replaced, and afterwards every
//! write is what its client was told.
//!
//! 1. Basic operations, each read back.
//! 2. An open loop of writes of unique keys and of reads of acknowledged ones, each with a deadline, over several
//!    clients; meanwhile the leader is struck by a [`Striker`], once or more often.
//! 3. Every write is read back: acknowledged ones are there, at their revision and in their first version; those not
//!    applied are absent; of the others, none is there twice.
//!
//! It knows how to strike nobody itself: that is the striker's.
//!
//! ```no_run
//! # async fn example() -> Result<(), balsa_client::failover::Failure> {
//! use balsa_client::failover::{self, Command, Plan};
//!
//! let plan = Plan::new(["http://127.0.0.1:3000", "http://127.0.0.1:3001", "http://127.0.0.1:3002"]);
//! let mut kill = Command::new("kill -9 $(cat balsa-data/node-$((BALSA_LEADER_SLOT + 1))/balsa.pid)");
//! let report = failover::run(&plan, &mut kill).await?;
//! println!("{report}");
//! assert!(report.violations().is_empty());
//! # Ok(())
//! # }
//! ```

mod command;
mod load;
mod processes;
mod record;
mod report;
mod verify;

pub use command::Command;
pub use processes::Processes;
pub use report::{Counts, Pause, Report};

use crate::{Client, ExactlyOnce};
use balsa_wire::cluster::{ClusterAnswer, Health, Member, Role};
use std::future::Future;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster: `http://HOST:PORT` or `HOST:PORT`, one or more.
    pub endpoints: Vec<String>,
    /// Clients, each with connections and a session of its own.
    pub clients: usize,
    /// Writes a second, over all clients.
    pub writes_per_second: u32,
    /// Reads a second, over all clients.
    pub reads_per_second: u32,
    /// The deadline of an operation.
    pub timeout: Duration,
    /// How often the leader is struck.
    pub strikes: u32,
    /// How long the load runs undisturbed before the first strike and after each.
    pub calm: Duration,
    /// How long the cluster may take to name a new leader, and to be whole again before the next strike.
    pub patience: Duration,
    /// What all keys begin with.
    pub prefix: String,
    /// The keys are deleted once all was read back; else they are left in the cluster.
    pub clean: bool,
}

impl Plan {
    /// The load of the contract: 200 writes/s and 200 reads/s by 8 clients, 5 s an operation, one strike.
    pub fn new<T: Into<String>>(endpoints: impl IntoIterator<Item = T>) -> Plan {
        Plan {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            clients: 8,
            writes_per_second: 200,
            reads_per_second: 200,
            timeout: Duration::from_secs(5),
            strikes: 1,
            calm: Duration::from_secs(1),
            patience: Duration::from_secs(60),
            prefix: format!("failover-test/{:08x}", crate::transport::random()),
            clean: false,
        }
    }

    fn client(&self) -> Result<Client, Failure> {
        let building = Client::builder().endpoints(self.endpoints.clone()).timeout(self.timeout);
        building.exactly_once(ExactlyOnce::Session).build().map_err(|error| Failure(error.to_string()))
    }
}

/// Who strikes the leader.
pub trait Striker {
    /// Strikes `leader`; done once it has.
    fn strike(&mut self, leader: &Member) -> impl Future<Output = Result<(), String>> + Send;

    /// Brings the one that was struck back; nothing where something else does.
    fn heal(&mut self, leader: &Member) -> impl Future<Output = Result<(), String>> + Send;
}

/// Why the test could not go on, or what it found besides [`Report::violations`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// How often the cluster is asked who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the test; what it found is in the report, violations too.
pub async fn run(plan: &Plan, striker: &mut impl Striker) -> Result<Report, Failure> {
    if plan.clients == 0 || plan.writes_per_second == 0 {
        return Err(Failure("a failover test needs at least one client and one write a second".to_owned()));
    }
    let client = plan.client()?;
    wait_until_whole(&client, plan.patience).await?;
    verify::basics(&client, &plan.prefix).await?;

    under_load(plan, async || {
        let mut strikes = Vec::new();
        for _ in 0..plan.strikes {
            tokio::time::sleep(plan.calm).await;
            let (leader, term) = wait_until_whole(&client, plan.patience).await?;
            let at = Instant::now();
            striker.strike(&leader).await.map_err(Failure)?;
            wait_until_elected(&client, term, plan.patience).await?;
            strikes.push(at);
            tokio::time::sleep(plan.calm).await;
            striker.heal(&leader).await.map_err(Failure)?;
        }
        Ok(strikes)
    })
    .await
}

/// Whatever `deed` does to the cluster, under the plan's load: what a client saw of it. The moments that it gives are
/// those whose gaps are told one by one; the plan's strikes are not used.
pub async fn under_load(
    plan: &Plan,
    deed: impl AsyncFnOnce() -> Result<Vec<Instant>, Failure>,
) -> Result<Report, Failure> {
    let client = plan.client()?;
    let load = load::Load::start(plan)?;
    let outcome = deed().await;
    let records = load.finish().await;
    let moments = outcome?;
    let findings = verify::read_back(&client, &records.writes).await?;
    if plan.clean {
        verify::delete_all(&client, &records.writes).await?;
    }
    Ok(Report::of(records, findings, &moments))
}

/// Waits until a leader says that all members answer; gives the leader and its term.
async fn wait_until_whole(client: &Client, patience: Duration) -> Result<(Member, u64), Failure> {
    let whole = |seen: &ClusterAnswer| {
        let healthy = seen.members.iter().all(|member| member.health == Health::Healthy);
        let caught_up = seen.members.iter().all(|member| member.lag.is_some_and(|lag| lag < 1_000));
        let leads = seen.role == Role::Leader && healthy && caught_up;
        seen.members.iter().find(|member| leads && member.leader).map(|leader| (leader.clone(), seen.term))
    };
    look_until("all members to answer the leader", client, patience, whole).await
}

/// Waits until somebody leads in a later term than this: perhaps the one that was struck, if it was back that soon.
async fn wait_until_elected(client: &Client, term: u64, patience: Duration) -> Result<(), Failure> {
    let elected = |seen: &ClusterAnswer| (seen.leader.is_some() && seen.term > term).then_some(());
    look_until(&format!("a leader of a later term than {term}"), client, patience, elected).await
}

async fn look_until<T>(
    what: &str,
    client: &Client,
    patience: Duration,
    look: impl Fn(&ClusterAnswer) -> Option<T>,
) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        let seen = client.status().await;
        if let Some(found) = seen.as_ref().ok().and_then(&look) {
            return Ok(found);
        }
        if started.elapsed() > patience {
            return Err(Failure(format!("waited {patience:?} in vain for {what}; seen last: {seen:?}")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
