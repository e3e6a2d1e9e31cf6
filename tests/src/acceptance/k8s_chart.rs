//! `k8s-chart`: the chart lints, gives for some sets of values what is recorded, is taken by the API server as it stands
//! (server-side dry run, in a namespace that enforces the `restricted` Pod security standard), and refuses values that
//! make no cluster. Its README is what its values say.
//!
//! `BALSA_BLESS=1` records what it gives now.

use crate::failure::{Context, Failure, Outcome, ensure};
use crate::k8s::{Lab, NAME, Namespace, chart, run_command};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Objects of others' making: the API server knows them only where their operator is installed.
const FOREIGN: &str = "monitoring.coreos.com/";
/// Settings that make no cluster, and a word of why.
const REFUSED: [(&[&str], &str); 6] = [
    (&["replicaCount=0"], "nobody is there to found"),
    (&["serviceAccount.create=false"], "name the account that the nodes are to have"),
    (&["initialSize=10"], "initialSize"),
    (&["config.slot=3"], "config"),
    (&["persistence.size=lots"], "persistence"),
    (&["replicas=3"], "replicas"),
];

/// Settings that make sense where the chart is rendered without a cluster to look at, and what they must give: a cluster
/// that was founded by three, scaled in and asleep; an account of somebody else's making.
const TAKEN: [(&[&str], &str); 3] = [
    (&["replicaCount=1", "initialSize=3"], "replicas: 1\n"),
    (&["replicaCount=0", "initialSize=3"], "replicas: 0\n"),
    (&["serviceAccount.create=false", "serviceAccount.name=ours"], "serviceAccountName: ours\n"),
];

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    Namespace::with("balsa-chart", async |namespace| check(namespace).await).await
}

async fn check(namespace: &Namespace) -> Outcome<String> {
    let lab = namespace.lab();
    let chart = chart();
    let chart = text(&chart)?;
    let sets = value_sets()?;
    let (mut changed, mut taken) = (Vec::new(), 0);
    for set in &sets {
        let values = text(set)?;
        lab.call("helm", &["lint", "--strict", chart, "--values", values], "", LIMIT).await?;
        // A fixed namespace: the record must not name the one of this run.
        let rendered = render(lab, "golden", values).await?;
        if !is_recorded(&set.with_extension("golden.yaml"), &rendered)? {
            changed.push(set.display().to_string());
        }
        let rendered = render(lab, namespace.name(), values).await?;
        let own: Vec<&str> = rendered.split("\n---\n").filter(|object| !object.contains(FOREIGN)).collect();
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-"];
        let said = lab.call("kubectl", &arguments, &own.join("\n---\n"), LIMIT).await?;
        taken += said.lines().count();
    }
    let mut table = tokio::process::Command::new("python3");
    table.arg(Path::new(chart).join("../readme.py")).arg("--check");
    run_command(table, "", LIMIT).await?;
    ensure(changed.is_empty(), || {
        format!(
            "the chart gives something else for {changed:?}: look at it, and record it with BALSA_BLESS=1"
        )
    })?;
    let render_with = async |settings: &[&str]| {
        let mut arguments = vec!["template", NAME, chart];
        settings.iter().for_each(|setting| arguments.extend(["--set", *setting]));
        lab.call("helm", &arguments, "", LIMIT).await
    };
    for (settings, words) in TAKEN {
        let rendered = render_with(settings).await?;
        ensure(rendered.contains(words), || {
            format!("the chart makes of {settings:?} no `{words}`: {rendered}")
        })?;
    }
    for (settings, why) in REFUSED {
        let said = render_with(settings).await;
        let Err(Failure(said)) = said else {
            return Err(Failure(format!("the chart takes {settings:?}")));
        };
        ensure(said.contains(why), || {
            format!("the chart refuses {settings:?}, but does not say `{why}`: {said}")
        })?;
    }
    Ok(format!(
        "{} sets of values lint and give what is recorded, {taken} objects taken by the API server, {} settings refused",
        sets.len(),
        REFUSED.len()
    ))
}

async fn render(lab: &Lab, namespace: &str, values: &str) -> Outcome<String> {
    let chart = chart();
    let arguments = ["template", NAME, text(&chart)?, "--namespace", namespace, "--values", values];
    lab.call("helm", &arguments, "", LIMIT).await
}

/// Compares with the record, or makes it.
fn is_recorded(record: &Path, rendered: &str) -> Outcome<bool> {
    if std::env::var_os("BALSA_BLESS").is_some() {
        std::fs::write(record, rendered).context(format!("write {}", record.display()))?;
    }
    let recorded = std::fs::read_to_string(record).context(format!("read {}", record.display()))?;
    Ok(recorded == rendered)
}

/// The files with values, in order.
fn value_sets() -> Outcome<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/values");
    let entries = std::fs::read_dir(&folder).context(format!("list {}", folder.display()))?;
    let mut sets: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    sets.retain(|path| path.extension().is_some_and(|ending| ending == "yaml") && !is_record(path));
    sets.sort();
    ensure(!sets.is_empty(), || format!("{} holds no values", folder.display()))?;
    Ok(sets)
}

fn is_record(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(".golden.yaml"))
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Failure(format!("{} is not UTF-8", path.display())))
}
