//! `docs`: every command that the documentation shows does what the page says, on a cluster that was started as the
//! README starts it.
//!
//! Each page has a fresh cluster and one shell for all its steps, which runs them in a folder of its own. The ports of the
//! pages (3000, 3300, 4000, 4300, 5000, 5300 and on) are put in place of free ones. `curl` fails where the status is an error, and
//! leaves an endless answer after a second. A step that fails ends the page, and so the bar.

pub mod page;

use super::seed_curl::wait_until_ready;
use crate::binary;
use crate::cluster::PATIENCE;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::process::{Process, Recipe};
use page::Step;
use rustix::process::Signal;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The pages.
const PAGES: [&str; 5] =
    ["README.md", "docs/api.md", "docs/backup.md", "docs/from-etcd.md", "docs/from-consul.md"];
const NODES: u16 = 3;
/// How long the steps of a page may take.
const PAGE_TIME: Duration = Duration::from_secs(120);

/// What every shell begins with.
const PRELUDE: &str = r#"set -e
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
curl() {
  case "$*" in
    *v1/watch*) command curl -sS --fail-with-body --max-time 1 "$@" || [ $? = 28 ] ;;
    -f*) command curl -sS "$@" ;;
    *) command curl -sS --fail-with-body --max-time 20 "$@" && echo ;;
  esac
}
"#;

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    let (mut ran, mut compared, mut shown) = (0, 0, 0);
    for page in PAGES {
        let figures = run_page(page).await.map_err(|Failure(why)| Failure(format!("{page}: {why}")))?;
        println!(
            "{page}: {} steps run, {} outputs compared, {} blocks only shown",
            figures.0, figures.1, figures.2
        );
        ran += figures.0;
        compared += figures.1;
        shown += figures.2;
    }
    Ok(format!(
        "{ran} steps of {} pages run, {compared} outputs compared, {shown} blocks only shown",
        PAGES.len()
    ))
}

async fn run_page(page: &str) -> Outcome<(usize, usize, usize)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join(page)).context("read it")?;
    let (steps, shown) = page::steps(&text)?;
    let folder = tempfile::Builder::new().prefix("docs-").tempdir_in(binary::scratch()?);
    let folder = folder.context("make a folder")?;
    let ports = Ports::free()?;
    let data = folder.path().join("balsa-data");
    let base_port = ports.cluster.to_string();
    let arguments = ["dev", "--nodes", "3", "--base-port", &base_port, "--data", binary::text(&data)?];
    let mut dev = Process::new(Recipe {
        data: data.clone(),
        log: folder.path().join("dev.log"),
        runner: Vec::new(),
        arguments: arguments.map(str::to_string).into(),
        environment: Vec::new(),
    });
    let outcome = on_cluster(&mut dev, &ports, folder.path(), &steps).await;
    if dev.pid().is_some() {
        // Killed, it would leave its nodes behind; how it stops matters no more.
        let _ = dev.signal(Signal::INT);
        let _ = dev.wait_for_end(PATIENCE).await;
    }
    let compared = outcome?;
    Ok((steps.len(), compared, shown))
}

async fn on_cluster(dev: &mut Process, ports: &Ports, folder: &Path, steps: &[Step]) -> Outcome<usize> {
    dev.start()?;
    for node in 0..NODES {
        wait_until_ready(dev, ports.cluster + node).await?;
    }
    programs(folder)?;
    let mut script = PRELUDE.to_owned();
    for (at, step) in steps.iter().enumerate() {
        let text = ports.put_into(&step.script);
        script += &format!("{{\n{text}}} >{at}.out 2>{at}.err </dev/null\n: >{at}.done\n");
    }
    std::fs::write(folder.join("script"), &script).context("write the script")?;
    let mut shell = Command::new("bash");
    shell
        .arg("script")
        .current_dir(folder)
        .env("PATH", path(folder)?)
        .env("BALSA_ENDPOINTS", ports.endpoints());
    shell.stdin(Stdio::null()).kill_on_drop(true);
    let said = File::create(folder.join("said")).context("make a file")?;
    shell.stderr(said);
    let mut shell = shell.spawn().context("run bash")?;
    let ended = tokio::time::timeout(PAGE_TIME, shell.wait()).await;
    let read = |at: usize, what: &str| {
        std::fs::read_to_string(folder.join(format!("{at}.{what}"))).unwrap_or_default()
    };
    let mut compared = 0;
    for (at, step) in steps.iter().enumerate() {
        let (out, err) = (ports.take_from(&read(at, "out")), ports.take_from(&read(at, "err")));
        let explain = |what: &str| {
            format!(
                "line {}: {what}\n--- the step:\n{}--- printed:\n{out}--- and beside it:\n{err}",
                step.line, step.script
            )
        };
        ensure(folder.join(format!("{at}.done")).exists(), || explain("the step failed, or did not end"))?;
        if let Some(shown) = &step.output {
            ensure(page::matches(shown, &out), || {
                explain(&format!("it prints something else than the page shows:\n{shown}"))
            })?;
            compared += 1;
        }
    }
    let status = ended.map_err(|_| Failure("the steps did not end".into()))?.context("wait for bash")?;
    let said = std::fs::read_to_string(folder.join("said")).unwrap_or_default();
    ensure(status.success(), || format!("the shell ended with {status}: {said}"))?;
    Ok(compared)
}

/// Puts the programs where the pages have them: on the `PATH`, and in Cargo's folder.
fn programs(folder: &Path) -> Outcome<()> {
    for (place, names) in [("bin", &["balsa", "balsa-node"][..]), ("target/release", &["balsa-node"])] {
        let place = folder.join(place);
        std::fs::create_dir_all(&place).context("make a folder")?;
        for name in names {
            let binary = if *name == "balsa" { binary::cli()? } else { binary::node()? };
            let binary = binary.canonicalize().context(format!("find {}", binary.display()))?;
            std::os::unix::fs::symlink(binary, place.join(name)).context("make a link")?;
        }
    }
    Ok(())
}

fn path(folder: &Path) -> Outcome<std::ffi::OsString> {
    let all = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&all).collect();
    folders.insert(0, folder.join("bin"));
    std::env::join_paths(folders).context("make a PATH")
}

/// Free ports in place of those that the pages name.
struct Ports {
    /// In place of 3000 and on, with peers 300 above; ends in 0.
    cluster: u16,
    /// In place of 4000 and on, and of 5000 and on, likewise.
    others: [u16; 2],
}

impl Ports {
    fn free() -> Outcome<Ports> {
        let cluster = Ports::ten(&[])?;
        let first = Ports::ten(&[cluster])?;
        Ok(Ports { cluster, others: [first, Ports::ten(&[cluster, first])?] })
    }

    /// The first of ten that are free, and so are those 300 above.
    fn ten(taken: &[u16]) -> Outcome<u16> {
        for _ in 0..100 {
            let base = crate::ports::free()?.min(31_000) / 10 * 10;
            let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
            let is_apart =
                taken.iter().all(|other| base.abs_diff(*other) != 0 && base.abs_diff(*other) != 300);
            if is_apart && (base..base + 10).all(|port| free(port) && free(port + 300)) {
                return Ok(base);
            }
        }
        Err(Failure("no free ports for the page's nodes".into()))
    }

    /// What stands for what: the ports' first digits, so that a script may make up the last.
    fn pairs(&self) -> [(&'static str, u16); 6] {
        let [four, five] = self.others.map(|base| base / 10);
        let three = self.cluster / 10;
        [
            ("300", three),
            ("330", three + 30),
            ("400", four),
            ("430", four + 30),
            ("500", five),
            ("530", five + 30),
        ]
    }

    fn put_into(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for host in ["localhost", "127.0.0.1"] {
            for (shown, real) in self.pairs() {
                text = text.replace(&format!("{host}:{shown}"), &format!("{host}:{real}"));
            }
        }
        text
    }

    fn take_from(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for host in ["localhost", "127.0.0.1"] {
            for (shown, real) in self.pairs() {
                text = text.replace(&format!("{host}:{real}"), &format!("{host}:{shown}"));
            }
        }
        text
    }

    fn endpoints(&self) -> String {
        let urls: Vec<String> =
            (0..NODES).map(|node| format!("http://127.0.0.1:{}", self.cluster + node)).collect();
        urls.join(",")
    }
}
