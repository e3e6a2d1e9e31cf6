//! What a Pod says from now on until it ends: read as it comes, so that it is there when the Pod and its log are not.

use super::Namespace;
use crate::failure::{Context, Outcome};
use std::process::Stdio;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::process::Child;

/// How long after its Pod's end `kubectl attach` may take to end, too.
const END_LIMIT: Duration = Duration::from_secs(15);

/// `kubectl attach`, for as long as it is held.
#[derive(Debug)]
pub struct Attached {
    child: Child,
    file: NamedTempFile,
}

impl Attached {
    /// To a Pod that runs.
    pub fn to(namespace: &Namespace, pod: &str) -> Outcome<Attached> {
        let file = NamedTempFile::new().context("make a file for what a Pod says")?;
        let mut command = namespace.lab().command("kubectl");
        command.args(["--namespace", namespace.name(), "attach", "--quiet", pod]).stdin(Stdio::null());
        // The nodes' own log is on standard error, which kubectl hands through: both go to the end of one file.
        let both = || std::fs::OpenOptions::new().append(true).open(file.path()).context("open that file");
        command.stdout(both()?).stderr(both()?).kill_on_drop(true);
        let child = command.spawn().context(format!("run kubectl attach {pod}"))?;
        Ok(Attached { child, file })
    }

    /// Waits for the Pod's end; gives all that it said.
    pub async fn wait(&mut self) -> Outcome<String> {
        let ended = tokio::time::timeout(END_LIMIT, self.child.wait()).await;
        ended.context("see kubectl attach end with its Pod")?.context("run kubectl attach")?;
        std::fs::read_to_string(self.file.path()).context("read what a Pod said")
    }
}
