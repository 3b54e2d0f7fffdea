//! Runs of the RTSP server as pushes.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use vidar_core::auth::Principal;
use vidar_core::error::ErrorKind;
use vidar_core::ids::StreamName;

use crate::push::{Arrived, Ingest, Push, PushError, PushStart};
use crate::rtsp::{Publish, PublishError, Publishers, Refusal};

/// Begins a push for each RTSP session.
pub struct RtspPublishers(pub Arc<Ingest>);

struct RtspPush(Push);

#[async_trait]
impl Publishers for RtspPublishers {
    async fn begin(
        &self,
        name: StreamName,
        by: &Principal,
        source: SocketAddr,
        user_agent: &str,
    ) -> Result<Box<dyn Publish>, Refusal> {
        let start = PushStart {
            name,
            by: Some(by.clone()),
            protocol: "rtsp",
            source: source.to_string(),
            user_agent: user_agent.chars().take(256).collect(),
            start: None,
            push: None,
            as_sent: None,
        };
        match self.0.begin(start).await {
            Ok(push) => Ok(Box::new(RtspPush(push))),
            Err(error) => Err(Refusal { status: error.kind().http_status(), reason: error.to_string() }),
        }
    }
}

#[async_trait]
impl Publish for RtspPush {
    async fn events(&mut self, events: Vec<Arrived>) -> Result<(), PublishError> {
        self.0.events(events).await.map_err(publish_error)
    }

    fn try_events(&mut self, events: Vec<Arrived>) -> Result<Option<Vec<Arrived>>, PublishError> {
        self.0.try_events(events).map_err(publish_error)
    }

    fn hold(&mut self, bytes: u64) {
        self.0.hold(bytes);
    }

    fn touch(&mut self) {
        self.0.touch();
    }

    async fn finish(self: Box<Self>, complete: bool, cause: &str) -> Result<(), PublishError> {
        // Read afterwards: what was still under way may have failed.
        let log = self.0.finish(complete, cause).await;
        let (_, first_error) = log.outcome();
        first_error.map_or(Ok(()), |status| {
            let kind = if status == ErrorKind::Full.http_status() { ErrorKind::Full } else { ErrorKind::Unavailable };
            Err(PublishError { kind, detail: "not all of it could be kept".to_owned() })
        })
    }
}

fn publish_error(error: PushError) -> PublishError {
    PublishError { kind: error.kind, detail: error.detail }
}
