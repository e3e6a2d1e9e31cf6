//! The cluster, and the tools that reach it.
//!
//! `KUBECONFIG` names a cluster that runs, with the image `BALSA_IMAGE` on its nodes; kubectl and helm are on the PATH. Or
//! `KUBELAB` names a script that starts a cluster on this machine (`up --nodes 3`), tells where it is (`env`), and takes
//! images (`load-tar`); then `BALSA_IMAGE_TAR` is loaded, and `BALSA_IMAGE_OLD_TAR`.
//!
//! `BALSA_IMAGE_OLD` names an image to upgrade from: one whose nodes are of a lower feature level.

use super::command::run;
use crate::failure::{Context, Failure, Outcome, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// How long a call of kubectl or helm may take, unless it is told to wait.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How long the cluster may take to start, and an image to be loaded.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How many nodes a started cluster has.
const NODES: &str = "3";

/// A cluster.
#[derive(Clone, Debug)]
pub struct Lab {
    environment: Vec<(String, String)>,
    script: Option<PathBuf>,
    /// The image, as Pods name it.
    image: String,
    /// The one to upgrade from, where there is one.
    old_image: Option<String>,
}

impl Lab {
    /// Finds the cluster, or starts it, and sees that it has the image.
    pub async fn find() -> Outcome<Lab> {
        crate::binary::deploy()?; // it may have to be built: not while something is timed
        let image = std::env::var("BALSA_IMAGE").map_err(|_| Failure("BALSA_IMAGE names no image".into()))?;
        let old_image = std::env::var("BALSA_IMAGE_OLD").ok();
        let mut lab = Lab { environment: Vec::new(), script: None, image, old_image };
        match (std::env::var_os("KUBELAB"), std::env::var_os("KUBECONFIG")) {
            (Some(script), _) => {
                lab.script = Some(script.into());
                lab.start().await?;
            }
            (None, Some(_)) => {}
            (None, None) => {
                return Err(Failure(
                    "no cluster: set KUBECONFIG to one that runs, or KUBELAB to a script that starts one"
                        .into(),
                ));
            }
        }
        lab.kubectl(&["get", "--raw", "/readyz"]).await?;
        for tar in ["BALSA_IMAGE_TAR", "BALSA_IMAGE_OLD_TAR"].into_iter().filter_map(std::env::var_os) {
            lab.load_image(Path::new(&tar)).await?;
        }
        Ok(lab)
    }

    async fn start(&mut self) -> Outcome<()> {
        self.environment = self.told_environment().await?;
        let config = self.environment.iter().find(|(name, _)| name == "KUBECONFIG");
        let config = config.ok_or_else(|| Failure("`env` of KUBELAB names no KUBECONFIG".into()))?;
        if !Path::new(&config.1).exists() {
            self.script(&["up", "--nodes", NODES]).await?;
            self.environment = self.told_environment().await?;
        }
        Ok(())
    }

    /// What `env` prints is for a shell, so a shell reads it.
    async fn told_environment(&self) -> Outcome<Vec<(String, String)>> {
        let mut shell = Command::new("bash");
        let script = self.script.as_deref().unwrap_or(Path::new(""));
        shell.args(["-c", r#"eval "$("$1" env)" && echo "$KUBECONFIG" && echo "$PATH""#, "bash"]).arg(script);
        let told = run(shell, "", CALL_LIMIT).await?;
        let names = ["KUBECONFIG", "PATH"].map(str::to_string);
        Ok(names.into_iter().zip(told.lines().map(str::to_string)).collect())
    }

    /// Has the nodes take this tar of an image.
    pub async fn load_image(&self, tar: &Path) -> Outcome<()> {
        ensure(self.script.is_some(), || {
            "a cluster of KUBECONFIG has its image already: BALSA_IMAGE_TAR is for KUBELAB".into()
        })?;
        let tar = tar.to_str().ok_or_else(|| Failure(format!("{} is not UTF-8", tar.display())))?;
        self.script(&["load-tar", tar]).await.map(|_| ())
    }

    /// Runs the script that the cluster came from. Some deeds need it: those a user of a cluster cannot do.
    pub async fn script(&self, arguments: &[&str]) -> Outcome<String> {
        let script = self.script.as_ref();
        let script =
            script.ok_or_else(|| Failure(format!("KUBELAB is not set: it would do {arguments:?}")))?;
        let mut command = Command::new(script);
        command.args(arguments);
        run(command, "", START_LIMIT).await
    }

    /// The image, as Pods name it.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The image to upgrade from.
    pub fn old_image(&self) -> Outcome<&str> {
        let missing =
            || Failure("BALSA_IMAGE_OLD names no image: one whose nodes are of a lower feature level".into());
        self.old_image.as_deref().ok_or_else(missing)
    }

    /// A command with this cluster in its environment.
    pub fn command(&self, program: &str) -> Command {
        let path = self.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
        let mut command = Command::new(on_path(program, path));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// kubectl, with what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Outcome<String> {
        self.call("kubectl", arguments, "", CALL_LIMIT).await
    }

    /// kubectl, which prints JSON.
    pub async fn kubectl_json(&self, arguments: &[&str]) -> Outcome<Value> {
        let text = self.kubectl(arguments).await?;
        serde_json::from_str(&text).context(format!("read what kubectl {arguments:?} printed: {text}"))
    }

    /// kubectl or helm with an input, and with more time.
    pub async fn call(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
        limit: Duration,
    ) -> Outcome<String> {
        let mut command = self.command(program);
        command.args(arguments);
        run(command, input, limit).await
    }
}

/// The program's file on this PATH: a child's own PATH is not looked at when it is started.
fn on_path(program: &str, path: Option<&str>) -> PathBuf {
    let folders = path.map(std::env::split_paths);
    let found = folders.and_then(|mut folders| {
        folders.find_map(|folder| Some(folder.join(program)).filter(|file| file.is_file()))
    });
    found.unwrap_or_else(|| PathBuf::from(program))
}
