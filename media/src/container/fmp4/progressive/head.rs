//! The boxes that do not grow with the samples, and the regions of the file.

use vidar_core::track::TrackKind;

use super::{Column, Content, Edit, LayoutError, MovieHead, Region, TrackColumns, TrackHead};
use crate::container::fmp4::boxes::{FourCc, write_box, write_full_box};

/// Unity (section 8.2.2).
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Collects regions; bytes that follow one another become one.
#[derive(Default)]
struct Regions {
    done: Vec<Region>,
    len: u64,
    fixed: Vec<u8>,
}

impl Regions {
    fn fixed(&mut self, bytes: &[u8]) {
        self.fixed.extend_from_slice(bytes);
    }

    fn content(&mut self, content: Content, len: u64) {
        let fixed = std::mem::take(&mut self.fixed);
        let fixed = (fixed.len() as u64, Content::Fixed(fixed.into()));
        for (len, content) in [fixed, (len, content)] {
            if len > 0 {
                self.done.push(Region { start: self.len, len, content });
                self.len += len;
            }
        }
    }
}

/// A box whose last bytes are a column.
struct ColumnBox {
    column: Column,
    /// From the box's size on to the entries.
    head: Vec<u8>,
    entries_len: u64,
}

/// The regions of a file, and where its media starts.
pub(super) fn regions(
    movie: &MovieHead,
    heads: &[TrackHead],
    tracks: &[TrackColumns],
    media_len: u64,
) -> Result<(Vec<Region>, u64), LayoutError> {
    let mut traks = Vec::with_capacity(tracks.len());
    for (index, (head, columns)) in heads.iter().zip(tracks).enumerate() {
        let track_id = u32::try_from(index + 1).map_err(|_| LayoutError::TooLarge { what: "tracks" })?;
        traks.push(trak(track_id, movie, head, columns)?);
    }
    let mut mvhd = Vec::new();
    write_mvhd(&mut mvhd, movie, tracks.len());
    let moov_len = 8 + mvhd.len() as u64 + traks.iter().map(Trak::len).sum::<u64>();

    let mut regions = Regions::default();
    write_ftyp(&mut regions.fixed);
    regions.fixed(&box_header(b"moov", moov_len)?);
    regions.fixed(&mvhd);
    for (track, trak) in traks.into_iter().enumerate() {
        regions.fixed(&trak.fixed);
        for ColumnBox { column, head, entries_len } in trak.columns {
            regions.fixed(&head);
            regions.content(Content::Column { track, column }, entries_len);
        }
    }
    // A 64-bit size, whatever the length.
    regions.fixed(&1_u32.to_be_bytes());
    regions.fixed(b"mdat");
    regions.fixed(&(media_len + 16).to_be_bytes());
    regions.content(Content::Media, media_len);
    let media_start = regions.len - media_len;
    Ok((regions.done, media_start))
}

struct Trak {
    /// From the `trak` header on to the first column box.
    fixed: Vec<u8>,
    columns: Vec<ColumnBox>,
}

impl Trak {
    fn len(&self) -> u64 {
        self.fixed.len() as u64 + self.columns.iter().map(ColumnBox::len).sum::<u64>()
    }
}

impl ColumnBox {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.entries_len
    }

    fn new(columns: &TrackColumns, column: Column) -> Result<Self, LayoutError> {
        let counts = columns.counts(column);
        let count = counts[counts.len() - 1];
        let entries_len = u64::from(count) * column.entry_len();
        let (kind, version): (&FourCc, u32) = match column {
            Column::Stts => (b"stts", 0),
            Column::Ctts => (b"ctts", 1),
            Column::Stss => (b"stss", 0),
            Column::Stsz => (b"stsz", 0),
            Column::Stsc => (b"stsc", 0),
            Column::Co64 => (b"co64", 0),
        };
        // `stsz`: sample_size 0, every sample has an entry.
        let fields: &[u32] = if column == Column::Stsz { &[0, count] } else { &[count] };
        let mut head = box_header(kind, 12 + fields.len() as u64 * 4 + entries_len)?.to_vec();
        for word in [version << 24].iter().chain(fields) {
            head.extend_from_slice(&word.to_be_bytes());
        }
        Ok(Self { column, head, entries_len })
    }
}

fn trak(track_id: u32, movie: &MovieHead, head: &TrackHead, columns: &TrackColumns) -> Result<Trak, LayoutError> {
    let mut stsd = Vec::new();
    write_stsd(&mut stsd, head);
    let present = |column: &Column| match column {
        Column::Ctts => columns.has_offsets,
        // Absent: every sample is a sync sample.
        Column::Stss => head.kind == TrackKind::Video && !columns.all_sync(),
        _ => true,
    };
    let boxes = Column::ALL.into_iter().filter(present).map(|column| ColumnBox::new(columns, column));
    let boxes = boxes.collect::<Result<Vec<_>, _>>()?;

    let mut before_mdia = Vec::new();
    write_tkhd(&mut before_mdia, track_id, movie, head);
    write_edts(&mut before_mdia, &head.edits);
    let mut before_minf = Vec::new();
    write_mdhd(&mut before_minf, movie, head);
    write_hdlr(&mut before_minf, head.kind);
    let mut before_stbl = Vec::new();
    write_media_header(&mut before_stbl, head.kind);
    write_dinf(&mut before_stbl);

    let stbl_len = 8 + stsd.len() as u64 + boxes.iter().map(ColumnBox::len).sum::<u64>();
    let minf_len = 8 + before_stbl.len() as u64 + stbl_len;
    let mdia_len = 8 + before_minf.len() as u64 + minf_len;
    let trak_len = 8 + before_mdia.len() as u64 + mdia_len;
    let mut fixed = box_header(b"trak", trak_len)?.to_vec();
    fixed.extend(before_mdia);
    fixed.extend(box_header(b"mdia", mdia_len)?);
    fixed.extend(before_minf);
    fixed.extend(box_header(b"minf", minf_len)?);
    fixed.extend(before_stbl);
    fixed.extend(box_header(b"stbl", stbl_len)?);
    fixed.extend(stsd);
    Ok(Trak { fixed, columns: boxes })
}

fn box_header(kind: &FourCc, len: u64) -> Result<[u8; 8], LayoutError> {
    let size = u32::try_from(len).map_err(|_| LayoutError::TooLarge { what: "moov over 4 GiB" })?;
    let [a, b, c, d] = size.to_be_bytes();
    let [e, f, g, h] = *kind;
    Ok([a, b, c, d, e, f, g, h])
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// `iso4` is the first brand with signed composition offsets (annex E).
fn write_ftyp(out: &mut Vec<u8>) {
    write_box(out, b"ftyp", |out| {
        out.extend_from_slice(b"isom\0\0\x02\0isomiso4mp42");
    });
}

fn write_mvhd(out: &mut Vec<u8>, movie: &MovieHead, track_count: usize) {
    write_full_box(out, b"mvhd", 1, 0, |out| {
        out.extend_from_slice(&movie.creation_s.to_be_bytes());
        out.extend_from_slice(&movie.creation_s.to_be_bytes());
        words(out, &[movie.timescale_hz]);
        out.extend_from_slice(&movie.duration_ticks.to_be_bytes());
        // Rate 1.0, volume 1.0.
        words(out, &[0x1_0000, 0x0100_0000, 0, 0]);
        words(out, &MATRIX);
        words(out, &[0; 6]);
        words(out, &[u32::try_from(track_count + 1).unwrap_or(u32::MAX)]);
    });
}

fn write_tkhd(out: &mut Vec<u8>, track_id: u32, movie: &MovieHead, head: &TrackHead) {
    let duration: u64 = head.edits.iter().map(|edit| edit.duration_ticks).sum();
    // Enabled, in the movie.
    write_full_box(out, b"tkhd", 1, 3, |out| {
        out.extend_from_slice(&movie.creation_s.to_be_bytes());
        out.extend_from_slice(&movie.creation_s.to_be_bytes());
        words(out, &[track_id, 0]);
        out.extend_from_slice(&duration.to_be_bytes());
        let volume = if head.kind == TrackKind::Audio { 0x0100_0000 } else { 0 };
        words(out, &[0, 0, 0, volume]);
        words(out, &MATRIX);
        // 16.16 fixed point.
        words(out, &[head.width.min(0xffff) << 16, head.height.min(0xffff) << 16]);
    });
}

fn write_edts(out: &mut Vec<u8>, edits: &[Edit]) {
    if edits.is_empty() {
        return;
    }
    write_box(out, b"edts", |out| {
        write_full_box(out, b"elst", 1, 0, |out| {
            words(out, &[u32::try_from(edits.len()).unwrap_or(u32::MAX)]);
            for edit in edits {
                out.extend_from_slice(&edit.duration_ticks.to_be_bytes());
                out.extend_from_slice(&edit.media_time_ticks.unwrap_or(u64::MAX).to_be_bytes());
                words(out, &[0x1_0000]);
            }
        });
    });
}

fn write_mdhd(out: &mut Vec<u8>, movie: &MovieHead, head: &TrackHead) {
    write_full_box(out, b"mdhd", 1, 0, |out| {
        out.extend_from_slice(&movie.creation_s.to_be_bytes());
        out.extend_from_slice(&movie.creation_s.to_be_bytes());
        words(out, &[head.timescale_hz]);
        out.extend_from_slice(&head.duration_ticks.to_be_bytes());
        out.extend_from_slice(&language_code(&head.language).to_be_bytes());
        out.extend_from_slice(&[0; 2]);
    });
}

/// ISO 639-2, five bits a letter (section 8.4.2); `und` for what is none.
fn language_code(language: &str) -> u16 {
    let letters = match *language.as_bytes() {
        [a, b, c] if [a, b, c].iter().all(u8::is_ascii_lowercase) => [a, b, c],
        _ => *b"und",
    };
    letters.iter().fold(0, |code, letter| code << 5 | u16::from(letter - 0x60))
}

fn write_hdlr(out: &mut Vec<u8>, kind: TrackKind) {
    let (handler, name): (&FourCc, &[u8]) =
        if kind == TrackKind::Video { (b"vide", b"video\0") } else { (b"soun", b"sound\0") };
    write_full_box(out, b"hdlr", 0, 0, |out| {
        words(out, &[0]);
        out.extend_from_slice(handler);
        words(out, &[0; 3]);
        out.extend_from_slice(name);
    });
}

fn write_media_header(out: &mut Vec<u8>, kind: TrackKind) {
    match kind {
        TrackKind::Video => write_full_box(out, b"vmhd", 0, 1, |out| out.extend_from_slice(&[0; 8])),
        _ => write_full_box(out, b"smhd", 0, 0, |out| out.extend_from_slice(&[0; 4])),
    }
}

/// The media is in this file (section 8.7.2).
fn write_dinf(out: &mut Vec<u8>) {
    write_box(out, b"dinf", |out| {
        write_full_box(out, b"dref", 0, 0, |out| {
            words(out, &[1]);
            write_full_box(out, b"url ", 0, 1, |_| {});
        });
    });
}

fn write_stsd(out: &mut Vec<u8>, head: &TrackHead) {
    write_full_box(out, b"stsd", 0, 0, |out| {
        words(out, &[u32::try_from(head.sample_entries.len()).unwrap_or(u32::MAX)]);
        for entry in &head.sample_entries {
            out.extend_from_slice(entry);
        }
    });
}
