//! Small histories, written by hand: each says in a word what it shows.

use balsa_check::{Verdict, check, json_lines, picture};

/// Reads `client op key value call return outcome…` in the format of the project, a line each.
fn judge(lines: &[&str]) -> Verdict {
    check(&json_lines::read(&lines.join("\n")).expect("a history"))
}

fn holds(lines: &[&str]) {
    let verdict = judge(lines);
    assert!(matches!(verdict, Verdict::Linearizable { .. }), "{verdict:?}");
}

/// Violated, for a reason with these words.
fn fails(lines: &[&str], words: &str) {
    match judge(lines) {
        Verdict::Violation(violation) => assert!(violation.why.contains(words), "{}", violation.why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_revisions() {
    let put = r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":20,"outcome":"ok"}"#;
    let again = r#"{"client":1,"op":"put","key":"a","value":2,"call_ns":30,"return_ns":40,"outcome":"ok"}"#;
    let read = |value: &str, call: u64, back: u64| {
        format!(
            r#"{{"client":2,"op":"get","key":"a"{value},"call_ns":{call},"return_ns":{back},"outcome":"ok"}}"#
        )
    };
    holds(&[put, &read(r#","value":1"#, 21, 25)]);
    holds(&[put, &read("", 5, 15)]);
    holds(&[put, &read(r#","value":1"#, 5, 15)]);
    holds(&[put, &read(r#","value":1"#, 20, 30), &read("", 0, 10)]);
    fails(&[put, &read("", 21, 25)], "no order explains `get a -> absent`");
    fails(&[put, &read(r#","value":1"#, 1, 9)], "no order explains");
    // Two reads, the second of which goes back in time.
    holds(&[put, again, &read(r#","value":1"#, 31, 33), &read(r#","value":2"#, 34, 36)]);
    fails(&[put, again, &read(r#","value":2"#, 31, 33), &read(r#","value":1"#, 34, 36)], "no order explains");
}

#[test]
fn unknown_writes_may_happen_late_or_never() {
    let lost = r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"outcome":"unknown"}"#;
    let absent = r#"{"client":2,"op":"get","key":"a","call_ns":50,"return_ns":60,"outcome":"ok"}"#;
    let there = r#"{"client":2,"op":"get","key":"a","value":1,"call_ns":70,"return_ns":80,"outcome":"ok"}"#;
    let gone = r#"{"client":2,"op":"get","key":"a","call_ns":90,"return_ns":95,"outcome":"ok"}"#;
    let early = r#"{"client":2,"op":"get","key":"a","value":1,"call_ns":1,"return_ns":9,"outcome":"ok"}"#;
    holds(&[lost, absent]);
    holds(&[lost, absent, there]);
    fails(&[lost, absent, there, gone], "absent");
    fails(&[lost, early], "no order explains");
    let refused =
        r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":11,"outcome":"not_applied"}"#;
    holds(&[refused, absent]);
    fails(&[refused, there], "no order explains");
}

#[test]
fn conditions_and_clears_without_revisions() {
    let put = r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":20,"outcome":"ok"}"#;
    let other = r#"{"client":1,"op":"put","key":"b","value":1,"call_ns":10,"return_ns":20,"outcome":"ok"}"#;
    let refuted = r#"{"client":2,"op":"put","key":"a","value":2,"expected":{"absent":true},"call_ns":30,"return_ns":31,"outcome":"condition_failed"}"#;
    let created = r#"{"client":2,"op":"put","key":"a","value":2,"expected":{"absent":true},"call_ns":30,"return_ns":31,"outcome":"ok"}"#;
    let swapped = r#"{"client":2,"op":"put","key":"a","value":2,"expected":{"value":1},"call_ns":30,"return_ns":31,"outcome":"ok"}"#;
    holds(&[put, refuted]);
    fails(&[put, created], "if absent");
    holds(&[put, swapped]);
    fails(&[refuted], "condition failed");
    let clear = |told: u64| {
        format!(r#"{{"client":3,"op":"clear","deleted":{told},"call_ns":40,"return_ns":50,"outcome":"ok"}}"#)
    };
    holds(&[put, other, &clear(2)]);
    fails(&[put, other, &clear(1)], "clear");
    let left = r#"{"client":2,"op":"get","key":"b","value":1,"call_ns":60,"return_ns":61,"outcome":"ok"}"#;
    fails(&[put, other, &clear(2), left], "get b");
}

const PUT: &str =
    r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":20,"outcome":"ok","revision":1}"#;
const PUT_2: &str =
    r#"{"client":1,"op":"put","key":"a","value":2,"call_ns":30,"return_ns":40,"outcome":"ok","revision":2}"#;

#[test]
fn revisions_must_agree_with_time() {
    holds(&[PUT, PUT_2]);
    let early = r#"{"client":2,"op":"put","key":"b","value":2,"call_ns":1,"return_ns":5,"outcome":"ok","revision":3}"#;
    fails(&[PUT, PUT_2, early], "stands behind");
    let twice = r#"{"client":2,"op":"put","key":"b","value":2,"call_ns":1,"return_ns":50,"outcome":"ok","revision":2}"#;
    fails(&[PUT, PUT_2, twice], "two writes made revision 2");
    let beyond = r#"{"client":2,"op":"put","key":"b","value":2,"call_ns":41,"return_ns":50,"outcome":"ok","revision":4}"#;
    fails(&[PUT, PUT_2, beyond], "applied more than once");
}

#[test]
fn reads_stand_where_their_keys_revision_was() {
    let read = |revision: u64, value: &str, call: u64, back: u64| {
        format!(
            r#"{{"client":2,"op":"get","key":"a"{value},"call_ns":{call},"return_ns":{back},"outcome":"ok","key_revision":{revision}}}"#
        )
    };
    let (one, two) = (r#","value":1"#, r#","value":2"#);
    holds(&[PUT, PUT_2, &read(1, one, 15, 35), &read(2, two, 31, 50)]);
    fails(&[PUT, PUT_2, &read(1, two, 15, 35)], "was 1");
    // A stale read: called after the next write was answered.
    fails(&[PUT, PUT_2, &read(1, one, 41, 45)], "stands behind");
    fails(&[PUT, PUT_2, &read(2, two, 1, 25)], "stands behind");
    fails(&[PUT, PUT_2, &read(3, two, 50, 60)], "nobody made");
    fails(&[PUT, PUT_2, &read(0, "", 21, 25)], "the key was there");
    holds(&[PUT, PUT_2, &read(0, "", 15, 25)]);
    fails(&[PUT, &read(1, "", 15, 25)], "contradicts itself");
}

#[test]
fn absent_reads_wait_for_a_deletion_that_comes_in_time() {
    let gone = r#"{"client":1,"op":"delete","key":"a","deleted":1,"call_ns":50,"return_ns":60,"outcome":"ok","revision":3}"#;
    let put_3 = r#"{"client":1,"op":"put","key":"a","value":3,"call_ns":70,"return_ns":80,"outcome":"ok","revision":4}"#;
    let absent = |call: u64, back: u64| {
        format!(r#"{{"client":2,"op":"get","key":"a","call_ns":{call},"return_ns":{back},"outcome":"ok"}}"#)
    };
    holds(&[PUT, PUT_2, gone, put_3, &absent(12, 13), &absent(15, 55), &absent(59, 61), &absent(75, 90)]);
    fails(&[PUT, PUT_2, gone, put_3, &absent(21, 45)], "absent");
    fails(&[PUT, PUT_2, gone, put_3, &absent(81, 85)], "absent");
    let nothing = r#"{"client":3,"op":"delete","key":"a","deleted":0,"call_ns":61,"return_ns":69,"outcome":"ok","revision":3}"#;
    holds(&[PUT, PUT_2, gone, nothing]);
    let wrong = r#"{"client":3,"op":"delete","key":"a","deleted":0,"call_ns":35,"return_ns":69,"outcome":"ok","revision":2}"#;
    fails(&[PUT, PUT_2, gone, wrong], "was 2");
}

/// Clients are recorded one after the other, not in the order of time.
#[test]
fn those_that_looked_at_one_revision_may_be_recorded_in_any_order() {
    let put = r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":20,"outcome":"ok","revision":1}"#;
    let delete = |call: u64, back: u64| {
        format!(
            r#"{{"client":2,"op":"delete","key":"b","deleted":0,"call_ns":{call},"return_ns":{back},"outcome":"ok","revision":1}}"#
        )
    };
    let next = r#"{"client":1,"op":"put","key":"a","value":2,"call_ns":50,"return_ns":60,"outcome":"ok","revision":2}"#;
    let (earlier, later) = (delete(22, 25), delete(30, 35));
    holds(&[put, next, &earlier, &later]);
    holds(&[put, next, &later, &earlier]);
    fails(&[put, next, &later, &delete(1, 9)], "it was answered at 9 ns");
}

#[test]
fn missing_revisions_are_the_work_of_unknown_writes() {
    let lost = |key: &str, call: u64| {
        format!(r#"{{"client":3,"op":"put","key":"{key}","value":9,"call_ns":{call},"outcome":"unknown"}}"#)
    };
    let put_3 = r#"{"client":1,"op":"put","key":"c","value":3,"call_ns":50,"return_ns":60,"outcome":"ok","revision":3}"#;
    let read_b = r#"{"client":2,"op":"get","key":"b","value":9,"call_ns":70,"return_ns":80,"outcome":"ok","key_revision":2}"#;
    let read_a = r#"{"client":2,"op":"get","key":"a","value":1,"call_ns":70,"return_ns":80,"outcome":"ok","key_revision":1}"#;
    holds(&[PUT, put_3, &lost("b", 15), read_b]);
    holds(&[PUT, put_3, &lost("b", 15), &lost("a", 15), read_a]);
    // Only the write of `a` was called in time, and it was not seen.
    fails(&[PUT, put_3, &lost("b", 65), &lost("a", 15), read_a], "");
    fails(&[PUT, put_3, &lost("b", 61)], "revision 2");
    let clear =
        r#"{"client":1,"op":"clear","deleted":2,"call_ns":90,"return_ns":95,"outcome":"ok","revision":4}"#;
    fails(&[PUT, put_3, &lost("b", 15), clear], "3 keys");
    holds(&[PUT, put_3, &lost("a", 15), &lost("b", 15), clear]);
}

/// The second guess at a missing revision is right, but only if a read that saw nothing is given its place early.
#[test]
fn a_second_guess_and_an_early_place() {
    holds(&[
        r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":40,"outcome":"ok","revision":1}"#,
        r#"{"client":2,"op":"get","key":"a","call_ns":20,"return_ns":45,"outcome":"ok","key_revision":0}"#,
        r#"{"client":3,"op":"delete","key":"a","call_ns":60,"outcome":"unknown"}"#,
        r#"{"client":4,"op":"put","key":"b","value":2,"call_ns":70,"outcome":"unknown"}"#,
        r#"{"client":1,"op":"put","key":"a","value":3,"expected":{"absent":true},"call_ns":80,"return_ns":90,"outcome":"ok","revision":3}"#,
    ]);
}

#[test]
fn conditions_on_revisions() {
    let swap = |expected: u64, outcome: &str| {
        format!(
            r#"{{"client":2,"op":"put","key":"a","value":5,"expected":{{"revision":{expected}}},"call_ns":21,"return_ns":29,"outcome":{outcome}}}"#
        )
    };
    let later = r#"{"client":1,"op":"put","key":"a","value":2,"call_ns":30,"return_ns":40,"outcome":"ok","revision":3}"#;
    holds(&[PUT, &swap(1, r#""ok","revision":2"#), later]);
    fails(&[PUT, &swap(7, r#""ok","revision":2"#), later], "condition does not hold");
    holds(&[PUT, &swap(7, r#""condition_failed","key_revision":1"#)]);
    fails(&[PUT, &swap(1, r#""condition_failed","key_revision":1"#)], "was 1");
}

/// What is known of one key's end holds for all that end with it.
#[test]
fn a_clear_is_one_instant() {
    let put_b = r#"{"client":1,"op":"put","key":"b","value":1,"call_ns":21,"return_ns":30,"outcome":"ok","revision":2}"#;
    let clear =
        r#"{"client":1,"op":"clear","deleted":2,"call_ns":50,"return_ns":120,"outcome":"ok","revision":3}"#;
    let still = r#"{"client":2,"op":"get","key":"b","value":1,"call_ns":100,"return_ns":110,"outcome":"ok","key_revision":2}"#;
    let gone = |back: u64| {
        format!(
            r#"{{"client":3,"op":"get","key":"a","call_ns":60,"return_ns":{back},"outcome":"ok","key_revision":0}}"#
        )
    };
    holds(&[PUT, put_b, clear, still, &gone(105)]);
    fails(&[PUT, put_b, clear, still, &gone(90)], "absent");
}

/// `if` and what follows it, up to the answer.
fn txn(body: &str, call: u64, back: u64, revision: u64) -> String {
    format!(
        r#"{{"client":4,"op":"txn",{body},"call_ns":{call},"return_ns":{back},"outcome":"ok","revision":{revision}}}"#
    )
}

#[test]
fn a_transaction_is_one_instant() {
    let swap = |value: u64, succeeded: bool| {
        format!(
            r#""if":[{{"key":"a","expected":{{"value":{value}}}}}],"then":[{{"op":"get","key":"a","value":1}},{{"op":"put","key":"a","value":2}},{{"op":"put","key":"b","value":2}}],"else":[{{"op":"get","key":"a","value":1}}],"succeeded":{succeeded}"#
        )
    };
    let read = |key: &str, value: &str, call: u64| {
        format!(
            r#"{{"client":2,"op":"get","key":"{key}"{value},"call_ns":{call},"return_ns":{},"outcome":"ok","key_revision":{}}}"#,
            call + 5,
            if value.is_empty() { 0 } else { 2 }
        )
    };
    let two = r#","value":2"#;
    let done = txn(&swap(1, true), 30, 40, 2);
    holds(&[PUT, &done, &read("a", two, 50), &read("b", two, 60)]);
    // Half of it was seen, and then the other half not.
    fails(&[PUT, &done, &read("a", two, 31), &read("b", "", 37)], "the key was there");
    fails(&[PUT, &txn(&swap(7, true), 30, 40, 2)], "its conditions do not hold");
    fails(&[PUT, &txn(&swap(1, false), 30, 40, 1)], "its conditions hold");
    holds(&[PUT, &txn(&swap(7, false), 30, 40, 1)]);
    fails(&[PUT, PUT_2, &txn(&swap(7, false), 45, 50, 1)], "stands behind");
    fails(&[PUT, PUT_2, &txn(&swap(7, false), 45, 50, 2)], "a was 2");
    let gone = r#""then":[{"op":"delete","key":"a","deleted":0}],"succeeded":true"#;
    fails(&[PUT, &txn(gone, 30, 40, 1)], "a was 1");
}

#[test]
fn a_transaction_without_an_answer_may_have_made_a_revision() {
    let lost = r#"{"client":3,"op":"txn","if":[{"key":"a","expected":{"revision":1}}],"then":[{"op":"put","key":"a","value":8},{"op":"put","key":"b","value":9}],"else":[{"op":"delete","key":"a"}],"call_ns":21,"outcome":"unknown"}"#;
    let read = |key: &str, value: u64, call: u64| {
        format!(
            r#"{{"client":2,"op":"get","key":"{key}","value":{value},"call_ns":{call},"return_ns":{},"outcome":"ok","key_revision":2}}"#,
            call + 5
        )
    };
    let absent = |key: &str, call: u64| {
        format!(
            r#"{{"client":2,"op":"get","key":"{key}","call_ns":{call},"return_ns":{},"outcome":"ok","key_revision":0}}"#,
            call + 5
        )
    };
    holds(&[PUT, lost]);
    holds(&[PUT, lost, &read("a", 8, 50), &read("b", 9, 60)]);
    fails(&[PUT, lost, &read("a", 8, 50), &absent("b", 60)], "");
    // Its condition did not hold any more.
    holds(&[PUT, PUT_2, lost, &absent("a", 60)]);
    fails(&[PUT, lost, &absent("a", 60)], "absent");
    let put_3 = r#"{"client":1,"op":"put","key":"c","value":3,"call_ns":50,"return_ns":60,"outcome":"ok","revision":3}"#;
    holds(&[PUT, lost, put_3, &read("b", 9, 70)]);
    fails(&[PUT, lost, put_3, &absent("b", 70)], "");
}

#[test]
fn transactions_without_revisions() {
    let put = r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":10,"return_ns":20,"outcome":"ok"}"#;
    let move_it = r#"{"client":1,"op":"txn","if":[{"key":"a","expected":{"absent":false}}],"then":[{"op":"delete","key":"a","deleted":1},{"op":"put","key":"b","value":1}],"succeeded":true,"call_ns":30,"return_ns":40,"outcome":"ok"}"#;
    let absent = |key: &str, call: u64| {
        format!(
            r#"{{"client":2,"op":"get","key":"{key}","call_ns":{call},"return_ns":{},"outcome":"ok"}}"#,
            call + 2
        )
    };
    holds(&[put, move_it, &absent("b", 31), &absent("a", 50)]);
    fails(&[put, move_it, &absent("a", 31), &absent("b", 34)], "no order explains");
    fails(&[move_it], "no order explains");
}

#[test]
fn changes_are_what_each_revision_has_changed() {
    let move_it = txn(
        r#""then":[{"op":"delete","key":"a","deleted":1},{"op":"put","key":"b","value":5}],"succeeded":true"#,
        30,
        40,
        2,
    );
    let lost = r#"{"client":3,"op":"delete","key":"b","call_ns":50,"outcome":"unknown"}"#;
    let gone = r#"{"client":2,"op":"get","key":"b","call_ns":70,"return_ns":80,"outcome":"ok","revision":3}"#;
    let history = json_lines::read(&[PUT, &move_it, lost, gone].join("\n")).expect("a history");
    let changes = balsa_check::replay::changes(&history).expect("linearizable");
    let told: Vec<String> = (changes.iter())
        .flat_map(|(revision, keys)| {
            keys.iter().map(move |(key, value)| format!("{revision} {key} {value:?}"))
        })
        .collect();
    assert_eq!(told, [r#"1 a Some("1")"#, "2 a None", r#"2 b Some("5")"#, "3 b None"]);
}

#[test]
fn the_picture_shows_what_does_not_fit() {
    let read =
        r#"{"client":2,"op":"get","key":"a","value":"<b>","call_ns":41,"return_ns":45,"outcome":"ok"}"#;
    let history = json_lines::read(&[PUT, read].join("\n")).expect("a history");
    let Verdict::Violation(violation) = balsa_check::by_key::check(&history) else { panic!("accepted") };
    let page = picture::html(&history, &violation);
    assert_eq!(page.matches("class=\"misfit\"").count(), 1);
    assert_eq!(page.matches("class=\"ok\"").count(), 1);
    assert!(page.contains("client 2") && !page.contains("<b>\""), "{page}");
    assert!(page.contains("&lt;b&gt;"));
    assert!(picture::svg_file(&history, &violation).starts_with("<svg"));
}
