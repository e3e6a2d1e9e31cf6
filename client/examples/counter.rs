//! Counts up, safely beside others who do the same: read, then write only if nobody was faster.
//!
//! `cargo run -p balsa-client --example counter`, with a cluster at `BALSA_ENDPOINTS` (default: the one of
//! `cargo run --release -- dev`).

use balsa_client::{Client, WriteError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("BALSA_ENDPOINTS");
    let endpoints = endpoints.unwrap_or_else(|_| "http://127.0.0.1:3000,http://127.0.0.1:3001".to_owned());
    let client = Client::connect(&endpoints)?;
    loop {
        let seen = client.get("example/counter").await?;
        let count = seen.as_ref().map_or(Ok(0), |item| item.json::<u64>())?;
        let writing = client.put("example/counter", &(count + 1));
        let written = match &seen {
            Some(item) => writing.if_revision(item.revision).await,
            None => writing.if_absent().await,
        };
        match written {
            Ok(done) => {
                println!("counted to {} at revision {}", count + 1, done.revision);
                return Ok(());
            }
            // Somebody was faster: look again.
            Err(error) if error.current_revision().is_some() => {}
            // It may have been counted. A counter that must be exact would look before it counts again.
            Err(error @ WriteError::Unknown(_)) => return Err(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
}
