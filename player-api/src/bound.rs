//! How much of a stream one request may ask for: plans and playlists are held in memory whole.

use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;
use vidar_indexer::{RangeQuery, TimeAxis, Timeline};

use crate::{ApiError, ApiResult};

/// How many fragments overlap a range by producer time.
///
/// # Errors
/// 422 if there are more than `count_max`.
pub(crate) fn fragment_count(
    timeline: &Timeline,
    stream: StreamId,
    start: Option<UnixMs>,
    end: Option<UnixMs>,
    count_max: usize,
) -> ApiResult<usize> {
    let axis = TimeAxis::Producer;
    let page =
        timeline.range(&RangeQuery { stream, axis, start, end, after: None, limit: count_max, descending: false });
    if page.next.is_some() {
        return Err(ApiError::unusable(format!("the range has more than {count_max} fragments; ask for less")));
    }
    Ok(page.entries.len())
}
