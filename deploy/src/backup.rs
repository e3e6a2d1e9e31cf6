//! `backup`: all that the cluster holds at one moment, as a file on this machine.
//!
//! The stream comes from a Pod through the API server, and is checked as it arrives. The file is there only once it is
//! whole.

use crate::context::Context;
use crate::observed::{Observed, is_well};
use crate::progress::Progress;
use crate::{Failure, Outcome};
use balsa_client::WholeFile;
use balsa_wire::backup::{BackupAnswer, Reader};
use std::fmt::Display;
use std::io::Write;
use std::path::Path;

/// A word of progress comes with each so many bytes.
const PROGRESS_BYTES: u64 = 256 << 20;

/// Who is asked: a follower that is well, so that the leader's disk has less to do; or else the leader.
pub fn plan(observed: &Observed) -> Outcome<u32> {
    if observed.set.is_none() {
        return Err(Failure("there is no such StatefulSet".into()));
    }
    let Some(leader) = observed.leader() else {
        return Err(Failure(
            "there is no leader, and so nobody who can give a backup: `status` tells more".into(),
        ));
    };
    let ready = |ordinal: u32| observed.pod(ordinal).is_some_and(|pod| pod.ready && !pod.being_deleted);
    let follower =
        leader.members.iter().find(|member| !member.leader && is_well(member) && ready(member.slot));
    Ok(follower.map_or(leader.slot, |member| member.slot))
}

/// Has the node at `ordinal` give one, and keeps it in `file`.
pub async fn execute(
    context: &Context,
    ordinal: u32,
    file: &Path,
    progress: &mut Progress,
) -> Outcome<BackupAnswer> {
    let failed = |error: &dyn Display| Failure(format!("{}: {error}", file.display()));
    progress.say(&format!("asking slot {ordinal}"));
    let mut stream = context.open(ordinal, "v1/backup").await?;
    let mut whole = WholeFile::create(file).map_err(|error| failed(&error))?;
    let (mut reader, mut header) = (Reader::default(), None);
    while let Some(bytes) = stream.next().await? {
        header = reader.check(&bytes).map_err(|error| failed(&error))?.or(header);
        whole.write_all(&bytes).map_err(|error| failed(&error))?;
        let steps = reader.taken() / PROGRESS_BYTES;
        if steps > 0 {
            progress.say(&format!("{} MiB have arrived", steps * (PROGRESS_BYTES >> 20)));
        }
    }
    reader.finish().map_err(|error| failed(&error))?;
    let backup = header.ok_or_else(|| failed(&"a backup without a header"))?;
    whole.finish().map_err(|error| failed(&error))?;
    Ok(BackupAnswer { backup, bytes: reader.taken() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::installation;

    #[test]
    fn a_follower_is_asked_where_one_is_well() {
        let whole = installation(3, "0 1 2", Some(0));
        assert_eq!(plan(&whole), Ok(1));
        let mut limps = whole.clone();
        limps.pods[1].ready = false;
        assert_eq!(plan(&limps), Ok(2));
        assert_eq!(plan(&installation(1, "0", Some(0))), Ok(0), "an only one");
        assert!(plan(&installation(3, "0 1 2", None)).is_err(), "no leader");
        assert!(plan(&Observed::default()).is_err(), "no StatefulSet");
    }
}
