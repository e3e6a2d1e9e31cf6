//! The node's event loop: one thread with one runtime, where the engine takes turns with the streams of its peers and,
//! on small machines, with the connections of clients.
//!
//! What crosses no thread costs no wake-up: on the way of a lone write those are most of what is not the disk's. The
//! engine is the runtime's root future, which tokio polls before any task whenever it was woken. Clients' connections are
//! tasks of a [`LocalSet`] in that same future: of those, a few dozen have their turn, then the streams of peers and the
//! doors, which are tasks of the runtime, and the engine again. So no number of connections keeps a heartbeat waiting, on its
//! way out or in (hazard 45), nor a connection that is to be accepted. Nothing that runs here may block.

use super::Fatal;
use std::future::Future;
use std::pin::Pin;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local, unconstrained};

type Driver = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// A task of a client.
pub type Guest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The way to the thread for tasks that wait for engine, peers and doors.
#[derive(Clone)]
pub struct Guests(mpsc::UnboundedSender<Guest>);

impl Guests {
    /// Runs a task there.
    pub fn spawn(&self, guest: Guest) {
        let _ = self.0.send(guest); // the thread is gone only when all stops
    }
}

/// The thread and its runtime, with doors before the engine runs and after it has ended. Dropped, it ends all tasks.
pub struct EventLoop {
    handle: Handle,
    guests: Guests,
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
        let (guests, mut arriving_guests) = mpsc::unbounded_channel::<Guest>();
        let (driver, arriving) = oneshot::channel::<Driver>();
        let (ended, driver_ended) = oneshot::channel();
        let (alive, dropped) = oneshot::channel::<()>();
        super::spawn("balsa-engine", fatal.clone(), move || {
            let clients = LocalSet::new();
            let admitting = async move {
                while let Some(guest) = arriving_guests.recv().await {
                    spawn_local(guest);
                }
                std::future::pending().await
            };
            let driving = async {
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
            };
            clients.block_on(&runtime, async {
                tokio::select! {
                    biased;
                    () = driving => {}
                    () = unconstrained(admitting) => {} // as many as the doors let in
                }
            });
            drop(clients);
            runtime.shutdown_background();
            Ok(())
        })?;
        Ok(EventLoop {
            handle,
            guests: Guests(guests),
            driver: Some(driver),
            driver_ended: Some(driver_ended),
            _alive: alive,
        })
    }

    /// Where to spawn what runs on this thread and waits for no client.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where to spawn what shall run on this thread behind all else.
    pub fn guests(&self) -> Guests {
        self.guests.clone()
    }

    /// Gives the loop its engine; once. Resolves when that has ended, by an error or an answer.
    pub(super) fn drive(&mut self, driver: Driver) -> Option<oneshot::Receiver<()>> {
        self.driver.take()?.send(driver).ok()?;
        self.driver_ended.take()
    }
}
