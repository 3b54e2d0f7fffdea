//! Hands records to the sink in order, several at a time, and tells the log and the hub what became of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use vidar_core::control::{Control, GapCause, GapRecord};
use vidar_core::hub::LiveEvent;
use vidar_core::ids::{ConfigId, StreamId};
use vidar_core::record::{FragmentFlags, FragmentMeta, NewFragment};
use vidar_core::sink::{Durable, OpenFragment, SinkError};
use vidar_core::track::StreamConfig;

use crate::budget::Reservation;
use crate::push::{Follower, Ingest, PushError};
use crate::push_log::PushLog;

/// Records of one push that wait for a sync at the same time. Each is bounded by a part and charged to the budget.
const IN_FLIGHT_COUNT: usize = 64;

pub(crate) enum Job {
    Append { fragment: NewFragment, open: OpenFragment, config: Arc<StreamConfig>, reservation: Reservation },
    Control(Control),
}

enum Done {
    Part,
    Fragment { durable: Durable, complete: bool },
    Failed { error: SinkError, gap: GapRecord, open: OpenFragment },
    Control(Result<(), SinkError>),
}

type Flight = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(crate) async fn run_committer(
    mut jobs: mpsc::Receiver<Job>,
    ingest: Arc<Ingest>,
    stream: StreamId,
    log: Arc<PushLog>,
    failure: Arc<OnceLock<PushError>>,
    follower: Option<Arc<dyn Follower>>,
) {
    let mut flights: FuturesOrdered<Flight> = FuturesOrdered::new();
    let mut known: Option<(Arc<StreamConfig>, ConfigId)> = None;
    let note = |done: Done| note(done, &ingest, stream, &log, &failure, follower.as_deref());
    loop {
        let job = tokio::select! {
            biased; // answers first, and in the same order each time
            Some(done) = flights.next() => {
                if let Some(gap) = note(done) {
                    flights.push_back(control(&ingest, Control::Gap(gap)));
                }
                continue;
            }
            job = jobs.recv(), if flights.len() < IN_FLIGHT_COUNT => job, // recv is cancel-safe
        };
        let flight = match job {
            None => break,
            Some(Job::Control(body)) => control(&ingest, body),
            Some(Job::Append { fragment, open, config, reservation }) => {
                let same = known.as_ref().filter(|(known, _)| Arc::ptr_eq(known, &config) || *known == config);
                let id = match same {
                    Some((_, id)) => Ok(*id),
                    None => ingest.sink.put_config(stream, &config).await,
                };
                match id {
                    Ok(id) => {
                        known = Some((config, id));
                        append(&ingest, fragment, id, open, reservation)
                    }
                    Err(error) => {
                        let gap = gap(&fragment.meta, &error, &ingest);
                        Box::pin(async move { Done::Failed { error, gap, open } })
                    }
                }
            }
        };
        flights.push_back(flight);
        // The first poll enqueues the record: so records reach the store in the order of this loop.
        let ready = futures::future::poll_fn(|cx| match flights.poll_next_unpin(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(done) = ready.await
            && let Some(gap) = note(done)
        {
            flights.push_back(control(&ingest, Control::Gap(gap)));
        }
    }
    while let Some(done) = flights.next().await {
        if let Some(gap) = note(done) {
            flights.push_back(control(&ingest, Control::Gap(gap)));
        }
    }
}

fn control(ingest: &Arc<Ingest>, body: Control) -> Flight {
    let ingest = Arc::clone(ingest);
    Box::pin(async move { Done::Control(ingest.sink.control(body).await) })
}

fn append(
    ingest: &Arc<Ingest>,
    mut fragment: NewFragment,
    config: ConfigId,
    open: OpenFragment,
    reservation: Reservation,
) -> Flight {
    let ingest = Arc::clone(ingest);
    fragment.meta.config = config;
    Box::pin(async move {
        let part = fragment.part.is_some();
        let meta = fragment.meta;
        let result = ingest.sink.append(fragment).await;
        drop(reservation);
        match result {
            Ok(_) if part => Done::Part,
            Ok(durable) => Done::Fragment { durable, complete: !meta.flags.contains(FragmentFlags::INCOMPLETE) },
            Err(error) => {
                let gap = gap(&meta, &error, &ingest);
                Done::Failed { error, gap, open }
            }
        }
    })
}

fn gap(meta: &FragmentMeta, error: &SinkError, ingest: &Ingest) -> GapRecord {
    let full = matches!(error, SinkError::Full);
    GapRecord {
        stream: meta.stream,
        run: Some(meta.run),
        start: meta.producer_start,
        end: meta.producer_end(),
        noticed: ingest.clock.now(),
        cause: if full { GapCause::Overload } else { GapCause::StoreFailed },
        count: 0,
        ordinal: Some(meta.ordinal),
    }
}

/// Tells the log and the hub; gives back the gap that has to be recorded.
fn note(
    done: Done,
    ingest: &Ingest,
    stream: StreamId,
    log: &PushLog,
    failure: &OnceLock<PushError>,
    follower: Option<&dyn Follower>,
) -> Option<GapRecord> {
    match done {
        Done::Part => None,
        Done::Fragment { durable, complete } => {
            log.durable(&durable);
            ingest.hub.publish(stream, LiveEvent::Durable(durable));
            if let Some(follower) = follower.filter(|_| complete) {
                follower.durable(durable.number);
            }
            tracing::debug!(number = %durable.number, duration_ms = durable.duration_ms, size_bytes = durable.size_bytes, "durable");
            None
        }
        Done::Control(Ok(())) => None,
        Done::Control(Err(error)) => {
            tracing::warn!(%error, "a control record was not taken");
            None
        }
        Done::Failed { error, gap, open } => {
            tracing::error!(%error, number = %open.number, "a fragment is lost");
            ingest.hub.publish(stream, LiveEvent::Failed(open));
            if let Some(follower) = follower {
                follower.failed(open.number, &error);
            }
            let push_error = PushError { kind: error.kind(), detail: error.to_string() };
            if failure.set(push_error).is_ok() {
                log.error(error.kind().http_status(), error.to_string(), None);
            }
            Some(gap)
        }
    }
}
