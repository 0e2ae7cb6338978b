//! Frames that wait to be sent to the peer: never kept back, and whoever makes the peer's own words into more of them waits
//! until those before have left.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::frame::Control;

/// What is to be said to the peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: Mutex<VecDeque<Control>>,
    came: Notify,
    left: Notify,
}

impl Outbox {
    pub(super) fn push(&self, frame: Control) {
        self.frames().push_back(frame);
        self.came.notify_one();
    }

    /// Waits for the next one. May be dropped and called again.
    pub(super) async fn next(&self) -> Control {
        loop {
            let next = self.frames().pop_front();
            match next {
                Some(frame) => {
                    self.left.notify_waiters();
                    return frame;
                }
                None => self.came.notified().await,
            }
        }
    }

    /// Waits until there are few. Who does not read what it asked for is not heard any more.
    pub(super) async fn room(&self) {
        loop {
            let left = self.left.notified();
            if self.frames().len() < FRAMES_MAX {
                return;
            }
            left.await;
        }
    }

    fn frames(&self) -> MutexGuard<'_, VecDeque<Control>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many may wait before what the peer says is not read any more.
const FRAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    async fn is_ready<F: Future>(future: F) -> bool {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn who_reads_nothing_is_not_heard_and_is_once_it_reads() {
        let outbox = Outbox::default();
        for _ in 0..FRAMES_MAX {
            assert!(is_ready(outbox.room()).await);
            outbox.push(Control::Pause(true));
        }
        let mut room = pin!(outbox.room());
        assert!(!is_ready(room.as_mut()).await);
        assert_eq!(outbox.next().await, Control::Pause(true));
        assert!(is_ready(room).await);
        for _ in 1..FRAMES_MAX {
            outbox.next().await;
        }
        assert!(!is_ready(outbox.next()).await);
    }
}
