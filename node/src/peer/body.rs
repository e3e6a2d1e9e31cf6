//! The two bodies that never end by themselves: the request's, fed by a [`Lane`], and the response's, which only says
//! that the receiver lives.

use super::frame::FrameBatch;
use super::lane::Lane;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How much of a lane goes into one write, in bytes; a larger frame goes alone.
const WRITE_BYTES: usize = 256 << 10;

fn keepalive_interval(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The body of an outbound stream. Sends nothing before the receiver accepted (the lane is open), so that a refusal is
/// never lost to a reset; then what the lane holds, all of a wake-up in one chunk, and keepalives when idle.
pub(super) struct LaneBody {
    lane: Arc<Lane>,
    keepalive: Interval,
    idle: bool,
}

impl LaneBody {
    pub(super) fn new(lane: Arc<Lane>, keepalive: Duration) -> LaneBody {
        LaneBody { lane, keepalive: keepalive_interval(keepalive), idle: true }
    }
}

impl Body for LaneBody {
    type Data = FrameBatch;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<FrameBatch>, Infallible>>> {
        if let Poll::Ready(frames) = self.lane.poll_take(cx, WRITE_BYTES) {
            self.idle = false;
            let batch = FrameBatch::new(self.lane.kind, frames);
            return Poll::Ready(Some(Ok(Frame::data(batch))));
        }
        loop {
            ready!(self.keepalive.poll_tick(cx));
            if std::mem::replace(&mut self.idle, true) && self.lane.is_open() {
                return Poll::Ready(Some(Ok(Frame::data(FrameBatch::keepalive()))));
            }
        }
    }
}

/// The body of a receiver's answer: one byte every interval, for as long as the stream lives.
pub(super) struct AliveBody {
    keepalive: Interval,
}

impl AliveBody {
    pub(super) fn new(keepalive: Duration) -> AliveBody {
        AliveBody { keepalive: keepalive_interval(keepalive) }
    }
}

impl Body for AliveBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.keepalive.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}
