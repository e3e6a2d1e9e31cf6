//! How those who wait learn that the store has published more.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Tells whoever waits. While nobody does, telling is one load.
#[derive(Default, Debug)]
pub struct Signal {
    waiting: AtomicUsize,
    notify: Notify,
}

/// Somebody who waits, or looks now and then.
#[derive(Debug)]
pub struct Listener<'a>(&'a Signal);

impl Signal {
    /// A state was published.
    pub fn published(&self) {
        fence(Ordering::SeqCst); // the state is published before anybody is looked for
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_waiters();
        }
    }

    /// Whoever listens hears of all that is published from now on.
    pub fn listen(&self) -> Listener<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst); // and looks at the state only then
        Listener(self)
    }
}

impl Listener<'_> {
    /// Resolves with the next publication after it was made; look at the state between making and awaiting it.
    pub fn next(&self) -> Notified<'_> {
        self.0.notify.notified()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
