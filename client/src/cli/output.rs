//! What is printed: text for people, JSON for programs. A reader that went away is no error.

use super::args::Format;
use crate::failover::Report;
use balsa_wire::backup::BackupAnswer;
use balsa_wire::cluster::{ClusterAnswer, Member, MemberAddress};
use balsa_wire::duration::format_ms;
use balsa_wire::history::CompactAnswer;
use balsa_wire::kv::{ClearAnswer, DeleteAnswer, Item, PutAnswer};
use balsa_wire::leases::{LeaseAnswer, LeaseState, RevokeAnswer};
use balsa_wire::problem::Problem;
use balsa_wire::txn::{OpResult, RangeDeleteAnswer, TxnAnswer};
use serde::Serialize;
use std::io::Write;

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Output {
        Output { format }
    }

    pub(super) fn bytes(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush()); // a pipe that was closed is normal
    }

    /// A line; `false`: nobody reads any more.
    pub(super) fn line(&self, text: &str) -> bool {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    }

    pub(super) fn compacted(&self, answer: &CompactAnswer) {
        self.print(answer, || format!("oldest readable revision {}", answer.oldest_revision));
    }

    pub(super) fn item(&self, item: &Item) {
        self.print(item, || value_text(item));
    }

    pub(super) fn written(&self, answer: &PutAnswer) {
        self.print(answer, || {
            let before =
                answer.prev.as_ref().map_or_else(String::new, |item| format!("\n{}", value_text(item)));
            format!("revision {}{before}", answer.revision)
        });
    }

    pub(super) fn deleted(&self, answer: &DeleteAnswer) {
        self.print(answer, || {
            let before =
                answer.prev.as_ref().map_or_else(String::new, |item| format!("\n{}", value_text(item)));
            let what = if answer.deleted { "deleted" } else { "was absent" };
            format!("{what}, revision {}{before}", answer.revision)
        });
    }

    pub(super) fn items(&self, items: &[Item], keys_only: bool) {
        for item in items {
            self.print(item, || match keys_only {
                true => item.key.clone(),
                false => format!("{}\t{}", item.key, value_text(item)),
            });
        }
    }

    pub(super) fn count(&self, count: u64) {
        self.print(&serde_json::json!({ "count": count }), || count.to_string());
    }

    pub(super) fn range_deleted(&self, answer: &RangeDeleteAnswer) {
        self.print(answer, || format!("{} keys deleted, revision {}", answer.deleted, answer.revision));
    }

    pub(super) fn txn(&self, answer: &TxnAnswer) {
        self.print(answer, || {
            let branch = if answer.succeeded { "then" } else { "else" };
            let mut text = format!("{branch} was done, revision {}\n", answer.revision);
            for result in &answer.results {
                text += &match result {
                    OpResult::Get(Some(item)) => format!("get {}\t{}\n", item.key, value_text(item)),
                    OpResult::Get(None) => "get: was absent\n".to_owned(),
                    OpResult::Put(put) => format!("put {}\n", put.key),
                    OpResult::Delete(gone) if gone.deleted => format!("deleted {}\n", gone.key),
                    OpResult::Delete(gone) => format!("delete {}: was absent\n", gone.key),
                    OpResult::Range(found) => {
                        let lines =
                            found.items.iter().map(|item| format!("{}\t{}\n", item.key, value_text(item)));
                        lines.collect::<String>()
                    }
                };
            }
            text
        });
    }

    pub(super) fn lease(&self, answer: &LeaseAnswer) {
        self.print(answer, || format!("{}\t{}", answer.lease, format_ms(answer.ttl_ms)));
    }

    pub(super) fn revoked(&self, answer: &RevokeAnswer) {
        self.print(answer, || format!("{} keys deleted, revision {}", answer.deleted, answer.revision));
    }

    pub(super) fn lease_state(&self, state: &LeaseState) {
        self.print(state, || {
            let left = format!("{} of {} left", format_ms(state.remaining_ms), format_ms(state.ttl_ms));
            let more = if state.more { "\n..." } else { "" };
            format!("{left}\n{}{more}", state.keys.join("\n"))
        });
    }

    pub(super) fn leases(&self, leases: &[LeaseState]) {
        for lease in leases {
            self.print(lease, || {
                format!(
                    "{}\t{} of {} left",
                    lease.lease,
                    format_ms(lease.remaining_ms),
                    format_ms(lease.ttl_ms)
                )
            });
        }
    }

    pub(super) fn leads(&self, name: &str, token: u64) {
        self.print(&serde_json::json!({ "name": name, "token": token }), || {
            format!("leads {name}, token {token}")
        });
    }

    pub(super) fn cleared(&self, answer: &ClearAnswer) {
        self.print(answer, || format!("{} keys deleted, revision {}", answer.deleted, answer.revision));
    }

    pub(super) fn status(&self, seen: &ClusterAnswer) {
        self.print(seen, || {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
            let mut lines = format!(
                "cluster   {}\nleader    {} at {}\nterm      {}\nlevel     {}\nrevision  {}\ncommitted {}\nasked     {} ({}, {})\n",
                text(&seen.cluster),
                text(&seen.leader),
                text(&seen.leader_address),
                seen.term,
                seen.feature_level,
                seen.store.revision,
                seen.commit_index,
                text(&seen.node),
                name(&seen.role),
                name(&seen.phase),
            );
            if let Some(waiting) = &seen.waiting_for {
                lines += &format!("waits for {waiting}\n");
            }
            if let Some(why) = &seen.storage_full {
                lines += &format!("full      writes that need room are refused: {why}\n");
            }
            lines + &member_table(&seen.members)
        });
    }

    pub(super) fn status_members(&self, seen: &ClusterAnswer) {
        self.print(&seen.members, || member_table(&seen.members));
    }

    pub(super) fn members(&self, members: &[MemberAddress]) {
        self.print(&members, || {
            let rows = members.iter().map(|member| {
                vec![
                    member.slot.to_string(),
                    member.id.clone(),
                    name(&member.membership),
                    member.client_address.clone(),
                    member.peer_address.clone(),
                ]
            });
            table(&["slot", "id", "membership", "clients", "peers"], rows)
        });
    }

    pub(super) fn backup(&self, whole: &BackupAnswer) {
        self.print(whole, || backup_text(whole));
    }

    pub(super) fn report(&self, report: &Report) {
        self.print(report, || report.to_string());
    }

    pub(super) fn bench(&self, report: &crate::bench::Report) {
        self.print(report, || report.to_string());
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn error(&self, text: &str, problem: Option<&Problem>) {
        match problem {
            Some(problem) if self.format == Format::Json => eprintln!("{}", json(problem)),
            _ => eprintln!("balsa: {text}"),
        }
    }

    fn print(&self, answer: &impl Serialize, text: impl FnOnce() -> String) {
        let mut line = match self.format {
            Format::Text => text(),
            Format::Json => json(answer),
        };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.bytes(line.as_bytes());
    }
}

fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_else(|error| format!("\"{error}\""))
}

/// A closed set's name, as the API writes it.
fn name(value: &impl Serialize) -> String {
    json(value).trim_matches('"').to_owned()
}

pub(super) fn backup_text(BackupAnswer { backup, bytes }: &BackupAnswer) -> String {
    let (revision, keys, cluster) = (backup.revision, backup.keys, &backup.cluster);
    format!("whole: revision {revision}, {keys} keys, {bytes} bytes, cluster {cluster}")
}

pub(super) fn value_text(item: &Item) -> String {
    let value = item.value.as_ref().map(|value| value.get().to_owned());
    value.or_else(|| item.value_base64.clone()).unwrap_or_default()
}

fn member_table(members: &[Member]) -> String {
    let rows = members.iter().map(|member| {
        vec![
            member.slot.to_string(),
            member.id.clone(),
            if member.leader { "leader".to_owned() } else { name(&member.membership) },
            name(&member.health),
            member.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            member.version.clone().unwrap_or_else(|| "-".to_owned()),
            member.feature_level.map_or_else(|| "-".to_owned(), |level| level.to_string()),
            member.client_address.clone(),
            member.peer_address.clone(),
        ]
    });
    table(&["slot", "id", "role", "health", "lag", "version", "level", "clients", "peers"], rows)
}

/// Columns as wide as their widest cell, two spaces apart.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [["1", "long cell"], ["22", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["a", "b"], rows.into_iter()), "a   b\n1   long cell\n22  x\n");
    }
}
