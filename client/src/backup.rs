//! A backup as it arrives: bytes to keep, checked on their way.

use crate::client::plain;
use crate::error::{Cause, ReadError};
use crate::transport::Retry;
use crate::{Client, transport};
use balsa_wire::backup::{BackupAnswer, BackupError, Header, Reader, Totals};
use bytes::Bytes;
use reqwest::Method;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

/// How long the next bytes are waited for.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a file that are read at once.
const READ_BYTES: usize = 1 << 20;

/// A backup that is arriving. Dropped, it is given up.
#[derive(Debug)]
pub struct Backup {
    answer: reqwest::Response,
    endpoint: String,
    reader: Reader,
    header: Header,
    /// Arrived with the header, and not yet taken.
    first: Option<Bytes>,
}

impl Client {
    /// Begins a backup of all that the cluster holds, no older than this call; resolves when it begins to arrive. It is not
    /// retried once it has begun.
    pub async fn backup(&self) -> Result<Backup, ReadError> {
        let request = plain(Method::GET, "/v1/backup".to_owned(), Retry::Harmless);
        let opened = self.transport().open(&request, self.timeout()).await;
        let (mut answer, endpoint) = opened.map_err(|cause| ReadError { cause })?;
        let mut reader = Reader::default();
        let mut first = Vec::new();
        loop {
            let Some(bytes) = next_bytes(&mut answer, &endpoint).await? else {
                reader.finish().map_err(|error| foreign(&endpoint, &error))?;
                return Err(foreign(&endpoint, &"a backup without a header"));
            };
            first.extend_from_slice(&bytes);
            if let Some(header) = reader.check(&bytes).map_err(|error| foreign(&endpoint, &error))? {
                return Ok(Backup { answer, endpoint, reader, header, first: Some(first.into()) });
            }
        }
    }
}

impl Backup {
    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes have arrived.
    pub fn arrived_bytes(&self) -> u64 {
        self.reader.taken()
    }

    /// The next bytes; they are good as far as a check can tell by now. `None`: all have arrived, and the whole is good.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match next_bytes(&mut self.answer, &self.endpoint).await? {
            Some(bytes) => {
                self.reader.check(&bytes).map_err(|error| foreign(&self.endpoint, &error))?;
                Ok(Some(bytes))
            }
            None => self.totals().map(|_| None),
        }
    }

    fn totals(&self) -> Result<Totals, ReadError> {
        self.reader.finish().map_err(|error| foreign(&self.endpoint, &error))
    }
}

async fn next_bytes(answer: &mut reqwest::Response, endpoint: &str) -> Result<Option<Bytes>, ReadError> {
    let no_answer =
        |error: String| ReadError { cause: Cause::NoAnswer { endpoint: endpoint.to_owned(), error } };
    match tokio::time::timeout(STALL_TIMEOUT, answer.chunk()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(no_answer(format!("the backup broke off: {}", transport::describe(&error)))),
        Err(_) => Err(no_answer(format!("the backup stood still for {STALL_TIMEOUT:?}"))),
    }
}

/// The failure where an endpoint sends what is no sound backup.
fn foreign(endpoint: &str, what: &dyn std::fmt::Display) -> ReadError {
    ReadError { cause: Cause::Foreign { endpoint: endpoint.to_owned(), what: what.to_string() } }
}

/// Why a backup in a file is not known to be whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(io::Error),
    /// It holds no backup, or not a whole one.
    #[error(transparent)]
    Bad(BackupError),
}

/// Reads a backup in a file from its first byte to its last; gives what it is of. No node is asked.
pub fn verify(file: &Path) -> Result<BackupAnswer, VerifyError> {
    let mut file = File::open(file).map_err(VerifyError::Unreadable)?;
    let (mut reader, mut buffer, mut header) = (Reader::default(), vec![0; READ_BYTES], None);
    loop {
        let bytes = match file.read(&mut buffer).map_err(VerifyError::Unreadable)? {
            0 => break,
            bytes => &buffer[..bytes],
        };
        header = reader.check(bytes).map_err(VerifyError::Bad)?.or(header);
    }
    reader.finish().map_err(VerifyError::Bad)?;
    let backup = header.ok_or(VerifyError::Bad(BackupError::NotABackup))?; // a whole one has a header
    Ok(BackupAnswer { backup, bytes: reader.taken() })
}
