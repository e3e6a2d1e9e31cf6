//! The quorum and membership tables of etcd-io/raft, read from the folder that `BALSA_TESTDATA` names; they
//! are not part of this repository. Their meaning is compared: results, not wording, nor what they print of
//! replication.

mod confchange;
mod quorum;

use std::io::Write as _;
use std::path::PathBuf;

/// One command of a table, with what it should give.
struct Case {
    /// File and line, for messages.
    place: String,
    command: String,
    /// The lines between the command and the dashes.
    input: Vec<String>,
    /// The lines up to the next blank one.
    expected: Vec<String>,
}

impl Case {
    /// The text of `key=(...)` or `key=word` in the command.
    fn argument(&self, key: &str) -> Option<&str> {
        let rest = self.command.split_once(&format!(" {key}="))?.1;
        match rest.strip_prefix('(') {
            Some(list) => list.split_once(')').map(|(list, _)| list),
            None => rest.split_whitespace().next(),
        }
    }
}

/// The cases of all files in a folder of the test data, file by file; `None`, and a word about it, when there
/// is no test data.
fn read_tables(folder: &str) -> Option<Vec<(String, Vec<Case>)>> {
    let Some(root) = std::env::var_os("BALSA_TESTDATA") else {
        // Past the capture of `println!`: a reader of the test run must see it.
        let word = format!("left out: {folder}, because BALSA_TESTDATA is not set\n");
        std::io::stdout().write_all(word.as_bytes()).expect("a standard output");
        return None;
    };
    let folder = PathBuf::from(root).join(folder);
    let listing = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listing.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no tables in {}", folder.display());
    let read = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let cases = parse(&name, &text);
        (name, cases)
    };
    Some(paths.into_iter().map(read).collect())
}

fn parse(name: &str, text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut until = |end: &str| {
            let mut block = Vec::new();
            for (_, line) in lines.by_ref() {
                if line == end {
                    break;
                }
                block.push(line.to_owned());
            }
            block
        };
        let place = format!("{name}:{}", number + 1);
        let (input, expected) = (until("----"), until(""));
        cases.push(Case { place, command: line.to_owned(), input, expected });
    }
    cases
}
