//! Where the binaries of the node and of the command line tool are, and what is loaded into a node: built from this tree, in
//! the profile that this program was built in.
//!
//! Cargo gives the path of a binary only to tests of the package that has it, and builds it with the whole workspace's
//! tests, not with this package's alone. So it is looked for where Cargo puts it, and built if it is missing or older
//! than the sources. `BALSA_NODE` and `BALSA_CLI` name other ones.

use crate::failure::{Context, Failure, Outcome, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The node's binary; built at most once a process.
pub fn node() -> Outcome<PathBuf> {
    static FOUND: OnceLock<Outcome<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| find(&NODE)).clone()
}

/// The command line tool; built at most once a process.
pub fn cli() -> Outcome<PathBuf> {
    static FOUND: OnceLock<Outcome<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| find(&CLI)).clone()
}

/// The deploy tool's binary; built at most once a process.
pub fn deploy() -> Outcome<PathBuf> {
    static FOUND: OnceLock<Outcome<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| find(&DEPLOY)).clone()
}

/// A file that cargo makes of this workspace.
struct Wanted {
    /// The name of the file.
    name: &'static str,
    package: &'static str,
    /// The environment variable that names another one; empty: none does.
    variable: &'static str,
    /// What goes into it.
    sources: &'static [&'static str],
}

const NODE: Wanted = Wanted {
    name: "balsa-node",
    package: "balsa-node",
    variable: "BALSA_NODE",
    sources: &[
        "node/src",
        "node/raft/src",
        "node/log/src",
        "node/store/src",
        "client/wire/src",
        "docs/openapi.json",
        "Cargo.lock",
    ],
};

const CLI: Wanted = Wanted {
    name: "balsa",
    package: "balsa-client",
    variable: "BALSA_CLI",
    sources: &["client/src", "client/wire/src", "Cargo.lock"],
};

const DEPLOY: Wanted = Wanted {
    name: "balsa-deploy",
    package: "balsa-deploy",
    variable: "BALSA_DEPLOY",
    sources: &["deploy/src", "deploy/rendered", "client/src", "client/wire/src", "Cargo.lock"],
};

const LIMP_DISK: Wanted = Wanted {
    name: "libbalsa_limp_disk.so",
    package: "balsa-limp-disk",
    variable: "",
    sources: &["tests/limp-disk"],
};

/// A folder on a real disk for what runs leave: below Cargo's target folder.
pub fn scratch() -> Outcome<PathBuf> {
    let folder = profile_folder()?.join("runs");
    std::fs::create_dir_all(&folder).context(format!("make {}", folder.display()))?;
    Ok(folder)
}

fn find(wanted: &Wanted) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os(wanted.variable) {
        let named = PathBuf::from(named);
        ensure(named.is_file(), || {
            format!("{} names {}, which is no file", wanted.variable, named.display())
        })?;
        return Ok(named);
    }
    built(wanted)
}

/// The library that makes a process's disk limp; built at most once a process.
pub fn limp_disk() -> Outcome<PathBuf> {
    static FOUND: OnceLock<Outcome<PathBuf>> = OnceLock::new();
    let library = || {
        ensure(cfg!(all(target_os = "linux", target_env = "gnu")), || {
            "a disk can be made to limp only on Linux with glibc: a library takes the place of its functions"
                .into()
        })?;
        built(&LIMP_DISK)
    };
    FOUND.get_or_init(library).clone()
}

/// Where cargo puts it, having built it if that is needed.
fn built(wanted: &Wanted) -> Outcome<PathBuf> {
    let folder = profile_folder()?;
    let binary = folder.join(wanted.name);
    if !is_fresh(&binary, wanted.sources)? {
        build(&folder, wanted.package)?;
    }
    ensure(binary.is_file(), || format!("the build left no {}", binary.display()))?;
    Ok(binary)
}

/// The folder of a profile (`target/debug`, `target/release`): where this program lies, or one above its `deps`.
fn profile_folder() -> Outcome<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let mut folder = own.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    Ok(folder.to_owned())
}

fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn build(profile_folder: &Path, package: &str) -> Outcome<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", package]).current_dir(workspace());
    command.arg("--target-dir").arg(profile_folder.parent().unwrap_or(profile_folder));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().context("run cargo")?;
    ensure(status.success(), || format!("cargo could not build {package}: {status}"))
}

/// Whether the binary is at least as new as every source that goes into it.
fn is_fresh(binary: &Path, sources: &[&str]) -> Outcome<bool> {
    let Ok(built) = std::fs::metadata(binary).and_then(|metadata| metadata.modified()) else {
        return Ok(false);
    };
    for source in sources {
        let newest = newest(&workspace().join(source))?;
        if newest > built {
            return Ok(false);
        }
    }
    Ok(true)
}

fn newest(path: &Path) -> Outcome<SystemTime> {
    let what = || format!("look at {}", path.display());
    let metadata = std::fs::metadata(path).context(what())?;
    if !metadata.is_dir() {
        return metadata.modified().context(what());
    }
    let mut newest_below = SystemTime::UNIX_EPOCH; // a folder's own time also changes when an editor passes by
    for entry in std::fs::read_dir(path).context(what())? {
        newest_below = newest_below.max(newest(&entry.context(what())?.path())?);
    }
    Ok(newest_below)
}

/// Used where a path goes into an argument.
pub(crate) fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Failure(format!("{} is not UTF-8", path.display())))
}
