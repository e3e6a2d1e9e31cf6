//! A real Prometheus on this machine, which scrapes a release through `kubectl proxy`: so it reaches any cluster that
//! kubectl reaches, and needs no rights in it.

use super::{Pod, Release};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, send};
use crate::ports;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prometheus, scraping. Dropped, it and its data are gone.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    _proxy: Child,
    _server: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it on the Pods that a release has now, with these rules; scrapes and judges every `interval_s`.
    pub async fn start(release: &Release<'_>, rules: &Path, interval_s: u32) -> Outcome<Prometheus> {
        let namespace = release.namespace();
        let pods = release.pods().await?;
        let folder = tempfile::tempdir().context("make a folder for Prometheus")?;
        let mut proxy = namespace.lab().command("kubectl");
        proxy.args(["proxy", "--port=0"]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut proxy = proxy.spawn().context("run kubectl proxy")?;
        let stdout = proxy.stdout.take().ok_or_else(|| Failure("kubectl has no output".into()))?;
        let said = tokio::time::timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
        let said = said.context("see kubectl proxy start")?.context("read what kubectl proxy says")?;
        let api = said.as_deref().and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_string();
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config(namespace.name(), &pods, &api, rules, interval_s))
            .context("write its settings")?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        let log = std::fs::File::create(folder.path().join("log")).context("make its log")?;
        let program = std::env::var_os("BALSA_PROMETHEUS").unwrap_or_else(|| "prometheus".into());
        let mut server = Command::new(&program);
        server.arg(format!("--config.file={}", file.display()));
        server.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        server.arg(format!("--web.listen-address={address}"));
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let server = server.spawn().context(format!("run {}", program.display()))?;
        let started = Prometheus { address, _proxy: proxy, _server: server, _folder: folder };
        started.wait_until_ready().await?;
        Ok(started)
    }

    async fn wait_until_ready(&self) -> Outcome<()> {
        crate::cluster::eventually("Prometheus to be ready", 3 * PATIENCE, async || {
            let answer = send(&self.address, Ask::get("/-/ready"), PATIENCE).await;
            Ok(answer.is_ok_and(|answer| answer.is_success()).then_some(()))
        })
        .await
    }

    /// What an expression gives now, one value a series.
    pub async fn query(&self, expression: &str) -> Outcome<Vec<Value>> {
        let found = self.api(&format!("/api/v1/query?query={}", encode(expression))).await?;
        Ok(found["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// The alerts that it judges: name and expression.
    pub async fn rules(&self) -> Outcome<Vec<(String, String)>> {
        let found = self.api("/api/v1/rules?type=alert").await?;
        let groups = found["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        Ok(rules.map(|rule| (text(&rule["name"]), text(&rule["query"]))).collect())
    }

    /// The alerts that wait or fire: name and state.
    pub async fn alerts(&self) -> Outcome<Vec<(String, String)>> {
        let found = self.api("/api/v1/alerts").await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let all = found["data"]["alerts"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["state"]))).collect())
    }

    async fn api(&self, path: &str) -> Outcome<Value> {
        let answer = send(&self.address, Ask::get(path), PATIENCE).await.context("ask Prometheus")?;
        ensure(answer.is_success(), || format!("Prometheus answers {path} with {}", answer.text()))?;
        answer.json()
    }
}

/// Percent-encoded as a value of a query.
fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Each Pod is a target, reached through the API server's proxy.
fn config(namespace: &str, pods: &[Pod], api: &str, rules: &Path, interval_s: u32) -> String {
    let mut text = format!(
        "global: {{scrape_interval: {interval_s}s, evaluation_interval: {interval_s}s}}\n\
         rule_files: [\"{}\"]\nscrape_configs:\n  - job_name: balsa\n    static_configs:\n",
        rules.display()
    );
    for Pod { name, .. } in pods {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:3000/proxy/metrics");
        let labels = format!("namespace: {namespace}, instance: {name}, __metrics_path__: \"{path}\"");
        text.push_str(&format!("      - {{targets: [\"{api}\"], labels: {{{labels}}}}}\n"));
    }
    text
}
