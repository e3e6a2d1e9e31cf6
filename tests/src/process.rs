//! One node as a real process: started, killed, stopped, paused; never left behind.

use crate::binary;
use crate::failure::{Context, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a node's process is started: the same at every start.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its data folder.
    pub data: PathBuf,
    /// Where what it says is appended.
    pub log: PathBuf,
    /// What runs the binary, which comes after it: a command with its arguments; empty: nothing does.
    pub runner: Vec<String>,
    /// All arguments.
    pub arguments: Vec<String>,
    /// Environment variables beside this process's own.
    pub environment: Vec<(String, PathBuf)>,
}

/// A process that runs or has ended. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    recipe: Recipe,
    child: Option<Child>,
}

impl Process {
    /// One that is not started yet.
    pub fn new(recipe: Recipe) -> Process {
        Process { recipe, child: None }
    }

    /// How it is started.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// How it will be started from now on.
    pub fn recipe_mut(&mut self) -> &mut Recipe {
        &mut self.recipe
    }

    /// Starts it; it must not run.
    pub fn start(&mut self) -> Outcome<()> {
        assert!(self.child.is_none(), "started twice: {:?}", self.recipe);
        let log = File::options().create(true).append(true).open(&self.recipe.log);
        let log = log.context(format!("write {}", self.recipe.log.display()))?;
        let binary = binary::node()?;
        let mut words = self.recipe.runner.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let program = words.next().unwrap_or_default();
        let child = Command::new(program)
            .args(words)
            .args(&self.recipe.arguments)
            .envs(self.recipe.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .context(format!("start {}", binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it with -9 and waits for its end.
    pub fn kill(&mut self) -> Outcome<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().context("kill a node")?;
        child.wait().context("wait for a killed node")?;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Outcome<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Failure("there is no process to signal".to_string()))?;
        kill_process(pid, signal).context(format!("send {signal:?}"))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait().context("look at a node's process")?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Waits for its end.
    pub async fn wait_for_end(&mut self, patience: Duration) -> Outcome<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(Failure(format!("the node did not end within {patience:?}")))
    }

    /// Its resident memory, in bytes.
    pub fn resident_bytes(&self) -> Outcome<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that its resident memory ever was, in bytes.
    pub fn resident_bytes_peak(&self) -> Outcome<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> Outcome<u64> {
        let pid = self.pid().ok_or_else(|| Failure("there is no process to measure".to_string()))?;
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line
            .and_then(|line| line.trim().strip_suffix("kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Failure(format!("the process's status has no {name}")))
    }

    /// What it said, all of it.
    pub fn said(&self) -> String {
        std::fs::read(&self.recipe.log)
            .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines that it said.
    pub fn last_words(&self, lines: usize) -> String {
        let said = self.said();
        let all: Vec<&str> = said.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill(); // nothing more can be done about it
    }
}

/// An exit status for a person.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Where a node's log goes, beside its data folder.
pub fn log_beside(data: &Path) -> PathBuf {
    data.with_extension("log")
}
