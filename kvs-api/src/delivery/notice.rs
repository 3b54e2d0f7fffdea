//! What a notification says.

use serde_json::{Map, Value, json};
use uuid::Uuid;
use vidar_core::entry::FragmentEntry;
use vidar_core::ids::FragmentNumber;
use vidar_core::sample::Tag;
use vidar_core::time::UnixMs;

use super::{id_of, marks};

/// The same for the same fragment and topic: who gets it twice can tell.
pub(crate) fn id(number: FragmentNumber, topic: &str) -> Uuid {
    id_of(&[number.as_bytes(), topic.as_bytes()])
}

/// The body that an HTTP subscription of SNS gets, with the message of the service in it as text. Without what only SNS can
/// say: its signature, and where to unsubscribe.
pub(crate) fn body(topic: &str, arn: &str, entry: &FragmentEntry, tags: &[Tag], now: UnixMs) -> Value {
    let payload: Map<String, Value> = marks::own(tags).map(|(name, value)| (name.to_owned(), value.into())).collect();
    let message = json!({
        "StreamArn": arn,
        "FragmentNumber": entry.meta.number.to_string(),
        "FragmentStartProducerTimestamp": entry.meta.producer_start.0,
        "FragmentStartServerTimestamp": entry.meta.server_start().0,
        "NotificationType": "PERSISTED",
        "NotificationPayload": payload,
    });
    json!({
        "Type": "Notification",
        "MessageId": id(entry.meta.number, topic),
        "TopicArn": topic,
        "Message": message.to_string(),
        "Timestamp": now.to_string(),
    })
}
