//! A namespace that enforces the `restricted` Pod security standard, and is gone afterwards.

use super::{Lab, NODE_PODS};
use crate::failure::{Failure, Outcome};
use std::process::Stdio;

/// Set: namespaces stay when their test ends.
const KEEP: &str = "BALSA_KEEP_NAMESPACE";

/// A namespace; dropped, it is deleted with all that is in it.
#[derive(Debug)]
pub struct Namespace {
    lab: Lab,
    name: String,
}

impl Namespace {
    /// Runs a bar in one whose name begins with `prefix`; a failure comes with what the cluster says of it.
    pub async fn with(prefix: &str, bar: impl AsyncFnOnce(&Namespace) -> Outcome<String>) -> Outcome<String> {
        let namespace = Namespace::create(&Lab::find().await?, prefix).await?;
        match bar(&namespace).await {
            Ok(figures) => Ok(figures),
            Err(failure) => Err(namespace.explain(failure).await),
        }
    }

    async fn create(lab: &Lab, prefix: &str) -> Outcome<Namespace> {
        let name = format!("{prefix}-{:x}", std::process::id());
        lab.kubectl(&["create", "namespace", &name]).await?;
        let namespace = Namespace { lab: lab.clone(), name };
        let level = "pod-security.kubernetes.io/enforce=restricted";
        lab.kubectl(&["label", "namespace", &namespace.name, level]).await?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Outcome<String> {
        self.lab.kubectl(&[&["--namespace", &self.name], arguments].concat()).await
    }

    /// Adds to a failure what the cluster says of it.
    async fn explain(&self, Failure(why): Failure) -> Failure {
        let mut text = why;
        for arguments in [
            &["get", "statefulsets,pods,persistentvolumeclaims,jobs", "--output", "wide"][..],
            &["get", "events", "--sort-by", ".lastTimestamp"],
            &["logs", "--prefix", "--tail", "40", "--selector", NODE_PODS],
        ] {
            let said = self.kubectl(arguments).await.unwrap_or_else(|Failure(why)| why);
            text.push_str(&format!("\n--- kubectl {}\n{}", arguments.join(" "), last_lines(&said, 150)));
        }
        Failure(text)
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::env::var_os(KEEP).is_some() {
            return;
        }
        let mut command = self.lab.command("kubectl");
        command.args(["delete", "namespace", &self.name, "--wait=false"]);
        let _ = command.as_std_mut().stdout(Stdio::null()).stderr(Stdio::null()).status(); // nobody is left to tell
    }
}
