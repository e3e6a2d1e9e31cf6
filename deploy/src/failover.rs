//! `failover-test`: the client crate's failover test, which strikes by deleting the leader's Pod.
//!
//! Under an account that may delete Pods and nothing more it needs `--endpoints`; else it finds them by itself. It runs
//! where the nodes' addresses can be reached: in a Pod of the cluster. Nothing is left behind.

use crate::context::Context;
use crate::{Failure, Outcome};
use balsa_client::failover::{self, Plan, Striker};
use balsa_wire::cluster::Member;

/// Deletes the leader's Pod; its StatefulSet makes another.
pub struct DeletePod {
    context: Context,
    by_force: bool,
}

impl Striker for DeletePod {
    async fn strike(&mut self, leader: &Member) -> Result<(), String> {
        self.context.delete_pod(leader.slot, self.by_force).await.map_err(|Failure(why)| why)
    }

    async fn heal(&mut self, _: &Member) -> Result<(), String> {
        Ok(())
    }
}

/// How it is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the nodes serve clients; empty: as the members say.
    pub endpoints: Vec<String>,
    /// How often the leader's Pod is deleted.
    pub kills: u32,
    /// Without any grace: the process is killed, and the Pod is gone for Kubernetes before it is.
    pub by_force: bool,
    /// Writes a second, and reads a second.
    pub per_second: u32,
}

/// Runs the test and prints its table; fails where anything was lost, applied twice, or failed within its deadline.
pub async fn run(context: &Context, options: &Options) -> Outcome<()> {
    let endpoints = match options.endpoints.is_empty() {
        false => options.endpoints.clone(),
        true => {
            let observed = context.observe().await?;
            observed.members().iter().map(|member| format!("http://{}", member.client_address)).collect()
        }
    };
    if endpoints.is_empty() {
        return Err(Failure("no member is known: give --endpoints".into()));
    }
    let plan = Plan {
        strikes: options.kills,
        writes_per_second: options.per_second,
        reads_per_second: options.per_second,
        clean: true,
        ..Plan::new(endpoints)
    };
    let mut striker = DeletePod { context: context.clone(), by_force: options.by_force };
    let report = failover::run(&plan, &mut striker).await.map_err(|failure| Failure(failure.0))?;
    println!("{report}");
    report.judge().map_err(|failure| Failure(failure.0))
}
