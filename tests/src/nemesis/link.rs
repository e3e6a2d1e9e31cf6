//! A directed link between two nodes, and the forwarding of a connection over the two links that it uses.
//!
//! What travels from a to b fares as the link from a to b does, whoever of the two opened the connection. Bytes are never
//! lost from the middle of a stream, as TCP does not lose them: a link that is cut silently holds them back, as a network
//! that drops packets does, and gives them on when it is whole again.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What is read at once, and how many such pieces may be on their way.
const PIECE_BYTES: usize = 16 << 10;
const PIECES_MAX: usize = 64;

/// How a link fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Whether anything gets through.
    pub cut: Cut,
    /// How much later everything arrives.
    pub delay: Duration,
    /// How many bytes of a connection get through in a second; `None`: all.
    pub bytes_per_second: Option<u32>,
}

/// Whether anything gets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cut {
    /// Everything does.
    #[default]
    Whole,
    /// Nothing does, and nobody is told.
    Silent,
    /// Connections break, and new ones break at once.
    Broken,
}

/// A directed link; clones are the same one.
#[derive(Clone, Debug)]
pub struct Link(watch::Sender<Weather>);

impl Default for Link {
    fn default() -> Link {
        Link(watch::Sender::new(Weather::default()))
    }
}

impl Link {
    /// From now on it fares like this.
    pub fn set(&self, weather: Weather) {
        self.0.send_replace(weather);
    }

    /// From now on it is like new.
    pub fn heal(&self) {
        self.set(Weather::default());
    }

    /// From now on nothing gets through, silently.
    pub fn cut(&self) {
        self.set(Weather { cut: Cut::Silent, ..Weather::default() });
    }
}

/// Where connections of one proxy go.
#[derive(Clone, Debug)]
pub struct Route {
    /// The link from who connects to who is connected to.
    pub there: Link,
    /// The way back.
    pub back: Link,
    /// `host:port` of who is connected to.
    pub target: String,
}

/// Why a connection ends at once in both directions.
struct Broke;

/// A piece on its way; empty: the end of the stream.
type Piece = (Instant, Vec<u8>);

/// Carries a connection until both directions have ended or one has broken.
pub async fn forward(near: TcpStream, route: Route) {
    let carry = async {
        // To be connected, something must get through both ways.
        for link in [&route.there, &route.back] {
            passes(&mut link.0.subscribe()).await?;
        }
        let far = TcpStream::connect(&route.target).await.map_err(|_| Broke)?;
        let _ = (near.set_nodelay(true), far.set_nodelay(true)); // only slower without
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::try_join!(pipe(near_in, far_out, &route.there), pipe(far_in, near_out, &route.back))
    };
    tokio::select! {
        _ = carry => {}
        () = broken(&route.there) => {}
        () = broken(&route.back) => {}
    }
}

async fn broken(link: &Link) {
    // The sender lives as long as the link does.
    let _ = link.0.subscribe().wait_for(|weather| weather.cut == Cut::Broken).await;
}

/// Waits until something gets through.
async fn passes(weather: &mut watch::Receiver<Weather>) -> Result<(), Broke> {
    weather.wait_for(|weather| weather.cut == Cut::Whole).await.map(|_| ()).map_err(|_| Broke)
}

async fn pipe(from: OwnedReadHalf, to: OwnedWriteHalf, link: &Link) -> Result<(), Broke> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::try_join!(take(from, sender), give(receiver, to, link.0.subscribe())).map(|_| ())
}

async fn take(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>) -> Result<(), Broke> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut buffer).await.map_err(|_| Broke)?;
        pieces.send((Instant::now(), buffer[..length].to_vec())).await.map_err(|_| Broke)?;
        if length == 0 {
            return Ok(());
        }
    }
}

async fn give(
    mut pieces: mpsc::Receiver<Piece>,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> Result<(), Broke> {
    while let Some((came, piece)) = pieces.recv().await {
        let Weather { delay, bytes_per_second, .. } = *weather.borrow();
        let slow = bytes_per_second.map(|rate| Duration::from_secs(1) * piece.len() as u32 / rate.max(1));
        let due = (came + delay).max(Instant::now() + slow.unwrap_or_default());
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        passes(&mut weather).await?;
        match piece.is_empty() {
            true => to.shutdown().await.map_err(|_| Broke)?,
            false => to.write_all(&piece).await.map_err(|_| Broke)?,
        }
    }
    Ok(())
}
