//! The failover test of the client crate against three real processes: whoever uses the client does not notice that the
//! leader was killed, and loses nothing.

use balsa_client::failover;
use balsa_tests::cluster::Cluster;
use balsa_tests::failure::{Context, Outcome};
use balsa_tests::strike::{How, Strikes, plan};

async fn strike(how: How) -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    let plan = plan(&cluster);
    let report = failover::run(&plan, &mut Strikes::new(&mut cluster, how)).await;
    let report = report.context("finish the failover test")?;
    println!("{report}");
    assert_eq!(report.violations(), Vec::<&str>::new());
    assert_eq!(report.errors(), 0, "{:?}", report.first_errors);
    assert!(report.writes.ok > 0 && report.reads.ok > 0, "{report}");
    cluster.wait_until_digests_agree().await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_no_client_notices() -> Outcome<()> {
    strike(How::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_is_replaced_and_no_client_notices() -> Outcome<()> {
    strike(How::Terminate).await
}
