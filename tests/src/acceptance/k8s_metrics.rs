//! `k8s-metrics`: a real Prometheus scrapes a living cluster. What nodes expose passes `promtool check metrics`, the alerts
//! pass `promtool check rules` and `test rules`, every expression of alerts and dashboard has data, and in a healthy
//! cluster no alert fires.

use crate::cluster::eventually;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::k8s::{Forward, Load, Namespace, Prometheus, Release, Steady, chart};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

const MEMBERS: u32 = 3;
/// How often it is scraped, in s.
const INTERVAL_S: u32 = 2;
/// How long expressions may take to have data: rates need some scrapes.
const DATA_LIMIT: Duration = Duration::from_secs(60);
const WHOLE_LIMIT: Duration = Duration::from_secs(60);

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    Namespace::with("balsa-metrics", async |namespace| scrape(namespace).await).await
}

async fn scrape(namespace: &Namespace) -> Outcome<String> {
    let rules = rules();
    promtool(&["check", "rules", text(&rules)?], None).await?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/alerts.test.yaml");
    promtool(&["test", "rules", text(&tests)?], None).await?;

    let release = Release::install(namespace, &[]).await?;
    release.wait_until_whole(MEMBERS, WHOLE_LIMIT).await?;
    let load = Load::start(namespace, "load", &Steady::default()).await?;
    let prometheus = Prometheus::start(&release, &rules, INTERVAL_S).await?;
    let mut families = 0;
    for pod in release.pods().await? {
        families = check_metrics(namespace, &pod.name).await?;
    }
    println!("{families} metrics of each of {MEMBERS} nodes pass promtool check metrics");

    let alerts = prometheus.rules().await?;
    let panels = dashboard_expressions()?;
    for (name, expression) in alerts.iter().map(|(name, expression)| (name, judged(expression))) {
        has_data(&prometheus, name, &expression).await?;
    }
    for (panel, expression) in &panels {
        has_data(&prometheus, panel, &expression.replace("$__rate_interval", "30s")).await?;
    }
    println!("{} alerts and {} expressions of the dashboard have data", alerts.len(), panels.len());
    let noisy = prometheus.alerts().await?;
    let firing: Vec<_> = noisy.iter().filter(|(_, state)| state == "firing").collect();
    ensure(firing.is_empty(), || format!("alerts fire in a healthy cluster: {firing:?}"))?;
    load.finish().await?.ensure_unharmed()?;
    Ok(format!(
        "{families} metrics clean, {} alerts and {} expressions of the dashboard have data, none fires in a healthy \
         cluster",
        alerts.len(),
        panels.len()
    ))
}

/// Has promtool judge what a node exposes; gives how many metrics that are.
async fn check_metrics(namespace: &Namespace, pod: &str) -> Outcome<usize> {
    let forward = Forward::open(namespace, &format!("pod/{pod}"), 3000).await?;
    let ask = crate::http::Ask::get("/metrics");
    let answer = crate::http::send(&format!("127.0.0.1:{}", forward.port()), ask, DATA_LIMIT).await;
    let exposed = answer.context("scrape a node")?.text();
    promtool(&["check", "metrics"], Some(&exposed)).await.context(format!("pass the metrics of {pod}"))?;
    Ok(exposed.lines().filter(|line| line.starts_with("# TYPE")).count())
}

async fn has_data(prometheus: &Prometheus, what: &str, expression: &str) -> Outcome<()> {
    eventually(&format!("data of {what}: {expression}"), DATA_LIMIT, async || {
        let series = prometheus.query(expression).await?;
        let is_number = |one: &Value| one["value"][1].as_str().is_some_and(|value| value != "NaN");
        Ok((!series.is_empty() && series.iter().any(is_number)).then_some(()))
    })
    .await
}

/// The expression with every comparison giving 0 or 1, so that one that does not hold is told from one without data. Of one
/// that holds where others do not (`unless`), only what it is about.
fn judged(expression: &str) -> String {
    let mut judged = String::new();
    let expression = expression.split("unless").next().unwrap_or_default();
    for word in expression.split_inclusive(char::is_whitespace) {
        judged.push_str(word);
        if matches!(word.trim(), "==" | "!=" | ">" | "<" | ">=" | "<=") {
            judged.push_str("bool ");
        }
    }
    judged
}

fn rules() -> PathBuf {
    let folder = chart().join("files/alerts.yaml");
    folder.canonicalize().unwrap_or(folder)
}

fn dashboard_expressions() -> Outcome<Vec<(String, String)>> {
    let text = std::fs::read_to_string(chart().join("files/dashboard.json")).context("read the dashboard")?;
    let parsed: Value = serde_json::from_str(&text).context("parse the dashboard")?;
    let mut found = Vec::new();
    for panel in parsed["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap_or_default();
            let expression = expression.replace("$namespace", ".*").replace("$job", ".*");
            found.push((panel["title"].as_str().unwrap_or_default().to_string(), expression));
        }
    }
    Ok(found)
}

async fn promtool(arguments: &[&str], input: Option<&str>) -> Outcome<String> {
    let mut command = Command::new(std::env::var_os("BALSA_PROMTOOL").unwrap_or_else(|| "promtool".into()));
    command.args(arguments);
    crate::k8s::run_command(command, input.unwrap_or_default(), DATA_LIMIT).await
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Failure(format!("{} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_that_does_not_hold_still_has_data() {
        let alert = "max(a) == 0 and (\n  b <= floor(c / 2) + 1\n)";
        assert_eq!(judged(alert), "max(a) == bool 0 and (\n  b <= bool floor(c / 2) + 1\n)");
        assert_eq!(judged("max(a) unless b or absent(c)"), "max(a) ");
    }
}
