//! A striker that runs a command.

use super::Striker;
use balsa_wire::cluster::Member;
use std::process::Stdio;

/// Strikes by `sh -c COMMAND`, which finds the leader in its environment: `BALSA_LEADER_ID`, `BALSA_LEADER_SLOT`,
/// `BALSA_LEADER_ADDRESS` (for clients) and `BALSA_LEADER_PEER_ADDRESS`. Healing is another such command, or nobody's.
#[derive(Clone, Debug)]
pub struct Command {
    strike: String,
    heal: Option<String>,
}

impl Command {
    /// Strikes by this command; something else brings the node back.
    pub fn new(strike: impl Into<String>) -> Command {
        Command { strike: strike.into(), heal: None }
    }

    /// Brings the node back by this command.
    pub fn heal_by(mut self, heal: impl Into<String>) -> Command {
        self.heal = Some(heal.into());
        self
    }
}

impl Striker for Command {
    async fn strike(&mut self, leader: &Member) -> Result<(), String> {
        run(&self.strike, leader).await
    }

    async fn heal(&mut self, leader: &Member) -> Result<(), String> {
        match &self.heal {
            Some(heal) => run(heal, leader).await,
            None => Ok(()),
        }
    }
}

async fn run(command: &str, leader: &Member) -> Result<(), String> {
    let status = tokio::process::Command::new("sh")
        .args(["-c", command])
        .env("BALSA_LEADER_ID", &leader.id)
        .env("BALSA_LEADER_SLOT", leader.slot.to_string())
        .env("BALSA_LEADER_ADDRESS", &leader.client_address)
        .env("BALSA_LEADER_PEER_ADDRESS", &leader.peer_address)
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(|error| format!("cannot run `sh -c '{command}'`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{command}` ended with {status}")) }
}
