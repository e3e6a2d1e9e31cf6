//! `balsa bench` against three real nodes: every request is answered, and the report says what was done.

use balsa_tests::binary;
use balsa_tests::cluster::Cluster;
use balsa_tests::failure::{Context, Outcome};
use std::process::Stdio;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_reports_what_it_did() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    let endpoints: Vec<&str> = (0..3).map(|node| cluster.address(node)).collect();
    let mut command = Command::new(binary::cli()?);
    command.args(["--endpoints", &endpoints.join(","), "-o", "json", "bench", "--baseline"]);
    command.args(["--connections", "6", "--warmup", "100ms", "--duration", "400ms", "--keys", "60"]);
    for node in 0..3 {
        let pid = cluster.process(node).pid().unwrap();
        command.args(["--pid", &pid.to_string()]);
    }
    let said = command.stdin(Stdio::null()).output().await.context("run balsa bench")?;
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{}: {text}{}", said.status, String::from_utf8_lossy(&said.stderr));

    let report: serde_json::Value = serde_json::from_str(&text).context("read the report")?;
    let medians = report["medians"].as_array().unwrap();
    let cases: Vec<_> =
        medians.iter().map(|case| [&case["op"], &case["target"], &case["connections"]]).collect();
    let expected = serde_json::json!([
        ["put", "baseline", 6],
        ["put", "balsa", 6],
        ["get", "baseline", 6],
        ["get", "balsa", 6],
    ]);
    assert_eq!(serde_json::json!(cases), expected);
    for case in medians {
        assert!(case["per_second"].as_f64() > Some(0.0), "{case}");
        assert_eq!(case["errors"], 0, "{case}");
        assert!(case["server_cpu_s_per_100k"].is_f64(), "{case}");
        assert!(case["p50_us"].as_u64() <= case["max_us"].as_u64(), "{case}");
    }
    // What it wrote, and nothing else: 60 keys, each with the value that puts write.
    for node in 0..3 {
        let answer = cluster.ask_well(node, balsa_tests::http::Ask::get("/v1/kv/bench/00059")).await?;
        let item: serde_json::Value = answer.json()?;
        assert_eq!(item["value"].as_str().map(str::len), Some(254));
    }
    let beyond = cluster.ask(0, balsa_tests::http::Ask::get("/v1/kv/bench/00060")).await.context("ask")?;
    assert_eq!(beyond.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_are_errors() -> Outcome<()> {
    let mut command = Command::new(binary::cli()?);
    let nowhere = format!("127.0.0.1:{}", balsa_tests::ports::free()?);
    command.args(["--endpoints", &nowhere, "bench", "--warmup", "50ms", "--duration", "50ms"]);
    let said = command.stdin(Stdio::null()).output().await.context("run balsa bench")?;
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("cannot fill"), "{text}");
    Ok(())
}
