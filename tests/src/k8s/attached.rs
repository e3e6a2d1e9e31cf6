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
    /// Its standard output, and its standard error: in one file a line of the one may begin within a line of the other.
    files: [NamedTempFile; 2],
}

impl Attached {
    /// To a Pod that runs.
    pub fn to(namespace: &Namespace, pod: &str) -> Outcome<Attached> {
        let file = || NamedTempFile::new().context("make a file for what a Pod says");
        let files = [file()?, file()?];
        let mut command = namespace.lab().command("kubectl");
        command.args(["--namespace", namespace.name(), "attach", "--quiet", pod]).stdin(Stdio::null());
        let [stdout, stderr] = files.each_ref().map(|file| file.reopen().context("open that file"));
        command.stdout(stdout?).stderr(stderr?).kill_on_drop(true);
        let child = command.spawn().context(format!("run kubectl attach {pod}"))?;
        Ok(Attached { child, files })
    }

    /// Waits for the Pod's end; gives all that it said, what it said on standard error last.
    pub async fn wait(&mut self) -> Outcome<String> {
        let ended = tokio::time::timeout(END_LIMIT, self.child.wait()).await;
        ended.context("see kubectl attach end with its Pod")?.context("run kubectl attach")?;
        let [stdout, stderr] = &self.files;
        let said =
            |file: &NamedTempFile| std::fs::read_to_string(file.path()).context("read what a Pod said");
        Ok(said(stdout)? + &said(stderr)?)
    }
}
