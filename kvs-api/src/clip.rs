//! GetClip: the fragments of a range, whole, as one MP4.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use vidar_core::auth::Principal;
use vidar_core::entry::SharedEntry;
use vidar_core::policy::Action;
use vidar_player_api::clip;
use vidar_player_api::lease::while_allowed;

use crate::Kvs;
use crate::call::{Call, Reading, members, required};
use crate::error::{ServiceError, ServiceResult};
use crate::playable::check_codec_private;
use crate::selector::{FRAGMENTS_MAX, Range, Selector};

#[derive(Debug, Default, Deserialize)]
struct GetClip {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "ClipFragmentSelector")]
    selector: Option<Selector>,
}

pub(crate) async fn get(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Response> {
    let request: GetClip = members(&body)?;
    let call = Call { kvs: &kvs, who: &who, operation: "GetClip", action: Action::Read };
    let stream = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    let selector = required("ClipFragmentSelector", request.selector)?;
    let range = Range::closed(selector, kvs.clock.now())?;
    if stream.settings.retention_hours == 0 {
        return Err(ServiceError::no_retention());
    }
    let id = stream.stream;
    let count_max = kvs.options.clip_fragments_max.unwrap_or(FRAGMENTS_MAX);
    let player = Arc::clone(&kvs.player);
    let mut fragments = kvs.look(move || range.fragments(player.index.timeline(), id, count_max)).await?;
    stop_at(&mut fragments, kvs.options.clip_bytes_max.unwrap_or(u64::MAX));
    let now = kvs.clock.monotonic();
    kvs.limits.metadata(id, fragments.len(), now)?;
    kvs.limits.media(id, fragments.len(), now)?;
    let first = fragments.first().ok_or_else(ServiceError::no_fragments)?;
    check_codec_private(&kvs, first).await?;
    let made = clip::whole_mp4(Arc::clone(&kvs.player), fragments).await;
    let reading = Reading { who, stream };
    let goes_on = move || reading.goes_on(&kvs);
    made.map(|answer| answer.map(|body| while_allowed(body, goes_on))).map_err(|error| match error.status().as_u16() {
        422 => ServiceError::unsupported_media(error.detail()),
        _ => error.into(),
    })
}

/// Leaves out what would make it longer than that; never the first.
fn stop_at(fragments: &mut Vec<SharedEntry>, bytes_max: u64) {
    let mut bytes = 0_u64;
    let fits = fragments.iter().take_while(|entry| {
        bytes = bytes.saturating_add(entry.size_bytes);
        bytes <= bytes_max
    });
    let count = fits.count().max(1);
    fragments.truncate(count);
}
