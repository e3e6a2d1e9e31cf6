//! `balsa check`: reads a history, judges it, draws what is wrong with it. No node is asked.

use super::Stop;
use super::output::Output;
use balsa_check::verdict::How;
use balsa_check::{Verdict, check, json_lines, picture};
use std::io::Read as _;
use std::path::Path;

/// Judges the history in a file.
pub(super) fn run(file: &Path, html: Option<&Path>, svg: Option<&Path>, output: &Output) -> Result<(), Stop> {
    let unreadable = |error: std::io::Error| Stop::Usage(format!("cannot read {}: {error}", file.display()));
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        std::fs::read_to_string(file).map_err(unreadable)?
    };
    let history =
        json_lines::read(&text).map_err(|error| Stop::Usage(format!("{}: {error}", file.display())))?;
    match check(&history) {
        Verdict::Linearizable { how, operations } => {
            let how = match how {
                How::Replay => "replayed in order of revision".to_owned(),
                How::Search { keys: 1 } => "an order was found".to_owned(),
                How::Search { keys } => format!("an order was found for each of {keys} keys"),
            };
            output.bytes(format!("linearizable: {operations} operations, {how}\n").as_bytes());
            Ok(())
        }
        Verdict::Undecided(why) => Err(Stop::Usage(format!("undecided: {why}"))),
        Verdict::Violation(violation) => {
            let draw = |out: Option<&Path>, picture: &dyn Fn() -> String| match out {
                None => Ok(()),
                Some(out) => std::fs::write(out, picture())
                    .map_err(|error| Stop::Usage(format!("cannot write {}: {error}", out.display()))),
            };
            draw(html, &|| picture::html(&history, &violation))?;
            draw(svg, &|| picture::svg_file(&history, &violation))?;
            Err(Stop::Test(format!("not linearizable: {}", violation.why)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Format;

    const PUT: &str = r#"{"client":1,"op":"put","key":"a","value":1,"call_ns":1,"return_ns":2,"outcome":"ok","revision":1}"#;
    const STALE: &str =
        r#"{"client":2,"op":"get","key":"a","call_ns":3,"return_ns":4,"outcome":"ok","key_revision":0}"#;

    #[test]
    fn verdicts_and_pictures() {
        let folder = std::env::temp_dir().join(format!("balsa-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (file, page) = (folder.join("history.jsonl"), folder.join("page.html"));
        let output = Output::new(Format::Text);
        let judge = |text: &str| {
            std::fs::write(&file, text).expect("written");
            run(&file, Some(&page), None, &output)
        };
        assert!(judge(PUT).is_ok());
        assert!(!page.exists(), "nothing to draw");
        assert!(matches!(judge(&format!("{PUT}\n{STALE}")), Err(Stop::Test(_))));
        assert!(std::fs::read_to_string(&page).expect("a page").contains("<svg"));
        assert!(matches!(judge("hello"), Err(Stop::Usage(_))));
        assert!(matches!(run(&folder.join("none"), None, None, &output), Err(Stop::Usage(_))));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
