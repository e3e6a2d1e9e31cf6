//! `balsa backup`: keeps a backup in a file that is there only once it is whole, or passes it on; or looks at one.

use super::Stop;
use super::args::BackupArgs;
use super::output::Output;
use crate::{Client, WholeFile};
use balsa_wire::backup::{BackupAnswer, Piece, Reader};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Takes a backup, or verifies one that is in a file.
pub(super) async fn run(client: &Client, output: &Output, args: BackupArgs) -> Result<(), Stop> {
    let failed = |error: io::Error| Stop::Test(format!("{}: {error}", args.file.display()));
    if args.file.as_os_str() == "-" {
        let whole = receive(client, &mut io::stdout().lock(), &failed).await?;
        eprintln!("{}", super::output::backup_text(&whole)); // standard output has the backup
        return Ok(());
    }
    let mut file = WholeFile::create(&args.file).map_err(failed)?;
    let whole = receive(client, &mut file, &failed).await?;
    file.finish().map_err(failed)?;
    output.backup(&whole);
    Ok(())
}

async fn receive(
    client: &Client,
    into: &mut dyn Write,
    failed: &dyn Fn(io::Error) -> Stop,
) -> Result<BackupAnswer, Stop> {
    let mut backup = client.backup().await?;
    let mut progress = Progress::new();
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
    fn new() -> Progress {
        let now = Instant::now();
        Progress { is_shown: io::stderr().is_terminal(), started: now, next: now + PROGRESS_INTERVAL }
    }

    fn show(&mut self, bytes: u64) {
        let now = Instant::now();
        if self.is_shown && now >= self.next {
            self.next = now + PROGRESS_INTERVAL;
            let mib = bytes >> 20;
            eprint!("\r{mib} MiB in {:.0} s", now.duration_since(self.started).as_secs_f64());
        }
    }

    fn end(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Checks a backup in a file, from its first byte to its last; no node is asked.
pub(super) fn verify(path: &Path, output: &Output) -> Result<(), Stop> {
    let failed = |error: io::Error| Stop::Usage(format!("cannot read {}: {error}", path.display()));
    let bad = |error: &dyn std::fmt::Display| Stop::Test(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let (mut reader, mut buffer, mut header) = (Reader::default(), vec![0; READ_BYTES], None);
    loop {
        let mut input = match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            bytes => &buffer[..bytes],
        };
        while let Some(piece) = reader.take(&mut input).map_err(|error| bad(&error))? {
            if let Piece::Header(arrived) = piece {
                header = Some(arrived);
            }
        }
    }
    reader.finish().map_err(|error| bad(&error))?;
    let backup = header.ok_or_else(|| bad(&"a backup without a header"))?;
    output.backup(&BackupAnswer { backup, bytes: reader.taken() });
    Ok(())
}
