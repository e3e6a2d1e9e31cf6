//! `k8s-account`: a node and the real API server. Over TLS with the cluster's own authority and a ServiceAccount's token it
//! may do what the chart's Role says, and no more is needed: it founds a cluster, leaves the mark, and looks at its
//! StatefulSet. Kubernetes replaces token and authority while a Pod runs: a node that runs takes up what is there now.
//!
//! The node is a process on this machine, so that its account's files can be replaced at will.

use crate::cluster::{Cluster, eventually};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::k8s::{NAME, Namespace, chart};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The chart's objects that a node's account is made of.
const OBJECTS: [&str; 4] = ["ServiceAccount", "ConfigMap", "Role", "RoleBinding"];

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    Namespace::with("balsa-account", async |namespace| run_a_node(namespace).await).await
}

async fn run_a_node(namespace: &Namespace) -> Outcome<String> {
    make_account(namespace).await?;
    let account = Account::fetch(namespace).await?;
    let url = namespace.lab().kubectl(&["config", "view", "--minify", "--raw", "--output", SERVER]).await?;
    let folder = account.folder.path().to_str().ok_or_else(|| Failure("a folder is not UTF-8".into()))?;
    let arguments =
        ["--kubernetes-stateful-set", NAME, "--kubernetes-api", url.trim(), "--kubernetes-account", folder];
    let mut cluster = Cluster::start(1, &arguments).await?;
    let id = cluster.look(0).await?.and_then(|seen| seen.cluster).unwrap_or_default();
    let mark = format!("{NAME}-founding");
    let marked =
        namespace.kubectl(&["get", "configmap", &mark, "--output", "jsonpath={.data.cluster}"]).await?;
    ensure(marked == id, || format!("cluster {id} was founded, and the mark says {marked:?}"))?;

    // A leader looks at its StatefulSet every second, and tells what changes.
    let mut told = 0;
    told = tells(&mut cluster, told, "there is no such StatefulSet").await?;
    account.write("token", "not a token")?;
    told = tells(&mut cluster, told, "401").await?;
    account.write("token", &token(namespace).await?)?;
    told = tells(&mut cluster, told, "there is no such StatefulSet").await?;
    account.write("ca.crt", "")?;
    told = tells(&mut cluster, told, "certificate").await?;
    account.write("ca.crt", &account.authority)?;
    tells(&mut cluster, told, "there is no such StatefulSet").await?;
    Ok("founded and marked over TLS; token and authority replaced under a running node".into())
}

const SERVER: &str = "jsonpath={.clusters[0].cluster.server}";

/// Waits until the node says this of what it asked the API server, beyond the first `told` bytes of what it said; gives
/// how much it has said then.
async fn tells(cluster: &mut Cluster, told: usize, words: &str) -> Outcome<usize> {
    eventually(&format!("the node to say: {words}"), PATIENCE, async || {
        let said = cluster.process(0).said();
        let new = said.get(told..).unwrap_or_default();
        let line = new.lines().find(|line| line.contains("nobody is removed") && line.contains(words));
        Ok(line.map(|_| said.len()))
    })
    .await
}

/// The chart's objects of an account, without any Pod.
async fn make_account(namespace: &Namespace) -> Outcome<()> {
    let lab = namespace.lab();
    let chart = chart();
    let chart = chart.to_str().ok_or_else(|| Failure("the chart's path is not UTF-8".into()))?;
    let arguments = ["template", NAME, chart, "--namespace", namespace.name(), "--skip-tests"];
    let rendered = lab.call("helm", &arguments, "", PATIENCE).await?;
    let is_part =
        |object: &&str| OBJECTS.iter().any(|kind| object.lines().any(|line| line == format!("kind: {kind}")));
    let parts: Vec<&str> = rendered.split("\n---\n").filter(is_part).collect();
    lab.call("kubectl", &["apply", "--filename", "-"], &parts.join("\n---\n"), PATIENCE).await.map(|_| ())
}

/// A ServiceAccount's files, as a Pod has them.
struct Account {
    folder: TempDir,
    authority: String,
}

impl Account {
    async fn fetch(namespace: &Namespace) -> Outcome<Account> {
        let get = ["get", "configmap", "kube-root-ca.crt", "--output", "jsonpath={.data.ca\\.crt}"];
        let authority = eventually("the cluster's authority to be published", PATIENCE, async || {
            Ok(namespace.kubectl(&get).await.ok().filter(|text| !text.is_empty()))
        });
        let authority = authority.await?;
        let folder = tempfile::tempdir().context("make a folder for an account")?;
        let account = Account { folder, authority };
        account.write("ca.crt", &account.authority)?;
        account.write("namespace", namespace.name())?;
        account.write("token", &token(namespace).await?)?;
        Ok(account)
    }

    /// Replaces a file in one step, as the kubelet does.
    fn write(&self, name: &str, text: &str) -> Outcome<()> {
        let new = self.folder.path().join("new");
        let to: &Path = &self.folder.path().join(name);
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, to)).context("write an account's file")
    }
}

async fn token(namespace: &Namespace) -> Outcome<String> {
    namespace.kubectl(&["create", "token", NAME, "--duration", "10m"]).await
}
