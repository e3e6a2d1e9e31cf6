//! `balsa backup`: keeps a backup in a file that is there only once it is whole, or passes it on; or looks at one.

use super::Stop;
use super::args::BackupArgs;
use super::output::Output;
use crate::{Client, VerifyError, WholeFile, verify_backup};
use balsa_wire::backup::BackupAnswer;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Takes a backup, or verifies one that is in a file.
pub(super) async fn run(client: &Client, output: &Output, args: BackupArgs) -> Result<(), Stop> {
    let failed = |error: io::Error| Stop::Test(format!("{}: {error}", args.file.display()));
    if args.file.as_os_str() == "-" {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::NobodyReads,
            _ => failed(error),
        };
        let whole = receive(client, &mut io::stdout().lock(), &failed, output).await?;
        output.aside(&super::output::backup_text(&whole)); // standard output has the backup
        return Ok(());
    }
    let mut file = WholeFile::create(&args.file).map_err(failed)?;
    let whole = receive(client, &mut file, &failed, output).await?;
    file.finish().map_err(failed)?;
    output.backup(&whole);
    Ok(())
}

async fn receive(
    client: &Client,
    into: &mut dyn Write,
    failed: &dyn Fn(io::Error) -> Stop,
    output: &Output,
) -> Result<BackupAnswer, Stop> {
    let mut backup = client.backup().await?;
    let mut progress = Progress::new(output);
    while let Some(bytes) = backup.next().await? {
        into.write_all(&bytes).map_err(failed)?;
        progress.show(backup.arrived_bytes());
    }
    into.flush().map_err(failed)?;
    progress.end();
    Ok(BackupAnswer { backup: backup.header().clone(), bytes: backup.arrived_bytes() })
}

/// Tells how far it is, where a person looks.
struct Progress {
    is_shown: bool,
    started: Instant,
    next: Instant,
}

impl Progress {
    fn new(output: &Output) -> Progress {
        let now = Instant::now();
        Progress { is_shown: output.progress_is_seen(), started: now, next: now + PROGRESS_INTERVAL }
    }

    fn show(&mut self, bytes: u64) {
        let now = Instant::now();
        if self.is_shown && now >= self.next {
            self.next = now + PROGRESS_INTERVAL;
            let mib = bytes >> 20;
            let seconds = now.duration_since(self.started).as_secs_f64();
            let _ = write!(io::stderr(), "\r{mib} MiB in {seconds:.0} s");
        }
    }

    fn end(&self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Checks a backup in a file, from its first byte to its last; no node is asked.
pub(super) fn verify(path: &Path, output: &Output) -> Result<(), Stop> {
    let whole = verify_backup(path).map_err(|error| match error {
        VerifyError::Unreadable(error) => Stop::Usage(format!("cannot read {}: {error}", path.display())),
        VerifyError::Bad(error) => Stop::Test(format!("{}: {error}", path.display())),
    })?;
    output.backup(&whole);
    Ok(())
}
