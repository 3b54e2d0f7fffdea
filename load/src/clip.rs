//! The clip that publishers send: made by ffmpeg once, kept, and taken apart into frames.
//!
//! 1280x720 at 30 frames/s, H.264 without B-frames at 2 Mbit/s or as wanted, and AAC at 48 kHz. It repeats without a seam: 8 s are 240
//! pictures and exactly 375 AAC frames. Only what ffmpeg writes is read here; nothing is shared with the server's parsers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// Of video, where nothing else is said.
pub(crate) const VIDEO_KBIT: u16 = 2000;
pub(crate) const FRAMES_PER_SECOND: u64 = 30;
pub(crate) const AUDIO_HZ: u64 = 48_000;
/// Samples in an AAC frame.
pub(crate) const AUDIO_FRAME: u64 = 1024;
/// The shortest time that both whole pictures and whole AAC frames fill.
const SEAMLESS_S: u64 = 8;

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// NAL units, each behind its length in 4 bytes.
    pub(crate) data: Vec<u8>,
    pub(crate) sync: bool,
}

/// One turn of what is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clip {
    /// One every 1/30 s.
    pub(crate) pictures: Vec<Picture>,
    /// One every 1024/48000 s.
    pub(crate) audio: Vec<Vec<u8>>,
    /// AVCDecoderConfigurationRecord (ISO/IEC 14496-15).
    pub(crate) avcc: Vec<u8>,
    /// AudioSpecificConfig (ISO/IEC 14496-3).
    pub(crate) audio_config: Vec<u8>,
    /// Matroska up to the first cluster.
    pub(crate) matroska_header: Vec<u8>,
    /// `ftyp` and `moov` without samples; 90 kHz and 48 kHz.
    pub(crate) mp4_header: Vec<u8>,
    pub(crate) gop_s: u64,
}

impl Clip {
    /// Out of `folder`; made there if it is missing. `gop_s`: seconds between keyframes.
    pub(crate) fn load(folder: &Path, gop_s: u64, video_kbit: u16) -> anyhow::Result<Self> {
        let [matroska, mp4] = ["mkv", "mp4"].map(|ext| folder.join(format!("clip-{gop_s}s-{video_kbit}k.{ext}")));
        let loop_s = loop_s(gop_s);
        if !mp4.is_file() {
            fs::create_dir_all(folder)?;
            encode(&matroska, gop_s, loop_s, video_kbit)?;
            let arguments = "-c copy -t 1 -video_track_timescale 90000 -f mp4 \
                -movflags frag_keyframe+empty_moov+default_base_moof";
            ffmpeg(&["-i", &matroska.to_string_lossy()], arguments, &mp4)?;
        }
        let mut clip = Self { gop_s, ..Self::default() };
        clip.read_matroska(&fs::read(&matroska).with_context(|| matroska.display().to_string())?)?;
        let mp4 = fs::read(&mp4)?;
        let moof = mp4.windows(4).position(|window| window == b"moof").context("no moof in ffmpeg's MP4")?;
        clip.mp4_header = mp4[..moof - 4].to_vec();
        let (pictures, audio) = (loop_s * FRAMES_PER_SECOND, loop_s * AUDIO_HZ / AUDIO_FRAME);
        ensure!(clip.pictures.len() as u64 >= pictures && clip.audio.len() as u64 >= audio, "the clip is too short");
        clip.pictures.truncate(pictures as usize);
        clip.audio.truncate(audio as usize);
        let keyframes = clip.pictures.iter().enumerate().filter(|(_, picture)| picture.sync).map(|(index, _)| index);
        let wanted = (0..loop_s / gop_s).map(|gop| (gop * gop_s * FRAMES_PER_SECOND) as usize);
        ensure!(keyframes.eq(wanted), "keyframes are not where they were asked for");
        Ok(clip)
    }

    /// Of one turn.
    pub(crate) fn loop_us(&self) -> u64 {
        self.pictures.len() as u64 * 1_000_000 / FRAMES_PER_SECOND
    }

    fn read_matroska(&mut self, file: &[u8]) -> anyhow::Result<()> {
        let mut at = 0;
        let mut private = Vec::new();
        while let Some((id, body, end)) = element(file, at) {
            let start = std::mem::replace(&mut at, end);
            match id {
                // Segment, Tracks, TrackEntry, BlockGroup: what is inside follows.
                0x1853_8067 | 0x1654_AE6B | 0xAE | 0xA0 => at = body,
                0x1F43_B675 => {
                    if self.matroska_header.is_empty() {
                        self.matroska_header = file[..start].to_vec();
                    }
                    at = body;
                }
                0x63A2 => private.push(file[body..end].to_vec()),
                // SimpleBlock, Block: track, 16 bits of time, flags, one frame.
                0xA3 | 0xA1 => match &file[body..end] {
                    [0x81, _, _, flags, data @ ..] => {
                        self.pictures.push(Picture { data: data.to_vec(), sync: flags & 0x80 != 0 });
                    }
                    [0x82, _, _, _, data @ ..] => self.audio.push(data.to_vec()),
                    _ => bail!("a block of neither track"),
                },
                _ => {}
            }
        }
        ensure!(at == file.len(), "ffmpeg's Matroska does not read at byte {at}");
        [self.avcc, self.audio_config] =
            private.try_into().map_err(|_| anyhow::anyhow!("not two CodecPrivate in ffmpeg's Matroska"))?;
        Ok(())
    }
}

/// Seconds of a turn that holds whole GOPs, pictures and AAC frames.
fn loop_s(gop_s: u64) -> u64 {
    (1..).map(|turns| turns * SEAMLESS_S).find(|length| length % gop_s == 0).expect("a common multiple")
}

fn encode(path: &Path, gop_s: u64, loop_s: u64, video_kbit: u16) -> anyhow::Result<()> {
    let frames = gop_s * FRAMES_PER_SECOND;
    let arguments = format!(
        "-t {} -vf noise=alls=12:allf=t -c:v libx264 -preset veryfast -pix_fmt yuv420p -bf 0 -b:v {video_kbit}k \
         -maxrate {video_kbit}k -bufsize {video_kbit}k -g {frames} -keyint_min {frames} -sc_threshold 0 -c:a aac -b:a 128k -f matroska -live 1",
        loop_s + 1
    );
    let inputs =
        ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30", "-f", "lavfi", "-i", "sine=f=440:sample_rate=48000"];
    ffmpeg(&inputs, &arguments, path)
}

/// Writes beside `path` and renames, so that a file that is there is whole.
fn ffmpeg(inputs: &[&str], arguments: &str, path: &Path) -> anyhow::Result<()> {
    let unfinished = path.with_extension("part");
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-y"])
        .args(inputs)
        .args(arguments.split_whitespace())
        .arg(&unfinished)
        .stdin(Stdio::null())
        .status()
        .context("ffmpeg")?;
    ensure!(status.success(), "ffmpeg: {status}");
    Ok(fs::rename(unfinished, path)?)
}

/// Identifier, first byte of the body and the byte after it (RFC 8794). A body of unknown length reaches to the end.
fn element(file: &[u8], at: usize) -> Option<(u32, usize, usize)> {
    let id_len = file.get(at)?.leading_zeros() as usize + 1;
    let id = file.get(at..at + id_len)?.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    let first = *file.get(at + id_len)?;
    let size_len = first.leading_zeros() as usize + 1;
    let body = at + id_len + size_len;
    let size = file.get(at + id_len..body)?.iter().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    let unknown = (1_u64 << (7 * size_len)) - 1;
    let size = size & unknown;
    if size == unknown {
        return Some((id, body, file.len()));
    }
    let end = body + usize::try_from(size).ok()?;
    (end <= file.len()).then_some((id, body, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_holds_whole_gops_and_whole_aac_frames() {
        assert_eq!([1, 2, 5, 20].map(loop_s), [8, 8, 40, 40]);
        assert_eq!(SEAMLESS_S * AUDIO_HZ % AUDIO_FRAME, 0);
    }

    #[test]
    fn elements_are_found_and_cut_ones_are_not() {
        assert_eq!(element(&[0xA3, 0x82, 1, 2], 0), Some((0xA3, 2, 4)));
        assert_eq!(element(&[0x1F, 0x43, 0xB6, 0x75, 0xFF, 9, 9], 0), Some((0x1F43_B675, 5, 7)));
        assert_eq!(element(&[0xA3, 0x83, 1, 2], 0), None);
        assert_eq!(element(&[], 0), None);
    }
}
