//! Makes pictures and hands them out, one after the other.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use vidar_core::control::StreamRecord;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::FragmentNumber;
use vidar_core::sample::Tag;
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;
use vidar_indexer::TimeAxis;
use vidar_player_api::image::{self, ImagePool};
use vidar_player_api::{Api, ApiError};

use super::config::{self, ImageGeneration, ImagePlan};
use super::feed::{Due, Feed};
use super::outlet::{Outlet, PictureFile};
use super::worker::{Counts, Deliver, Failure, Worker, retried, tries};
use super::{DeliveryOptions, marks, picture};

/// How often a picture is tried.
const TRIES: u32 = 5;

/// Makes pictures.
pub struct Pictures {
    worker: Worker,
    /// Its own decoder: those of viewers are left to them.
    pool: ImagePool,
    account: String,
    targets: Vec<String>,
    counts: Counts,
}

/// A feed of pictures: of fragments that ask for them, or of all.
pub(crate) fn feed(tagged_only: bool) -> Arc<Feed> {
    let wanted: fn(&[Tag]) -> bool = if tagged_only { marks::asks_for_image } else { |_| true };
    Arc::new(Feed::new(
        |settings| {
            let (since, plan) = config::plan::<ImageGeneration>(settings)?;
            plan.enabled.then_some(since)
        },
        wanted,
    ))
}

impl Pictures {
    pub(crate) fn new(player: Arc<Api>, outlet: Arc<dyn Outlet>, feed: Arc<Feed>, options: &DeliveryOptions) -> Self {
        Self {
            pool: ImagePool::new(1, player.options.image_timeout_ms),
            worker: Worker { name: "images".to_owned(), feed, player, outlet },
            account: options.account.clone(),
            targets: options.image_targets.clone(),
            counts: Counts::default(),
        }
    }

    /// Until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.worker.run(&*self, &stop).await;
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many fragments wait.
    #[must_use]
    pub fn due_len(&self) -> usize {
        self.worker.feed.due_len()
    }

    fn failed(&self, stream: &StreamRecord, fragment: FragmentNumber, error: &str) {
        self.counts.add(false);
        tracing::warn!(stream = %stream.name, %fragment, error, "a picture is given up");
    }

    async fn has_pictures(&self, entry: &SharedEntry) -> Result<bool, Failure> {
        let config = self.worker.player.source.config(entry).await.map_err(ApiError::from)?;
        Ok(config.tracks.iter().any(|track| track.kind == TrackKind::Video))
    }

    /// Makes the picture at an instant and puts it out. `last`: the one before, which may be shown still.
    async fn make(
        &self,
        stream: &StreamRecord,
        entry: &SharedEntry,
        plan: &ImagePlan,
        tags: &[Tag],
        at: UnixMs,
        last: &Option<(String, Arc<[u8]>)>,
    ) -> Result<Option<(String, Arc<[u8]>)>, Failure> {
        let Some((target, folders)) = config::target(&self.targets, &plan.uri) else {
            return Err(Failure {
                again: false,
                of_content: false,
                detail: format!("{} stands for no directory any more", plan.uri),
            });
        };
        let began = match plan.axis {
            TimeAxis::Producer => entry.meta.producer_start,
            TimeAxis::Server => entry.meta.server_start(),
        };
        let into_ms = at.since_ms(began);
        let shown =
            image::find_from(&self.worker.player, Arc::clone(entry), entry.meta.producer_start.plus_ms(into_ms)).await;
        let found = match shown {
            Ok(found) => found,
            Err(error) if error.status().as_u16() == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let identity = found.identity();
        let bytes = match last {
            Some((of, bytes)) if *of == identity => Arc::clone(bytes),
            _ => image::render(&self.worker.player, &self.pool, &found, plan.style).await?.into(),
        };
        let name = picture::PictureName { number: entry.meta.number, at, format: plan.style.format };
        let prefix = marks::image_prefix(tags);
        let file = PictureFile {
            target: target.to_owned(),
            path: picture::path(folders, prefix, &self.account, stream.name.as_str(), name),
            bytes: Arc::clone(&bytes),
            metadata: picture::metadata(entry, into_ms, tags),
        };
        self.worker.outlet.put(&file).await?;
        Ok(Some((identity, bytes)))
    }
}

impl Deliver for Pictures {
    /// All pictures of a fragment; none: it is time to stop.
    async fn deliver(&self, due: Due, stop: &CancellationToken) -> Option<()> {
        let index = &self.worker.player.index;
        // What was deleted or expired meanwhile has no pictures.
        let Some(stream) = index.catalog().stream(due.stream) else { return Some(()) };
        let Some(entry) = index.timeline().get(due.stream, due.number) else { return Some(()) };
        let tags = index.timeline().details(due.stream, due.number).map(|details| details.tags().to_vec());
        let tags = tags.unwrap_or_default();
        let Some((since, plan)) = config::plan::<ImageGeneration>(&stream.settings) else { return Some(()) };
        if !plan.enabled || entry.meta.server_start() < since || !self.worker.feed.wants(&tags) {
            return Some(());
        }
        match retried(stop, tries(TRIES), || self.has_pictures(&entry)).await? {
            Ok(true) => {}
            Ok(false) => return Some(()),
            Err(error) => {
                self.failed(&stream, due.number, &error);
                return Some(());
            }
        }
        let mut last = None;
        let instants = picture::instants(plan.axis, &entry, plan.interval_ms, marks::asks_for_image(&tags));
        if instants.len() == picture::COUNT_MAX {
            tracing::warn!(stream = %stream.name, fragment = %due.number, "no more pictures of one fragment than that are made");
        }
        for at in instants {
            match retried(stop, tries(TRIES), || self.make(&stream, &entry, &plan, &tags, at, &last)).await? {
                Ok(Some(made)) => {
                    self.counts.add(true);
                    last = Some(made);
                }
                // Nothing is shown then.
                Ok(None) => {}
                Err(error) => self.failed(&stream, due.number, &error),
            }
        }
        Some(())
    }
}
