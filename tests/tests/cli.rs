//! The command line tool as scripts and shells use it: completion, manual, pipes that close, terminals that are none, exit
//! codes.

use balsa_tests::binary;
use balsa_tests::cluster::Cluster;
use balsa_tests::failure::{Context, Outcome};
use std::process::{Output, Stdio};
use tokio::process::Command;

async fn balsa(arguments: &[&str]) -> Outcome<Output> {
    let mut command = Command::new(binary::cli()?);
    command.args(arguments).stdin(Stdio::null()).output().await.context("run balsa")
}

/// By `sh`, with the tool's path in `$balsa`.
async fn sh(script: &str, endpoint: &str) -> Outcome<(Option<i32>, String, String)> {
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("balsa", binary::cli()?).env("BALSA_ENDPOINTS", endpoint);
    let said = command.stdin(Stdio::null()).output().await.context("run bash")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((said.status.code(), text(&said.stdout), text(&said.stderr)))
}

#[tokio::test]
async fn completion_for_each_shell() -> Outcome<()> {
    for (shell, says) in
        [("bash", "complete -F _balsa"), ("zsh", "#compdef balsa"), ("fish", "complete -c balsa")]
    {
        let said = balsa(&["completion", shell]).await?;
        let script = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{shell}: {}", said.status);
        for part in [says, "failover-test", "if-revision"] {
            assert!(script.contains(part), "{shell}: no `{part}` in {script}");
        }
    }
    // The shell that is at hand takes it, and completes by it.
    let completes = "source <($balsa completion bash) && COMP_WORDS=(balsa tra) COMP_CWORD=1 && _balsa balsa tra balsa && echo ${COMPREPLY[@]}";
    let (code, said, err) = sh(completes, "").await?;
    assert_eq!((code, said.as_str()), (Some(0), "transfer\n"), "{err}");
    assert_eq!(balsa(&["completion", "cmd"]).await?.status.code(), Some(2));
    Ok(())
}

#[tokio::test]
async fn the_manual_has_every_command() -> Outcome<()> {
    let whole = balsa(&["man"]).await?;
    let text = String::from_utf8_lossy(&whole.stdout);
    for command in [
        "get",
        "put",
        "delete",
        "range",
        "txn",
        "watch",
        "lease",
        "lock",
        "elect",
        "members",
        "status",
        "backup",
        "restore",
        "check",
        "bench",
        "completion",
        "man",
    ] {
        assert!(text.contains(&format!("balsa\\-{command}(1)")), "no {command} in {text}");
    }
    assert!(text.contains("Exit codes"), "{text}");
    let lock = balsa(&["man", "lock"]).await?;
    assert!(String::from_utf8_lossy(&lock.stdout).contains("BALSA_LOCK_TOKEN"));
    assert_eq!(balsa(&["man", "nothing"]).await?.status.code(), Some(2));

    let folder = tempfile::tempdir().context("make a folder")?;
    let pages = folder.path().join("man1");
    assert!(balsa(&["man", "--all", pages.to_str().unwrap()]).await?.status.success());
    assert!(pages.join("balsa.1").is_file() && pages.join("balsa-lease-grant.1").is_file());
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error_and_no_noise() -> Outcome<()> {
    for command in ["man", "completion bash", "--help"] {
        let (_, _, err) = sh(&format!("$balsa {command} | true"), "").await?;
        assert_eq!(err, "", "{command}");
    }
    let (code, _, _) = sh("$balsa get 2>&1 >&- | true; exit ${PIPESTATUS[0]}", "").await?;
    assert_eq!(code, Some(2));
    // An error that nobody hears has its exit code still.
    let nowhere = format!("http://127.0.0.1:{}", balsa_tests::ports::free()?);
    let (code, _, _) =
        sh("$balsa --timeout 200ms get a 2>&1 | true; exit ${PIPESTATUS[0]}", &nowhere).await?;
    assert_eq!(code, Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_and_exit_codes_with_a_cluster() -> Outcome<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let endpoint = format!("http://{}", cluster.address(0));
    for (script, code, out) in [
        ("for n in $(seq 0 20); do echo $n | $balsa put k/$n - || exit; done | tail -1", 0, "revision 21\n"),
        ("$balsa range k/ --keys | head -1; exit ${PIPESTATUS[0]}", 0, "k/0\n"),
        ("$balsa member list | wc -l", 0, "2\n"),
        ("$balsa get absent", 1, ""),
        ("$balsa put k/0 1 --if-absent", 1, ""),
        ("$balsa put", 2, ""),
        ("$balsa clear", 2, ""),
        ("echo '{\"if\":[{\"key\":\"k/1\",\"value\":2}]}' | $balsa txn - >/dev/null", 1, ""),
        ("$balsa lock l -- sh -c 'exit 7'", 7, ""),
        ("$balsa elect e --value me -- $balsa get e", 0, "leads e, token …\n\"me\"\n"),
        ("$balsa backup - | head -c 1 >/dev/null", 0, ""),
        ("$balsa restore /nowhere --data /nowhere/either", 1, ""),
    ] {
        let (got, said, err) = sh(script, &endpoint).await?;
        let said =
            said.split("token ").next().map_or(said.clone(), |before| match said.split_once("token ") {
                Some((_, rest)) => {
                    format!("{before}token …{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
                }
                None => said.clone(),
            });
        assert_eq!((got, said.as_str()), (Some(code), out), "{script}: {err}");
    }
    // Nothing is painted, and no progress told, where no person looks.
    for command in [
        "status",
        "members",
        "backup backup.test",
        "bench --duration 100ms --warmup 50ms --keys 10 --rounds 2",
    ] {
        let folder = tempfile::tempdir().context("make a folder")?;
        let script = format!("cd {} && $balsa {command}", folder.path().display());
        let (code, said, err) = sh(&script, &endpoint).await?;
        assert_eq!(code, Some(0), "{command}: {err}");
        assert!(!said.contains('\x1b') && err.is_empty(), "{command}: {said}{err}");
    }
    // A terminal sees both.
    let script = "script -qec \"$balsa members\" /dev/null";
    if sh("command -v script", "").await?.0 == Some(0) {
        let (code, said, err) = sh(script, &endpoint).await?;
        assert!(code == Some(0) && said.contains("\x1b[32mhealthy"), "{said}{err}");
        let (_, said, _) = sh(&format!("NO_COLOR=1 {script}"), &endpoint).await?;
        assert!(!said.contains("\x1b[32m"), "{said}");
    }
    Ok(())
}
