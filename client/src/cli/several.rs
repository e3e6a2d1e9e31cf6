//! Ranges, transactions and leases on the command line.

use super::args::{LeaseCommand, RangeArgs};
use super::output::Output;
use super::{Stop, text_of};
use crate::Client;
use balsa_wire::txn::TxnRequest;

/// Prints a range, page by page.
pub(super) async fn range(client: &Client, output: &Output, args: RangeArgs) -> Result<(), Stop> {
    let mut asking = client.range();
    if let Some(prefix) = args.prefix {
        asking = asking.prefix(prefix);
    }
    if let Some(start) = args.start {
        asking = asking.start(start);
    }
    if let Some(end) = args.end {
        asking = asking.end(end);
    }
    if let Some(revision) = args.revision {
        asking = asking.revision(revision);
    }
    if args.desc {
        asking = asking.descending();
    }
    if args.stale {
        asking = asking.stale();
    }
    if args.count {
        output.count(asking.count().await?);
        return Ok(());
    }
    if args.keys {
        asking = asking.keys_only();
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    if let Ok(limit) = u32::try_from(left.min(1_000)) {
        asking = asking.limit(limit);
    }
    while let Some(mut page) = asking.page().await? {
        page.items.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= page.items.len() as u64;
        let is_read = output.items(&page.items, args.keys);
        if left == 0 || !is_read {
            break;
        }
    }
    Ok(())
}

/// Deletes what begins with a prefix.
pub(super) async fn delete_prefix(client: &Client, output: &Output, prefix: String) -> Result<(), Stop> {
    if prefix.is_empty() {
        return Err(Stop::Usage("an empty prefix is every key; `balsa clear` deletes those".into()));
    }
    output.range_deleted(&client.delete_prefix(prefix).await?);
    Ok(())
}

/// Does a transaction that a file describes.
pub(super) async fn txn(client: &Client, output: &Output, file: &str) -> Result<(), Stop> {
    let text = text_of(file)?;
    let request: TxnRequest = serde_json::from_str(&text)
        .map_err(|error| Stop::Usage(format!("{file} is no transaction: {error}; see docs/api.md")))?;
    let done = client.txn().request(request).await?;
    output.txn(&done);
    if done.succeeded {
        Ok(())
    } else {
        Err(Stop::NotFound("the conditions did not hold; `else` was done".into()))
    }
}

/// What is done with leases.
pub(super) async fn lease(client: &Client, output: &Output, command: LeaseCommand) -> Result<(), Stop> {
    match command {
        LeaseCommand::Grant { ttl } => output.lease(&client.grant_lease(ttl).await?),
        LeaseCommand::Keep { lease } => output.lease(&client.keep_lease(lease).await?),
        LeaseCommand::Revoke { lease } => output.revoked(&client.revoke_lease(lease).await?),
        LeaseCommand::Get { lease } => {
            let state = client.lease(lease).await?;
            output.lease_state(&state.ok_or_else(|| Stop::NotFound(format!("there is no lease {lease}")))?);
        }
        LeaseCommand::List => {
            let mut after = None;
            loop {
                let page = client.leases(after).await?;
                let is_read = output.leases(&page.leases);
                after = page.leases.last().map(|lease| lease.lease);
                if !page.more || after.is_none() || !is_read {
                    break;
                }
            }
        }
    }
    Ok(())
}
