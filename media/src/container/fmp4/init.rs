//! Init segments: the `ftyp` and `moov` before CMAF media segments (ISO/IEC 23000-19 section 7.3, 14496-12 section 8.8).

use bytes::Bytes;
use mp4_atom::{
    Dinf, Dref, DrefEntry, Edts, Elst, ElstEntry, Encode, Ftyp, Hdlr, Mdhd, Mvex, Mvhd, Nmhd, Smhd, Stco, Stsc, Stsz,
    StszSamples, Stts, Tkhd, Trex, Url, Vmhd,
};
use vidar_core::track::{StreamConfig, Track, TrackKind};

use super::boxes::{write_box, write_full_box};
use super::sample_entry;

/// Ticks per second of the movie header. No duration stands there, so nothing is lost by milliseconds.
const MOVIE_TIMESCALE_HZ: u32 = 1000;

/// What an init segment may say beyond the tracks.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitOptions<'a> {
    /// Beside the chosen tracks: where in the media its presentation starts, in ticks of the track (encoder priming, Opus
    /// pre-skip). Becomes an edit list; 0 or missing: none. An edit list also moves the track earlier by as much.
    pub edit_starts_ticks: &'a [u64],
}

/// The track_ID of a track in everything written here: its index in the config, from 1.
#[must_use]
pub fn track_id(track: u8) -> u32 {
    u32::from(track) + 1
}

/// The init segment of some tracks of a config (indexes into it): `cmfc` for one track, as CMAF has it, `iso6` for
/// several. None where an index is none of the config's, or MP4 has no place for a track's codec.
#[must_use]
pub fn encode(config: &StreamConfig, tracks: &[u8], options: InitOptions<'_>) -> Option<Bytes> {
    let mut chosen = Vec::with_capacity(tracks.len());
    for (position, index) in tracks.iter().enumerate() {
        let track = config.tracks.get(usize::from(*index))?;
        let edit_start_ticks = options.edit_starts_ticks.get(position).copied().unwrap_or(0);
        chosen.push(Chosen { id: track_id(*index), track, entry: sample_entry::encode(track)?, edit_start_ticks });
    }
    let mut out = Vec::with_capacity(1024);
    let major_brand = if chosen.len() == 1 { b"cmfc" } else { b"iso6" };
    let compatible_brands =
        [b"iso6", b"cmfc", b"mp41"].into_iter().filter(|brand| chosen.len() == 1 || *brand != b"cmfc");
    let compatible_brands = compatible_brands.map(Into::into).collect();
    put(&mut out, &Ftyp { major_brand: major_brand.into(), minor_version: 0, compatible_brands });
    write_box(&mut out, b"moov", |out| {
        let next_track_id = chosen.iter().map(|track| track.id + 1).max().unwrap_or(1);
        let (rate, volume) = (1.into(), 1.into());
        put(out, &Mvhd { timescale: MOVIE_TIMESCALE_HZ, rate, volume, next_track_id, ..Mvhd::default() });
        for track in &chosen {
            track.write(out);
        }
        let trex = |track: &Chosen<'_>| Trex {
            track_id: track.id,
            default_sample_description_index: 1,
            default_sample_duration: 0,
            default_sample_size: 0,
            default_sample_flags: 0,
        };
        put(out, &Mvex { mehd: None, trex: chosen.iter().map(trex).collect() });
    });
    Some(out.into())
}

struct Chosen<'a> {
    id: u32,
    track: &'a Track,
    entry: Bytes,
    edit_start_ticks: u64,
}

impl Chosen<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let track = self.track;
        write_box(out, b"trak", |out| {
            put(out, &self.tkhd());
            if self.edit_start_ticks > 0 {
                // A duration of 0: to the end of all fragments (section 8.6.6.1).
                let media_time = Some(self.edit_start_ticks.min(i64::MAX as u64));
                let entries = vec![ElstEntry { segment_duration: 0, media_time, media_rate: 1.into() }];
                put(out, &Edts { elst: Some(Elst { entries }) });
            }
            write_box(out, b"mdia", |out| {
                let language = iso_639_2(&track.language);
                put(out, &Mdhd { timescale: track.timescale_hz, language, ..Mdhd::default() });
                put(out, &handler(track.kind));
                write_box(out, b"minf", |out| self.write_minf(out));
            });
        });
    }

    fn tkhd(&self) -> Tkhd {
        let video = self.track.video.unwrap_or_default();
        let [width, height] = [video.width, video.height].map(|side| u16::try_from(side).unwrap_or(u16::MAX));
        Tkhd {
            track_id: self.id,
            enabled: true,
            in_movie: true,
            volume: u8::from(self.track.kind == TrackKind::Audio).into(),
            width: width.into(),
            height: height.into(),
            ..Tkhd::default()
        }
    }

    fn write_minf(&self, out: &mut Vec<u8>) {
        match self.track.kind {
            TrackKind::Video => put(out, &Vmhd::default()),
            TrackKind::Audio => put(out, &Smhd::default()),
            TrackKind::Subtitle | TrackKind::Data => put(out, &Nmhd {}),
        }
        put(out, &Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } });
        write_box(out, b"stbl", |out| {
            write_full_box(out, b"stsd", 0, 0, |out| {
                out.extend_from_slice(&1_u32.to_be_bytes());
                out.extend_from_slice(&self.entry);
            });
            put(out, &Stts::default());
            put(out, &Stsc::default());
            put(out, &Stsz { samples: StszSamples::Different { sizes: Vec::new() } });
            put(out, &Stco::default());
        });
    }
}

fn handler(kind: TrackKind) -> Hdlr {
    let (handler, name) = match kind {
        TrackKind::Video => (b"vide", "video"),
        TrackKind::Audio => (b"soun", "sound"),
        TrackKind::Subtitle => (b"text", "text"),
        TrackKind::Data => (b"meta", "data"),
    };
    Hdlr { handler: handler.into(), name: name.into() }
}

/// The three letters of `mdhd`; `und` where the track says nothing of that form.
fn iso_639_2(language: &str) -> String {
    let fits = language.len() == 3 && language.bytes().all(|letter| letter.is_ascii_lowercase());
    if fits { language.into() } else { "und".into() }
}

fn put(out: &mut Vec<u8>, value: &impl Encode) {
    value.encode(out).expect("a header box of known fields can be written to memory");
}
