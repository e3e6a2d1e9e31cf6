//! A small file system of a node's own, which can be filled to the last byte and emptied again. Needs root, loop devices,
//! and `mkfs.ext4` (e2fsprogs).

use crate::failure::{Context, Failure, Outcome, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a file system holds.
pub const BYTES: u64 = 512 << 20;
/// What takes the space away.
const BALLAST: &str = "ballast";

/// A mounted file system. Dropped, it is taken away.
#[derive(Debug)]
pub struct SmallDisk {
    image: PathBuf,
    at: PathBuf,
}

impl SmallDisk {
    /// Makes one beside the folder `at`, which it makes, and mounts it there: empty.
    pub fn mount(at: &Path) -> Outcome<SmallDisk> {
        let disk = SmallDisk { image: at.with_extension("image"), at: at.to_owned() };
        let image = File::create_new(&disk.image).context(format!("make {}", disk.image.display()))?;
        image.set_len(BYTES).context(format!("make {}", disk.image.display()))?;
        std::fs::create_dir_all(at).context(format!("make {}", at.display()))?;
        let image = disk.image.as_os_str();
        // Everything at once: nothing of the file system itself is still to be written while nodes are measured.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", eager]).arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at))?;
        let lost_and_found = at.join("lost+found");
        std::fs::remove_dir(&lost_and_found).context(format!("delete {}", lost_and_found.display()))?;
        Ok(disk)
    }

    /// Takes all free space away.
    pub fn fill(&self) -> Outcome<()> {
        let path = self.at.join(BALLAST);
        let ballast = File::create(&path).context(format!("make {}", path.display()))?;
        // Free space lies in pieces, and some of it goes into describing the ballast.
        let mut length = 0;
        for step in [1 << 20, 64 << 10, 4 << 10] {
            while fallocate(&ballast, FallocateFlags::empty(), length, step).is_ok() {
                length += step;
            }
        }
        // Who writes there may give some back meanwhile, so that what is free now proves nothing.
        ensure(length > 0, || format!("nothing could be taken from {}", self.at.display()))
    }

    /// Gives the space back.
    pub fn empty(&self) -> Outcome<()> {
        let path = self.at.join(BALLAST);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.context(format!("delete {}", path.display())),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still looks at it must not keep it in the way. Nothing can be done about a failure.
        let _ = unmount(&self.at, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(format!("run `{name}`, which a small file system needs"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!(
        "no small file system can be mounted here (root with loop devices can): {name}: {}",
        said.trim()
    )))
}
