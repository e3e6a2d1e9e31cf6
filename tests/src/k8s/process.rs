//! What this machine sees of the containers on it: their processes. Needs the cluster's nodes to be on this machine, as
//! with kind or the lab, and root.

use crate::failure::{Context, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the chart's nodes have their data, as they see it.
const DATA: &str = "var/lib/balsa/data";

/// The node's process in this container (`containerd://ID`).
pub fn of_container(container: &str) -> Outcome<u32> {
    let id = container.rsplit('/').next().unwrap_or(container);
    let belongs = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.contains(id)
    };
    let found = processes()?.into_iter().find(|pid| belongs(pid) && is_node(*pid));
    found.ok_or_else(|| Failure(format!("no process of container {container} is seen on this machine")))
}

/// Kills it, with -9.
pub fn kill(pid: u32) -> Outcome<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure("a process number is out of range".into()))?;
    kill_process(pid, Signal::KILL).context("kill a node's process")
}

/// Whether the process is there, and not merely unburied.
pub fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// The nodes that have files of their log open, as (folder, process): a folder is named by its device and inode.
pub fn writers() -> Outcome<BTreeSet<((u64, u64), u32)>> {
    let writer = |pid: u32| {
        let folder = fs::metadata(format!("/proc/{pid}/root/{DATA}")).ok()?;
        has_log_open(pid).then_some(((folder.dev(), folder.ino()), pid))
    };
    Ok(processes()?.into_iter().filter(|pid| is_node(*pid)).filter_map(writer).collect())
}

/// Folders with more than one writer, with them.
pub fn shared_folders() -> Outcome<Vec<(u32, u32)>> {
    let writers: Vec<_> = writers()?.into_iter().collect();
    let pairs = writers.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    Ok(pairs.map(|pair| (pair[0].1, pair[1].1)).collect())
}

fn has_log_open(pid: u32) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let log = Path::new("/").join(DATA).join("log");
    open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(&log)))
}

fn is_node(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "balsa-node")
}

fn processes() -> Outcome<Vec<u32>> {
    let all = fs::read_dir("/proc").context("list the processes of this machine")?;
    Ok(all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
