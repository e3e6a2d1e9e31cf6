//! What the nemesis is made of does what it says: links that are cut, power that is lost. The nemesis itself is a bar.

use balsa_tests::binary;
use balsa_tests::cluster::{Cluster, Disks};
use balsa_tests::failure::{Context, Outcome};
use balsa_tests::http::Ask;
use balsa_tests::limp_disk::{LimpDisk, environment};
use balsa_tests::nemesis::link::{Cut, Link, Route, Weather, forward};
use balsa_tests::nemesis::power::lose;
use balsa_tests::random::Random;
use balsa_wire::kv::Item;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The two ends of a connection that is carried over these links.
async fn connected(there: &Link, back: &Link) -> Outcome<(TcpStream, TcpStream)> {
    let proxy = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let target = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let address = proxy.local_addr().context("listen")?;
    let route = Route {
        there: there.clone(),
        back: back.clone(),
        target: target.local_addr().context("listen")?.to_string(),
    };
    let near = TcpStream::connect(address).await.context("connect")?;
    let (taken, _) = proxy.accept().await.context("accept")?;
    tokio::spawn(forward(taken, route));
    let (far, _) = target.accept().await.context("accept")?;
    Ok((near, far))
}

async fn next(from: &mut TcpStream) -> Outcome<String> {
    let mut buffer = [0; 64];
    let length = from.read(&mut buffer).await.context("read")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[tokio::test]
async fn a_link_that_is_cut_holds_one_direction_back_and_gives_it_on_when_it_is_whole() -> Outcome<()> {
    let (there, back) = (Link::default(), Link::default());
    let (mut near, mut far) = connected(&there, &back).await?;
    near.write_all(b"one").await.context("write")?;
    assert_eq!(next(&mut far).await?, "one");

    there.cut();
    near.write_all(b"two").await.context("write")?;
    far.write_all(b"answer").await.context("write")?;
    assert_eq!(next(&mut near).await?, "answer");
    let mut buffer = [0; 64];
    let early = far.try_read(&mut buffer);
    assert!(early.is_err(), "it came through a link that is cut: {early:?}");

    there.set(Weather { delay: Duration::from_millis(30), ..Weather::default() });
    let healed = Instant::now();
    near.write_all(b", three").await.context("write")?;
    let mut all = String::new();
    while all != "two, three" {
        all += &next(&mut far).await?;
    }
    assert!(healed.elapsed() >= Duration::from_millis(30), "it came without its delay");
    drop(near);
    assert_eq!(next(&mut far).await?, "", "the end of the stream goes through, too");
    Ok(())
}

#[tokio::test]
async fn connections_over_a_broken_link_end() -> Outcome<()> {
    let (there, back) = (Link::default(), Link::default());
    let (mut near, mut far) = connected(&there, &back).await?;
    back.set(Weather { cut: Cut::Broken, ..Weather::default() });
    for end in [&mut near, &mut far] {
        let read = end.read(&mut [0; 8]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    Ok(())
}

/// Names the folder to whose files the process writes that is to lose power.
const WRITES_IN: &str = "BALSA_TEST_WRITES_IN";
const TEST: &str = "what_was_synced_survives_the_loss_of_power_and_the_rest_does_so_by_chance";

/// Writes a file that is synced, and one that is not.
fn write_two(data: &Path) -> Outcome<()> {
    for name in ["synced", "unsynced"] {
        let file = File::options().write(true).open(data.join(name)).context("open")?;
        (&file).write_all(name.as_bytes()).context("write")?;
        if name == "synced" {
            file.sync_data().context("sync")?;
        }
    }
    Ok(())
}

#[test]
fn what_was_synced_survives_the_loss_of_power_and_the_rest_does_so_by_chance() -> Outcome<()> {
    if let Some(data) = std::env::var_os(WRITES_IN) {
        return write_two(Path::new(&data));
    }
    let folder = tempfile::tempdir_in(binary::scratch()?).context("make a folder")?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data).context("make a folder")?;
    let disk = LimpDisk::of(&data);
    disk.keep_before()?;
    let (mut gone, mut there) = (0, 0);
    for seed in 0..32 {
        let _ = std::fs::remove_file(disk.records()); // at first there are none
        for name in ["synced", "unsynced"] {
            std::fs::write(data.join(name), "old").context("write")?;
        }
        let itself = std::env::current_exe().context("find this program")?;
        let mut writer = Command::new(itself);
        writer.args(["--exact", TEST]).env(WRITES_IN, &data).envs(environment(&data)?);
        let written = writer.output().context("start this program")?;
        assert!(written.status.success(), "{written:?}");

        let loss = lose(&data, &disk.records(), &mut Random::new(seed))?;
        assert_eq!((loss.unsynced, loss.lost + loss.kept), (1, 1), "{loss:?}");
        let read = |name: &str| std::fs::read_to_string(data.join(name)).context("read");
        assert_eq!(read("synced")?, "synced");
        match read("unsynced")?.as_str() {
            "old" => gone += 1,
            "unsynced" => there += 1,
            other => panic!("neither the old nor the new: {other}"),
        }
    }
    assert!(gone > 0 && there > 0, "{gone} gone, {there} there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_all_nodes_losing_power() -> Outcome<()> {
    let mut cluster = Cluster::start_on(Disks::Limping, 3, &[]).await?;
    for node in 0..3 {
        cluster.disk(node).keep_before()?;
    }
    for number in 0..60 {
        let (key, body) = (format!("/key-{number}"), format!("{{\"value\":{number}}}"));
        cluster.ask_well(number % 3, Ask::put(&key, &body)).await?;
    }
    cluster.kill_all()?;
    let mut random = Random::new(1);
    for node in 0..3 {
        let disk = cluster.disk(node);
        lose(&cluster.process(node).recipe().data, &disk.records(), &mut random)?;
        disk.heal()?;
        cluster.restart(node)?;
    }
    cluster.wait_until_all_are_ready().await?;
    for number in 0..60 {
        let item: Item = cluster.ask_well(number % 3, Ask::get(&format!("/key-{number}"))).await?.json()?;
        assert_eq!((item.json::<usize>().ok(), item.version), (Some(number), 1));
    }
    cluster.wait_until_digests_agree().await.map(|_| ())
}
