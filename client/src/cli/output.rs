//! What is printed: text for people, JSON for programs. A reader that went away is no error.

use super::args::Format;
use crate::failover::Report;
use balsa_wire::backup::BackupAnswer;
use balsa_wire::cluster::{ClusterAnswer, Health, Member, MemberAddress};
use balsa_wire::duration::format_ms;
use balsa_wire::history::CompactAnswer;
use balsa_wire::kv::{ClearAnswer, DeleteAnswer, Item, PutAnswer};
use balsa_wire::leases::{LeaseAnswer, LeaseState, RevokeAnswer};
use balsa_wire::problem::Problem;
use balsa_wire::txn::{OpResult, RangeDeleteAnswer, TxnAnswer};
use serde::Serialize;
use std::io::{IsTerminal as _, Write};

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
    /// A person sees standard output, and wants colours.
    colours: bool,
}

impl Output {
    pub(super) fn new(format: Format) -> Output {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty());
        Output { format, colours: wanted && std::io::stdout().is_terminal() }
    }

    /// Bytes as they are; `false`: nobody reads any more, which is normal.
    pub(super) fn bytes(&self, bytes: &[u8]) -> bool {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).is_ok()
    }

    /// A line beside the answer, on standard error.
    pub(super) fn aside(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}"); // where nobody listens, nothing is lost
    }

    /// Whether a person sees what is said of long work while it goes on.
    pub(super) fn progress_is_seen(&self) -> bool {
        std::io::stderr().is_terminal()
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

    /// `false`: nobody reads any more.
    pub(super) fn items(&self, items: &[Item], keys_only: bool) -> bool {
        items.iter().all(|item| {
            self.print(item, || match keys_only {
                true => item.key.clone(),
                false => format!("{}\t{}", item.key, value_text(item)),
            })
        })
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

    /// `false`: nobody reads any more.
    pub(super) fn leases(&self, leases: &[LeaseState]) -> bool {
        leases.iter().all(|lease| {
            let (left, whole) = (format_ms(lease.remaining_ms), format_ms(lease.ttl_ms));
            self.print(lease, || format!("{}\t{left} of {whole} left", lease.lease))
        })
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
            lines + &member_table(&seen.members, self.colours)
        });
    }

    pub(super) fn status_members(&self, seen: &ClusterAnswer) {
        self.print(&seen.members, || member_table(&seen.members, self.colours));
    }

    pub(super) fn members(&self, members: &[MemberAddress]) {
        self.print(&members, || {
            let rows = members.iter().map(|member| {
                let cells = [
                    member.slot.to_string(),
                    member.id.clone(),
                    name(&member.membership),
                    member.client_address.clone(),
                    member.peer_address.clone(),
                ];
                cells.map(Cell::plain).to_vec()
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
            Some(problem) if self.format == Format::Json => self.aside(&json(problem)),
            _ => self.aside(&format!("balsa: {text}")),
        }
    }

    fn print(&self, answer: &impl Serialize, text: impl FnOnce() -> String) -> bool {
        let mut line = match self.format {
            Format::Text => text(),
            Format::Json => json(answer),
        };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.bytes(line.as_bytes())
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

/// A cell of a table, and how it is painted where a person looks.
#[derive(Clone)]
struct Cell {
    text: String,
    /// Its escape sequence; empty: as all else.
    paint: &'static str,
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

impl Cell {
    fn plain(text: String) -> Cell {
        Cell { text, paint: "" }
    }

    fn health(health: Health, colours: bool) -> Cell {
        let paint = match health {
            _ if !colours => "",
            Health::Healthy => GREEN,
            Health::Unreachable => RED,
            _ => YELLOW,
        };
        Cell { text: name(&health), paint }
    }
}

fn member_table(members: &[Member], colours: bool) -> String {
    let rows = members.iter().map(|member| {
        let role = if member.leader { "leader".to_owned() } else { name(&member.membership) };
        let or_dash = |text: Option<String>| Cell::plain(text.unwrap_or_else(|| "-".to_owned()));
        vec![
            Cell::plain(member.slot.to_string()),
            Cell::plain(member.id.clone()),
            Cell::plain(role),
            Cell::health(member.health, colours),
            or_dash(member.lag.map(|lag| lag.to_string())),
            or_dash(member.version.clone()),
            or_dash(member.feature_level.map(|level| level.to_string())),
            Cell::plain(member.client_address.clone()),
            Cell::plain(member.peer_address.clone()),
        ]
    });
    table(&["slot", "id", "role", "health", "lag", "version", "level", "clients", "peers"], rows)
}

/// Columns as wide as their widest cell, two spaces apart.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let mut lines = vec![head.iter().map(|cell| Cell::plain((*cell).to_owned())).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (Cell { text, paint }, width) in line.iter().zip(&widths) {
            let end = if paint.is_empty() { "" } else { PLAIN };
            shown += &format!("{paint}{text:<width$}{end}  ");
        }
        text += shown.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_whatever_the_paint() {
        let cell = |text: &str| Cell::plain(text.to_owned());
        let rows = [vec![cell("1"), cell("long cell")], vec![cell("22"), cell("x")]];
        assert_eq!(table(&["a", "b"], rows.into_iter()), "a   b\n1   long cell\n22  x\n");
        let rows = [vec![Cell::health(Health::Unreachable, true), cell("x")]];
        let painted = table(&["health", "b"], rows.into_iter());
        assert_eq!(painted, "health       b\n\x1b[31munreachable\x1b[0m  x\n");
        assert_eq!(Cell::health(Health::Unreachable, false).paint, "");
    }
}
