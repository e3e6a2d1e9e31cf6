//! A violation as a picture: one HTML file that needs nothing else.
//!
//! A lane for each client, a bar for each operation from its call to its answer, numbered in the longest order that was
//! found, and in red the operation that does not fit. Time is stretched so that every call and answer has room. Of a long
//! history only what is near the violation is drawn.

use crate::history::{History, Operation};
use crate::verdict::Violation;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Operations of the order, before the violation, that are drawn.
const DRAWN_BEFORE: usize = 60;
/// Operations beside it that are drawn.
const DRAWN_BESIDE: usize = 60;
const LANE_HEIGHT: usize = 44;
const BAR_HEIGHT: usize = 26;
const STEP_WIDTH: usize = 46;
const LEFT: usize = 110;
const TOP: usize = 36;

/// Draws it.
pub fn html(history: &History, violation: &Violation) -> String {
    let drawn = choose(history, violation);
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Not linearizable</title>\n<style>\n\
         body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}\n.scroll{overflow-x:auto;border:1px solid #ddd}\n\
         svg text{font:12px ui-monospace,monospace}\n.ok rect{fill:#cfe8cf;stroke:#4b8b4b}\n\
         .open rect{fill:#eee;stroke:#888;stroke-dasharray:4 3}\n.beside rect{fill:#e4e9f5;stroke:#7585ad}\n\
         .misfit rect{fill:#f6b6b0;stroke:#b3261e;stroke-width:2}\n.misfit text{font-weight:bold}\n.lane{stroke:#ddd}\n\
         .key span{display:inline-block;padding:0 .6em;margin-right:1em;border:1px solid #888}\n\
         </style></head><body>\n<h1>Not linearizable</h1>\n",
    );
    let _ = writeln!(page, "<p><b>{}</b></p>", escape(&violation.why));
    let key = violation.key.as_deref().unwrap_or("all keys");
    let _ = writeln!(
        page,
        "<p>Judged: {}. The longest order of a beginning that could be found has {} operations; after it: <code>{}</code>. \
         Numbers give each operation's place in that order. Drawn are {} of {} operations; point at one for all about it.</p>",
        escape(key),
        violation.order.len(),
        escape(&violation.state),
        drawn.len(),
        history.operations.len()
    );
    page += "<p class=\"key\"><span style=\"background:#cfe8cf\">in order</span><span \
             style=\"background:#f6b6b0\">does not fit</span><span style=\"background:#e4e9f5\">not placed \
             yet</span><span style=\"background:#eee;border-style:dashed\">no answer: may have happened at any time \
             since, or never</span></p>\n<div class=\"scroll\">\n";
    page += &svg(history, violation, &drawn);
    page += "</div>\n</body></html>\n";
    page
}

/// Alone the drawing, as a file of its own.
pub fn svg_file(history: &History, violation: &Violation) -> String {
    let drawing = svg(history, violation, &choose(history, violation));
    let style = "<style>text{font:12px monospace}.ok rect{fill:#cfe8cf;stroke:#4b8b4b}.open \
                 rect{fill:#eee;stroke:#888;stroke-dasharray:4 3}.beside rect{fill:#e4e9f5;stroke:#7585ad}.misfit \
                 rect{fill:#f6b6b0;stroke:#b3261e;stroke-width:2}.lane{stroke:#ddd}</style>";
    match drawing.split_once('>') {
        Some((open, rest)) => format!("{open}>{style}{rest}"),
        None => drawing,
    }
}

/// The operations near the violation.
fn choose(history: &History, violation: &Violation) -> Vec<usize> {
    let mut drawn: BTreeSet<usize> = violation.order.iter().rev().take(DRAWN_BEFORE).copied().collect();
    drawn.insert(violation.misfit);
    let misfit = &history.operations[violation.misfit];
    let until_ns = misfit.return_ns.unwrap_or(u64::MAX);
    let of_key = |operation: &Operation| {
        violation.key.is_none() || operation.key().is_none() || operation.key() == violation.key.as_ref()
    };
    let beside = history.operations.iter().enumerate().filter(|(at, operation)| {
        let overlaps = operation.call_ns <= until_ns
            && operation.return_ns.is_none_or(|returned| returned >= misfit.call_ns);
        operation.counts() && overlaps && of_key(operation) && !drawn.contains(at)
    });
    // The nearest first.
    let mut beside: Vec<usize> = beside.map(|(at, _)| at).collect();
    beside.sort_by_key(|&at| history.operations[at].call_ns.abs_diff(misfit.call_ns));
    drawn.extend(beside.into_iter().take(DRAWN_BESIDE));
    drawn.into_iter().collect()
}

fn svg(history: &History, violation: &Violation, drawn: &[usize]) -> String {
    let operations = || drawn.iter().map(|&at| &history.operations[at]);
    let times: BTreeSet<u64> =
        operations().flat_map(|operation| [Some(operation.call_ns), operation.return_ns]).flatten().collect();
    let column: BTreeMap<u64, usize> = times.iter().enumerate().map(|(at, time)| (*time, at)).collect();
    let clients: BTreeSet<u64> = operations().map(|operation| operation.client).collect();
    let lane: BTreeMap<u64, usize> = clients.iter().enumerate().map(|(at, client)| (*client, at)).collect();
    let number: BTreeMap<usize, usize> =
        violation.order.iter().enumerate().map(|(at, operation)| (*operation, at + 1)).collect();
    let width = LEFT + (column.len() + 2) * STEP_WIDTH;
    let height = TOP + clients.len() * LANE_HEIGHT + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
         {height}\" role=\"img\">\n"
    );
    let first_ns = times.first().copied().unwrap_or(0);
    let last_ns = times.last().copied().unwrap_or(0);
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"20\">{first_ns} ns to {last_ns} ns</text>");
    for (client, at) in &lane {
        let y = TOP + at * LANE_HEIGHT;
        let middle = y + BAR_HEIGHT / 2;
        let _ = writeln!(
            svg,
            "<line class=\"lane\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{middle}\" y2=\"{middle}\"/><text x=\"4\" \
             y=\"{}\">client {client}</text>",
            middle + 4
        );
    }
    for &at in drawn {
        let operation = &history.operations[at];
        let x_of = |time: u64| LEFT + column.get(&time).copied().unwrap_or(0) * STEP_WIDTH;
        let x = x_of(operation.call_ns);
        let end = operation.return_ns.map_or(width - 8, |time| x_of(time).max(x + 8));
        let y = TOP + lane.get(&operation.client).copied().unwrap_or(0) * LANE_HEIGHT;
        let class = match (at == violation.misfit, number.contains_key(&at), operation.is_decided()) {
            (true, ..) => "misfit",
            (_, true, true) => "ok",
            (_, _, false) => "open",
            _ => "beside",
        };
        let place = number.get(&at).map_or_else(String::new, |number| format!("{number}: "));
        let said = escape(&operation.describe());
        let answered =
            operation.return_ns.map_or_else(|| "no answer".to_owned(), |time| format!("answered {time} ns"));
        let _ = writeln!(
            svg,
            "<g class=\"{class}\"><title>{said}, called {} ns, {answered}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" \
             height=\"{BAR_HEIGHT}\" rx=\"3\"/><text x=\"{}\" y=\"{}\">{place}{}</text></g>",
            operation.call_ns,
            end.saturating_sub(x),
            x + 4,
            y + BAR_HEIGHT - 9,
            escape(&shorten(&operation.describe(), end.saturating_sub(x) / 7))
        );
    }
    svg += "</svg>\n";
    svg
}

fn shorten(text: &str, letters: usize) -> String {
    let letters = letters.max(8);
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
