//! The node's event loop: one thread with one runtime, where the engine takes turns with the streams of its peers and,
//! on small machines, with the connections of clients.
//!
//! What crosses no thread costs no wake-up: on the way of a lone write those are most of what is not the disk's. The
//! engine is the runtime's root future, which tokio polls before any task whenever it was woken, and again after a few
//! dozen of them: no number of connections keeps it from its turn (hazard 45). Nothing that runs here may block.

use super::Fatal;
use std::future::Future;
use std::pin::Pin;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

type Driver = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The thread and its runtime, with doors before the engine runs and after it has ended. Dropped, it ends all tasks.
pub struct EventLoop {
    handle: Handle,
    driver: Option<oneshot::Sender<Driver>>,
    driver_ended: Option<oneshot::Receiver<()>>,
    /// Dropped to end the thread.
    _alive: oneshot::Sender<()>,
}

impl EventLoop {
    /// Starts the thread, without an engine yet.
    pub fn start(fatal: Fatal) -> std::io::Result<EventLoop> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (driver, arriving) = oneshot::channel::<Driver>();
        let (ended, driver_ended) = oneshot::channel();
        let (alive, dropped) = oneshot::channel::<()>();
        super::spawn("balsa-engine", fatal.clone(), move || {
            runtime.block_on(async {
                tokio::pin!(dropped);
                let driver = tokio::select! {
                    Ok(driver) = arriving => driver,
                    _ = &mut dropped => return,
                };
                if let Err(reason) = driver.await {
                    fatal.report(reason);
                }
                drop(ended);
                let _ = dropped.await; // an error is how it is told
            });
            runtime.shutdown_background();
            Ok(())
        })?;
        Ok(EventLoop { handle, driver: Some(driver), driver_ended: Some(driver_ended), _alive: alive })
    }

    /// Where to spawn what shall run on this thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Gives the loop its engine; once. Resolves when that has ended, by an error or an answer.
    pub(super) fn drive(&mut self, driver: Driver) -> Option<oneshot::Receiver<()>> {
        self.driver.take()?.send(driver).ok()?;
        self.driver_ended.take()
    }
}
