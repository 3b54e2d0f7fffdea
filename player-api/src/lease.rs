//! Answers that end with the right to them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// How long an answer goes on after the right to it has ended, at most, while it has something to send.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same body, which breaks off once `allowed` says no. A whole answer is not cut short unseen: its reader finds the
/// connection broken.
pub fn while_allowed(body: Body, allowed: impl FnMut() -> bool + Send + 'static) -> Body {
    Body::new(Leased { body, allowed, looked: Instant::now() })
}

struct Leased<F> {
    body: Body,
    allowed: F,
    looked: Instant,
}

// Nothing in it is pinned: a `Body` can be moved.
impl<F> Unpin for Leased<F> {}

impl<F: FnMut() -> bool> HttpBody for Leased<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let leased = self.get_mut();
        let frame = Pin::new(&mut leased.body).poll_frame(context);
        if frame.is_ready() && leased.looked.elapsed() >= LOOK_EVERY {
            leased.looked = Instant::now();
            if !(leased.allowed)() {
                let gone = "the access key does not allow this any more";
                return Poll::Ready(Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::PermissionDenied, gone)))));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_goes_on_while_it_is_allowed_and_no_longer() {
        let pieces = stream::iter(0..100).then(|_| async {
            tokio::time::advance(Duration::from_millis(300)).await;
            Ok::<_, io::Error>(Bytes::from_static(b"x"))
        });
        let allowed = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&allowed);
        let mut body = while_allowed(Body::from_stream(pieces), move || asked.load(Ordering::Relaxed));
        for _ in 0..50 {
            assert!(body.frame().await.expect("a piece").is_ok());
        }
        allowed.store(false, Ordering::Relaxed);
        let mut more = 0;
        while body.frame().await.expect("no end").is_ok() {
            more += 1;
        }
        assert!(more <= 3, "{more} pieces went out");
    }

    #[tokio::test]
    async fn a_short_answer_is_what_it_was() {
        let body = while_allowed(Body::from("whole"), || false);
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.expect("a body").to_bytes(), "whole");
        assert!(while_allowed(Body::empty(), || false).is_end_stream());
    }
}
