//! GetMediaForFragmentList: fragments by their numbers, in the order they are asked for.
//!
//! One that is not there is a document that says so, and the rest comes nevertheless; so does one that is damaged. An
//! answer ends early only where the store does not answer.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use vidar_core::auth::Principal;
use vidar_core::error::ErrorKind;
use vidar_core::ids::FragmentNumber;
use vidar_core::policy::Action;
use vidar_core::source::ReadError;

use super::stored::StoredDocument;
use crate::Kvs;
use crate::call::{Call, Reading, members, required};
use crate::document::{Fault, error_document};
use crate::error::{ServiceError, ServiceResult};
use crate::limits::Open;

const COUNT_MAX: usize = 1000;
/// Answers of a stream at the same time, as the service publishes it.
const CONNECTION_COUNT_MAX: usize = 5;
/// Digits of a fragment number at most.
pub(crate) const NUMBER_BYTES_MAX: usize = 128;

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "Fragments")]
    fragments: Option<Vec<String>>,
}

pub(crate) async fn get(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Response> {
    let request: Request = members(&body)?;
    let numbers = required("Fragments", request.fragments)?;
    if !(1..=COUNT_MAX).contains(&numbers.len()) {
        return Err(ServiceError::invalid("Fragments: expected 1 to 1000."));
    }
    if !numbers.iter().all(|number| is_number(number)) {
        return Err(ServiceError::invalid("Fragments: expected numbers of 1 to 128 digits."));
    }
    let call = Call { kvs: &kvs, who: &who, operation: "GetMediaForFragmentList", action: Action::Read };
    let stream = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    let turn = kvs.limits.open(stream.stream, "GetMediaForFragmentList", CONNECTION_COUNT_MAX);
    let turn = turn.ok_or_else(|| ServiceError::client_limit("5 of these answers are under way for this stream."))?;
    kvs.limits.media(stream.stream, numbers.len(), kvs.clock.monotonic())?;
    let reading = Reading { who, stream };
    let (kvs_of_list, numbers) = (Arc::clone(&kvs), numbers.into_iter());
    let list = FragmentList { kvs: kvs_of_list, reading, numbers, open: None, over: false, _turn: turn };
    let chunks = stream::unfold(list, |mut list| async move { Some((list.next().await?, list)) });
    Ok(super::media(&kvs.stop, chunks))
}

/// Digits, as the service writes fragment numbers. They may still be of no fragment.
pub(crate) fn is_number(text: &str) -> bool {
    (1..=NUMBER_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Fragments on their way out, one after the other.
struct FragmentList {
    kvs: Arc<Kvs>,
    reading: Reading,
    numbers: std::vec::IntoIter<String>,
    open: Option<StoredDocument>,
    over: bool,
    _turn: Open,
}

impl FragmentList {
    /// The next bytes. None: that was all, or its reader may not go on.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        let source = Arc::clone(&self.kvs.player.source);
        if self.over {
            return None;
        }
        let Some(document) = &mut self.open else { return self.begin().await };
        match document.next(&*source).await {
            Ok(Some(chunks)) => Some(chunks),
            Ok(None) => {
                let tags = document.tags();
                self.open = None;
                Some(vec![tags])
            }
            Err(error) => {
                let number = document.entry.meta.number.to_string();
                self.open = None;
                Some(vec![self.fault(&number, &error)])
            }
        }
    }

    async fn begin(&mut self) -> Option<Vec<Bytes>> {
        let text = self.numbers.next().filter(|_| self.reading.goes_on(&self.kvs))?;
        let player = &self.kvs.player;
        let number: Option<FragmentNumber> = text.parse().ok();
        let Some(entry) = number.and_then(|number| player.index.timeline().get(self.reading.stream.stream, number))
        else {
            return Some(vec![error_document(&text, Fault::NOT_FOUND)]);
        };
        match StoredDocument::open(&*player.source, entry).await {
            Ok(document) => {
                let begin = document.begin();
                self.open = Some(document);
                Some(vec![begin])
            }
            Err(error) => Some(vec![self.fault(&text, &error)]),
        }
    }

    fn fault(&mut self, number: &str, error: &ReadError) -> Bytes {
        tracing::warn!(%error, "a fragment of a list is not sent");
        self.over = !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt);
        error_document(number, Fault::of(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits() {
        assert!(is_number("0") && is_number(&"9".repeat(128)));
        for bad in ["", "-1", "1a", " 1", "١", &"9".repeat(129)] {
            assert!(!is_number(bad), "{bad}");
        }
    }
}
