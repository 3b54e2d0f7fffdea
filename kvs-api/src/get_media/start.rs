//! Where GetMedia begins.

use serde::Deserialize;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::time::UnixMs;
use vidar_indexer::{RangeQuery, TimeAxis, Timeline};
use vidar_player_api::Api;

use super::head::Head;
use crate::archive::fragment_list::{NUMBER_BYTES_MAX, is_number};
use crate::archive::look_up;
use crate::call::required;
use crate::error::{ServiceError, ServiceResult};
use crate::time::Timestamp;

/// As a request has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Selector {
    start_selector_type: Option<String>,
    after_fragment_number: Option<String>,
    start_timestamp: Option<Timestamp>,
    continuation_token: Option<String>,
}

/// Where to begin, as a request says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At the fragment that arrives, else at the newest.
    Now,
    Earliest,
    After(FragmentNumber),
    /// At the fragment of this instant, else at the next.
    At(TimeAxis, UnixMs),
}

/// Where to begin: after a fragment, with what is known of the head.
pub(super) struct Place {
    pub(super) after: FragmentNumber,
    pub(super) head: Option<Head>,
}

impl Start {
    pub(super) fn read(selector: Selector) -> ServiceResult<Self> {
        let at = |axis| -> ServiceResult<Self> {
            let at = required("StartTimestamp", selector.start_timestamp)?;
            Ok(Self::At(axis, at.floor_ms()))
        };
        match required("StartSelectorType", selector.start_selector_type.as_deref())? {
            "NOW" => Ok(Self::Now),
            "EARLIEST" => Ok(Self::Earliest),
            "FRAGMENT_NUMBER" => after("AfterFragmentNumber", selector.after_fragment_number),
            // It is the number of the fragment that it came with.
            "CONTINUATION_TOKEN" => after("ContinuationToken", selector.continuation_token),
            "SERVER_TIMESTAMP" => at(TimeAxis::Server),
            "PRODUCER_TIMESTAMP" => at(TimeAxis::Producer),
            _ => Err(ServiceError::invalid(
                "StartSelectorType: expected FRAGMENT_NUMBER, SERVER_TIMESTAMP, PRODUCER_TIMESTAMP, NOW, EARLIEST or \
                 CONTINUATION_TOKEN.",
            )),
        }
    }

    pub(super) async fn find(self, player: &Api, stream: StreamId) -> ServiceResult<Place> {
        let after = match self {
            Self::Now => return Ok(now(player, stream)),
            Self::Earliest => FragmentNumber::MIN,
            Self::After(number) => number,
            Self::At(axis, at) => {
                let index = std::sync::Arc::clone(&player.index);
                look_up(move || {
                    let timeline = index.timeline();
                    let found = at_or_next(timeline, stream, axis, at).map(|entry| just_before(entry.meta.number));
                    // Later than all that is stored: what arrives.
                    let last = || timeline.last(stream).map(|entry| entry.meta.number);
                    found.or_else(last).unwrap_or(FragmentNumber::MIN)
                })
                .await?
            }
        };
        Ok(Place { after, head: None })
    }
}

fn after(member: &str, number: Option<String>) -> ServiceResult<Start> {
    let text = required(member, number)?;
    let number = Some(&text).filter(|text| is_number(text)).and_then(|text| text.parse().ok());
    let bad = || {
        ServiceError::invalid(format!("{member}: expected the number of a fragment, 1 to {NUMBER_BYTES_MAX} digits."))
    };
    number.map(Start::After).ok_or_else(bad)
}

/// The fragment of an instant, else the next; where several cover it, the one that came last.
fn at_or_next(timeline: &Timeline, stream: StreamId, axis: TimeAxis, at: UnixMs) -> Option<SharedEntry> {
    let one = |start, end, descending| {
        let query = RangeQuery { stream, axis, start, end, after: None, limit: 1, descending };
        timeline.range(&query).entries.into_iter().next()
    };
    match axis {
        TimeAxis::Producer => {
            let first = one(Some(at), None, false)?;
            timeline.at(stream, at.max(first.meta.producer_start)).or(Some(first))
        }
        TimeAxis::Server => match one(None, Some(at.plus_ms(1)), true) {
            None => timeline.first(stream),
            Some(begun) if begun.meta.server_start().plus_ms(begun.meta.duration_ms.into()) > at => Some(begun),
            Some(over) => timeline.next(stream, over.meta.number),
        },
    }
}

/// At the newest fragment, be it open or stored.
fn now(player: &Api, stream: StreamId) -> Place {
    let mut head = Head::new(&player.hub, stream);
    head.keep_newest();
    let stored = player.index.timeline().last(stream).map(|entry| entry.meta.number);
    let newest = head.first().max(stored);
    let after = newest.map_or(FragmentNumber::MIN, just_before);
    head.forget_until(after);
    Place { after, head: Some(head) }
}

/// The greatest number that is smaller.
fn just_before(number: FragmentNumber) -> FragmentNumber {
    let mut bytes = *number.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    FragmentNumber::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_predecessors() {
        let number: FragmentNumber = "91343852333181432392682062607743920146159169392".parse().unwrap();
        assert_eq!(just_before(number).to_string(), "91343852333181432392682062607743920146159169391");
        let round = FragmentNumber::new(1, 0, 0);
        assert!(just_before(round) < round && just_before(round) > FragmentNumber::new(0, u64::MAX, 0));
    }

    #[test]
    fn selectors_need_their_companions() {
        let read = |text: &str| Start::read(serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"StartSelectorType": "NOW"}"#), Ok(Start::Now));
        assert_eq!(
            read(r#"{"StartSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": 1.5}"#),
            Ok(Start::At(TimeAxis::Server, UnixMs(1500)))
        );
        let number = FragmentNumber::new(1, 2, 3);
        for (kind, member) in [("FRAGMENT_NUMBER", "AfterFragmentNumber"), ("CONTINUATION_TOKEN", "ContinuationToken")]
        {
            let text = |value: &str| format!(r#"{{"StartSelectorType": "{kind}", "{member}": "{value}"}}"#);
            assert_eq!(read(&text(&number.to_string())), Ok(Start::After(number)));
            for bad in ["", "x", "-1", &"9".repeat(60), &"9".repeat(129)] {
                assert!(read(&text(bad)).is_err(), "{bad}");
            }
        }
        for kind in ["", "now", "FRAGMENT_NUMBER", "CONTINUATION_TOKEN", "SERVER_TIMESTAMP", "PRODUCER_TIMESTAMP"] {
            assert!(read(&format!(r#"{{"StartSelectorType": "{kind}"}}"#)).is_err(), "{kind}");
        }
        assert!(read("{}").is_err());
    }
}
