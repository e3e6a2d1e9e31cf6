//! The 108 histories of porcupine's tests with their verdicts, where `BALSA_TESTDATA` names them.

use balsa_check::{Verdict, check, foreign};
use std::path::PathBuf;

#[test]
fn verdicts_of_others() {
    let Some(folder) = std::env::var_os("BALSA_TESTDATA") else {
        println!("left out: BALSA_TESTDATA names no folder with histories");
        return;
    };
    let folder = PathBuf::from(folder).join("histories");
    let verdicts = std::fs::read_to_string(folder.join("verdicts.tsv")).expect("verdicts.tsv");
    let mut judged = 0;
    for line in verdicts.lines() {
        let (name, expected) = line.split_once('\t').expect("a name and a verdict");
        let text = std::fs::read_to_string(folder.join(name)).expect(name);
        let history =
            if name.ends_with(".log") { foreign::register(&text) } else { foreign::key_value(&text) };
        let verdict = check(&history.expect(name));
        let linearizable = match verdict {
            Verdict::Linearizable { .. } => true,
            Verdict::Violation(_) => false,
            Verdict::Undecided(why) => panic!("{name}: {why}"),
        };
        assert_eq!(linearizable, expected == "linearizable", "{name}");
        judged += 1;
    }
    assert_eq!(judged, 108);
}
