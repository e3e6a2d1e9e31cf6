//! A page of the documentation as steps: what a reader would type, and what is shown for an answer. Pure.
//!
//! A fence says what it is: `sh run` is run; `sh shown` is for the reader alone (another's tool, a build, another machine). One
//! that says neither is an error, so that no command is forgotten. An `output` fence right behind a block is what it prints,
//! where `…` stands for anything within a line. In a table, the columns `Balsa`, `balsa` and `curl` are run, cell by cell.

use crate::failure::{Failure, Outcome, ensure};

/// What is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The line of the page where it begins, from 1.
    pub line: usize,
    /// Its text.
    pub script: String,
    /// What it prints, if the page shows that.
    pub output: Option<String>,
}

/// Titles of columns whose cells are run.
const RUN_COLUMNS: [&str; 3] = ["Balsa", "balsa", "curl"];

/// The steps of a page, and how many blocks are only shown.
pub fn steps(page: &str) -> Outcome<(Vec<Step>, usize)> {
    let (mut steps, mut shown) = (Vec::<Step>::new(), 0);
    let mut lines = page.lines().enumerate().peekable();
    let mut columns: Vec<usize> = Vec::new();
    // Whether a block was run and nothing but empty lines came since.
    let mut may_have_output = false;
    while let Some((at, line)) = lines.next() {
        let trimmed = line.trim_start();
        if let Some(info) = trimmed.strip_prefix("```") {
            let indent = line.len() - trimmed.len();
            let mut block = String::new();
            loop {
                let Some((_, line)) = lines.next() else {
                    return Err(Failure(format!("line {}: the block has no end", at + 1)));
                };
                if line.trim_start() == "```" {
                    break;
                }
                block += line.get(indent..).unwrap_or_default();
                block.push('\n');
            }
            let was_run = std::mem::take(&mut may_have_output);
            match info.trim() {
                "sh run" => {
                    steps.push(Step { line: at + 1, script: block, output: None });
                    may_have_output = true;
                }
                "sh shown" => shown += 1,
                "output" => {
                    ensure(was_run, || format!("line {}: an output without a block that is run", at + 1))?;
                    if let Some(step) = steps.last_mut() {
                        step.output = Some(block);
                    }
                }
                "text" | "json" => {}
                other => {
                    return Err(Failure(format!(
                        "line {}: a block says `{other}`; it takes `sh run`, `sh shown`, `output`, `text` or `json`",
                        at + 1
                    )));
                }
            }
            continue;
        }
        if let Some(row) = trimmed.strip_prefix('|') {
            let cells: Vec<&str> = row.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
            let is_head = lines.peek().is_some_and(|(_, next)| next.trim_start().starts_with("| ---"));
            if is_head {
                columns = (0..cells.len()).filter(|at| RUN_COLUMNS.contains(&cells[*at])).collect();
            }
            let run = cells.iter().enumerate().filter(|(column, _)| !is_head && columns.contains(column));
            steps.extend(run.flat_map(|(_, cell)| codes(cell)).map(|script| Step {
                line: at + 1,
                script,
                output: None,
            }));
        } else {
            columns.clear();
        }
        may_have_output &= line.trim().is_empty();
    }
    Ok((steps, shown))
}

/// What stands between backticks.
fn codes(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(|code| format!("{code}\n"))
}

/// Whether `said` is what is shown, where `…` stands for anything within a line.
pub fn matches(shown: &str, said: &str) -> bool {
    let (shown, said): (Vec<&str>, Vec<&str>) = (shown.lines().collect(), said.lines().collect());
    shown.len() == said.len() && shown.iter().zip(&said).all(|(shown, said)| line_matches(shown, said))
}

fn line_matches(shown: &str, said: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| said.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "\
# Title
```sh run
echo a
```

```output
a
```
```sh shown
etcdctl get a
```
| etcd | Balsa |
| --- | --- |
| `etcdctl get a` | `balsa get a` then `balsa get b` |
text `balsa x`
";
        let (steps, shown) = steps(page).unwrap();
        assert_eq!(shown, 1);
        let expected =
            [(2, "echo a\n", Some("a\n")), (14, "balsa get a\n", None), (14, "balsa get b\n", None)];
        let found: Vec<_> =
            steps.iter().map(|step| (step.line, step.script.as_str(), step.output.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_said_is_an_error() {
        for page in ["```sh\na\n```\n", "```\na\n```\n", "```sh run\na\n", "```output\na\n```\n"] {
            assert!(steps(page).is_err(), "{page}");
        }
    }

    #[test]
    fn outputs() {
        for (shown, said) in
            [("a\n", "a\n"), ("a…c\n", "abc\n"), ("…\n", "\n"), ("a…b…\n", "axxbyy\n"), ("1 … 2", "1  2")]
        {
            assert!(matches(shown, said), "{shown:?} {said:?}");
        }
        for (shown, said) in [("a\n", "b\n"), ("a\n", "a\nb\n"), ("a…c\n", "ab\n"), ("…b\n", "ba\n")] {
            assert!(!matches(shown, said), "{shown:?} {said:?}");
        }
    }
}
