//! Clips: any range of a stream as one file.
//!
//! ```text
//! range ─► Snapshot (entries) ─► spans ─► selection (tables at the edges only) ─► layout ─► VirtualFile ─► bytes
//! ```
//! A clip starts with the frame shown at `start` (the greatest presentation time not after it) and ends before `end`.
//! It is resolved once, to an immutable list of fragments, of which the entity tag is the hash. Its length is known
//! before any media is read, and nearly before any table is. Design: `docs/design/playback.md`.
//!
//! # Invariants
//! 1. The same snapshot and range give the same bytes.
//! 2. A fragment that is known or found to be damaged while a clip is planned is a gap, and named; while it is sent, the
//!    connection is aborted. Damage is never sent as media.

mod live;
mod mkv;
mod mkv_file;
mod mp4;
mod mp4_file;
mod pictures;
mod plan;
mod snapshot;
mod span;
mod timing;
mod tracks;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use vidar_core::control::GapCause;
use vidar_core::entry::SharedEntry;
use vidar_core::error::ErrorKind;
use vidar_media::container::fmp4::progressive;
use vidar_media::container::mkv::fixed;

use crate::Api;
use crate::bound::fragment_count;
use crate::error::{ApiError, ApiResult};
use crate::virtual_file::{Answer, VirtualFile};
pub(crate) use live::live;
use plan::{Opener, Plan, Wants};
pub(crate) use snapshot::ClipRange;
use snapshot::{Cut, Gap};

/// Names gaps; cut where it gets too long, which `...` at its end says.
const GAPS_HEADER: HeaderName = HeaderName::from_static("vidar-gaps");
const OMITTED_HEADER: HeaderName = HeaderName::from_static("vidar-omitted-tracks");
/// From the beginning of the file to what is shown at `start`, in milliseconds.
const OFFSET_HEADER: HeaderName = HeaderName::from_static("vidar-start-offset-ms");
/// Bytes of a header field of ours.
const HEADER_BYTES_MAX: usize = 4096;
/// Plans of more fragments keep a thread busy: they have one of their own, and few at the same time.
const SMALL_FRAGMENT_COUNT: usize = 1000;
static LARGE_PLANS: Semaphore = Semaphore::const_new(4);

/// A container of clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// Its index first, exact at the start.
    Mp4,
    /// Matroska: every track, from the keyframe on.
    Mkv,
}

impl Container {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Mkv => "video/x-matroska",
        }
    }
}

/// A clip that is ready to be sent.
pub(crate) struct Clip {
    pub(crate) file: Arc<dyn VirtualFile>,
    pub(crate) etag: String,
    /// What is missing of it, and other things to know.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// What is done about media that is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Gaps are an error.
    pub(crate) fails: bool,
    /// All media is read first: what is damaged is a gap, and does not break the transfer off.
    pub(crate) checked: bool,
}

/// Plans a clip.
///
/// # Errors
/// 404 if the range has no media; 409 if it has gaps that are an error; 422 if the container carries none of its
/// tracks, or the range has too many fragments.
pub(crate) async fn clip(api: Arc<Api>, range: ClipRange, container: Container, missing: Missing) -> ApiResult<Clip> {
    let timeline = api.index.timeline();
    let count = fragment_count(timeline, range.stream, range.start, range.end, api.options.clip_fragments_max)?;
    cut(api, Cut::Range(range), count, container, missing).await
}

/// Some fragments, whole and in this order, as an MP4.
///
/// # Errors
/// 404 if nothing of them plays; 422 if MP4 carries none of their tracks, or they are too many.
pub async fn whole_mp4(api: Arc<Api>, entries: Vec<SharedEntry>) -> ApiResult<Response> {
    let (count, count_max) = (entries.len(), api.options.clip_fragments_max);
    if count > count_max {
        return Err(ApiError::unusable(format!("the range has more than {count_max} fragments; ask for less")));
    }
    let clip = cut(api, Cut::Whole(entries), count, Container::Mp4, Missing::default()).await?;
    let content_type = Container::Mp4.content_type();
    let answer = Answer { content_type, etag: clip.etag, headers: clip.headers };
    Ok(answer.respond(&Method::GET, &HeaderMap::new(), clip.file))
}

async fn cut(api: Arc<Api>, cut: Cut, count: usize, container: Container, missing: Missing) -> ApiResult<Clip> {
    if count <= SMALL_FRAGMENT_COUNT {
        return plan(&api, &cut, container, missing).await;
    }
    // One that reads all media waits for the disk most of its time.
    let _turn = match missing.checked {
        true => None,
        false => Some(LARGE_PLANS.acquire().await.expect("the semaphore is never closed")),
    };
    let runtime = Handle::current();
    let planned = spawn_blocking(move || runtime.block_on(plan(&api, &cut, container, missing))).await;
    planned.map_err(|_| ApiError::of(ErrorKind::Internal, "internal error"))?
}

async fn plan(api: &Api, cut: &Cut, container: Container, missing: Missing) -> ApiResult<Clip> {
    let timeline = api.index.timeline();
    let mut opener = Opener::new(&*api.source, timeline, missing.checked);
    match container {
        Container::Mp4 => {
            let wants = Wants { carries: mp4::carries, whole_gop: false, sizes: false };
            let lay_out = |plan: &Plan| mp4::lay_out(&plan.tracks, &plan.config_tracks(), &plan.taken);
            let (plan, mp4) = opener.plan(cut, &wants, lay_out).await?;
            check_gaps(&plan, missing.fails)?;
            let seed = format!("mp4 {}", progressive::FORMAT_VERSION);
            let etag = plan.snapshot.etag(&seed, cut);
            let file = Arc::new(mp4_file::Mp4File::new(api.source.clone(), mp4));
            Ok(Clip { file, etag, headers: headers(&plan) })
        }
        Container::Mkv => {
            let wants = Wants { carries: mkv::carries, whole_gop: true, sizes: true };
            let (plan, mkv) = opener.plan(cut, &wants, mkv::lay_out).await?;
            check_gaps(&plan, missing.fails)?;
            let etag = plan.snapshot.etag(&format!("mkv {}", fixed::FORMAT_VERSION), cut);
            let mut headers = headers(&plan);
            headers.push((OFFSET_HEADER, mkv.start_offset_ms.into()));
            Ok(Clip { file: Arc::new(mkv_file::MkvFile::new(api.source.clone(), mkv)), etag, headers })
        }
    }
}

fn check_gaps(plan: &Plan, whole: bool) -> ApiResult<()> {
    if !whole || plan.snapshot.gaps.is_empty() {
        return Ok(());
    }
    let detail = "media is missing in the range";
    Err(ApiError::new(http::StatusCode::CONFLICT, detail).with("gaps", plan::named_gaps(&plan.snapshot.gaps)))
}

fn headers(plan: &Plan) -> Vec<(HeaderName, HeaderValue)> {
    let gap = |Gap { start, end, lossy }: &Gap| match lossy {
        true => format!("{start}/{end};cause={}", GapCause::Loss.name()),
        false => format!("{start}/{end}"),
    };
    let lists = [
        (GAPS_HEADER, bounded_list(plan.snapshot.gaps.iter().map(gap))),
        (OMITTED_HEADER, bounded_list(plan.omitted.iter().cloned())),
    ];
    let set = lists.into_iter().filter(|(_, list)| !list.is_empty());
    set.filter_map(|(name, list)| Some((name, HeaderValue::from_str(&list).ok()?))).collect()
}

fn bounded_list(items: impl Iterator<Item = String>) -> String {
    let mut list = String::new();
    for item in items {
        let comma = if list.is_empty() { "" } else { ", " };
        if list.len() + comma.len() + item.len() > HEADER_BYTES_MAX {
            list.push_str(", ...");
            break;
        }
        let _ = write!(list, "{comma}{item}");
    }
    list
}
