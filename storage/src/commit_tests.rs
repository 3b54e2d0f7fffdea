//! Tests of the commit module.

use std::sync::mpsc;

use vidar_core::time::UnixMs;

use super::*;
use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;
use crate::testing::{media, open, options, source};

fn message(body: Body) -> Message {
    Message::Append(Item { body, reply: oneshot::channel().0, room: None })
}

#[tokio::test]
async fn a_batch_ends_with_a_deletion_with_its_length_and_with_the_store() {
    let opened = open(&MemoryIo::new());
    let from = source(&opened.store).await;
    let fragment = |len| {
        let fragment = from.fragment(opened.store.next_number(UnixMs(1)), &media(1, len));
        message(Body::Fragment(Box::new(Fragment::new(fragment))))
    };
    let deletion = Control::StreamDeleted { stream: from.stream, at: UnixMs(1) };
    let long = options().batch_bytes;
    let (inbox, messages) = mpsc::channel();
    for message in [fragment(1), message(Body::Control(deletion)), fragment(1), fragment(long), fragment(2)] {
        inbox.send(message).unwrap();
    }
    inbox.send(Message::Close(oneshot::channel().0)).unwrap();
    let lock = MemoryIo::new().lock().unwrap();
    let committer = Committer::new(std::sync::Arc::clone(opened.store.shared()), OpenFragments::new(), lock);
    for (count, last) in [(2, false), (2, false), (1, true)] {
        let mut items = Vec::new();
        let closing = committer.take(messages.recv().unwrap(), &messages, &mut items);
        assert_eq!((items.len(), closing.is_some()), (count, last));
    }
}
