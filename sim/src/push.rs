//! Publishers: cameras that push over the real `Push`, and one that writes to the store in parts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use vidar_core::control::{Control, RunRecord};
use vidar_core::ids::{FragmentNumber, RunId, StreamName};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, NewFragment, Piece, TableEnvelope, WallSource};
use vidar_core::registry::StreamRegistry;
use vidar_core::sink::FragmentSink;
use vidar_ingest::push_log::{PushLine, PushLog};
use vidar_ingest::{Arrived, Push, PushStart};
use vidar_media::Event;

use crate::boot::Boot;
use crate::lock;
use crate::media::Camera;
use crate::random::Random;

/// How a push ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Cut,
    Lost,
}

/// One connection, from its first byte to its last.
pub(crate) async fn push(boot: Arc<Boot>, name: StreamName, mut random: Random) {
    let _work = boot.pace.work();
    let start = PushStart {
        name: name.clone(),
        by: None,
        protocol: "http",
        source: "camera".into(),
        user_agent: String::new(),
        start: None,
        push: None,
        as_sent: None,
    };
    let trace = boot.shared.trace.clone();
    let mut push = match boot.ingest.begin(start).await {
        Ok(push) => push,
        Err(error) => return trace.note(format_args!("push to {name} refused: {:?}", error.kind())),
    };
    let mut camera = Camera::new(random.fork());
    let end = [End::Complete, End::Complete, End::Cut, End::Lost][random.index(4)];
    trace.note(format_args!("push to {name} begins: {end:?}"));
    let (sent, went_well) = send(&mut push, &mut camera, &mut random).await;
    if end == End::Lost {
        drop(push);
        return trace.note(format_args!("push to {name}: the connection is lost"));
    }
    let log = push.finish(end == End::Complete, "the body ended").await;
    let (fragments, failed) = log.outcome();
    trace.note(format_args!("push to {name} ends: {fragments} durable, failed: {failed:?}"));
    if went_well && failed.is_none() && camera.is_video_only() {
        compare(&boot, &log, &sent);
    }
}

/// Sends some pictures. What was sent, and whether all of it was taken.
async fn send(push: &mut Push, camera: &mut Camera, random: &mut Random) -> (Vec<Bytes>, bool) {
    let is_burst = random.one_in(3);
    let mut sent = Vec::new();
    if push.events(vec![Event::Config(camera.config()).into()]).await.is_err() {
        return (sent, false);
    }
    let mut left = random.within(1..150);
    while left > 0 {
        let count = random.within(1..6).min(left);
        left -= count;
        let mut events: Vec<Event> = (0..count).flat_map(|_| camera.next()).collect();
        match random.within(0..120) {
            0 => events.push(Event::Discontinuity),
            1 => events.push(Event::Lost { count: 3 }),
            _ => {}
        }
        sent.extend(events.iter().filter_map(|event| match event {
            Event::Sample(sample) => Some(sample.data.clone()),
            _ => None,
        }));
        if push.events(events.into_iter().map(Arrived::from).collect()).await.is_err() {
            return (sent, false);
        }
        if !is_burst {
            sleep(Duration::from_millis(camera.interval_ms() * count)).await;
        }
    }
    (sent, true)
}

/// A push that ended well is durable to its last sample, in order.
pub(crate) fn compare(boot: &Boot, log: &PushLog, sent: &[Bytes]) {
    let mut model = lock(&boot.shared.model);
    let (lines, _, _) = log.lines(0, usize::MAX);
    let numbers: Vec<FragmentNumber> = lines
        .iter()
        .filter_map(|line| match line {
            PushLine::Durable { fragment_number, .. } => Some(*fragment_number),
            _ => None,
        })
        .collect();
    let stored: Vec<u8> =
        numbers.iter().filter_map(|number| model.fragments.get(number)).flat_map(|fragment| fragment.media()).collect();
    if stored != sent.concat() {
        model.violate(format!("a push of {} samples ended well, and not all of it is durable", sent.len()));
    }
}

/// Writes a fragment in parts, and closes it or not.
pub(crate) async fn append_in_parts(boot: &Boot, name: &StreamName, random: &mut Random) {
    let _work = boot.pace.work();
    let Ok(stream) = boot.registry.ensure(name).await else { return };
    let (stream, run, sink) = (stream.stream, RunId::new(), &boot.sink);
    let Ok(config) = sink.put_config(stream, &Camera::new(random.fork()).config()).await else { return };
    let now = vidar_core::clock::Clock::now(&*boot.clock);
    let record = RunRecord {
        stream,
        run,
        started: now,
        protocol: "direct".into(),
        source: String::new(),
        user_agent: String::new(),
        anchor: now,
        anchor_source: WallSource::Given,
        continues: None,
        push: None,
    };
    if sink.control(Control::Run(record)).await.is_err() {
        return;
    }
    let Ok(open) = sink.open_fragment(stream, run, true, false) else { return };
    let meta = FragmentMeta {
        stream,
        number: open.number,
        run,
        lease_epoch: 0,
        ordinal: open.ordinal,
        discontinuity: open.discontinuity,
        producer_start: now,
        duration_ms: 2000,
        config,
        flags: FragmentFlags::STARTS_WITH_SYNC,
    };
    let (parts, closes) = (random.within(0..4) as u16, random.one_in(2));
    let mut pieces = Vec::new();
    for part in (0..parts).map(Some).chain(closes.then_some(None)) {
        let len = [10, 3_000, 20_000, 70_000][random.index(4)];
        let media = Bytes::from(random.bytes(len));
        let piece = Piece { part, media_len: len as u64, table: Bytes::from_static(b"a table") };
        let own = Piece { part: None, ..piece.clone() };
        pieces.push(piece);
        let table = TableEnvelope { pieces: if part.is_some() { vec![own] } else { pieces.clone() } };
        let cut = len / 3;
        let media = vec![media.slice(..cut), media.slice(cut..)];
        let fragment = NewFragment { meta, part, facts: FragmentFacts::default(), table, media };
        if sink.append(fragment).await.is_err() {
            return;
        }
    }
}
