//! What a client has announced and set up on its connection (RFC 2326 section A.2: Init, Ready, Recording).

use std::net::SocketAddr;
use std::time::Duration;

use rtsp_types::Url;
use vidar_core::auth::Principal;
use vidar_core::ids::StreamName;
use vidar_core::limits::TRACK_COUNT_MAX;

use super::depacketize::{self, Depacketize};
use super::media::Media;
use super::message::Answer;
use super::outlet::Outlet;
use super::reorder::Patience;
use super::sdp::{self, Description};
use super::source::Source;
use super::transport::Wanted;
use super::udp::UdpPair;

/// A refusal, as an answer.
pub(crate) type Refused = Answer;

/// How packets of a track come in.
pub(crate) enum Path {
    Interleaved { rtp: u8, rtcp: u8 },
    Udp(Box<UdpPair>),
}

/// A media section that was set up.
pub(crate) struct SetUp {
    /// Position in the announced text.
    pub(crate) section: usize,
    pub(crate) path: Path,
    /// Index into the tracks of [`Media`]; none if the section is not understood.
    pub(crate) track: Option<usize>,
}

/// Media being taken.
pub(crate) struct Recording {
    pub(crate) media: Media,
    pub(crate) outlet: Outlet,
    /// By the monotonic clock.
    pub(crate) next_report: Duration,
}

/// A session.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) stream: StreamName,
    /// Who announced it: nobody else goes on with it.
    pub(crate) owner: Principal,
    pub(crate) uri: Url,
    pub(crate) description: Description,
    pub(crate) set_up: Vec<SetUp>,
    pub(crate) recording: Option<Recording>,
}

impl Session {
    /// Takes an announcement. At least one of its tracks must be one that we read.
    pub(crate) fn announce(
        id: String,
        stream: StreamName,
        owner: Principal,
        uri: Url,
        text: &[u8],
    ) -> Result<Self, Refused> {
        let description = Description::parse(text).map_err(|error| {
            tracing::info!(%error, "announcement refused");
            Answer::new(400, &format!("Bad Request: SDP: {error}"))
        })?;
        let mut readable = 0;
        let mut reasons = Vec::new();
        for media in &description.medias {
            match depacketize::choose(media) {
                Ok(_) => readable += 1,
                Err(reason) => {
                    tracing::warn!(section = media.index, kind = media.kind, reason, "track left out");
                    reasons.push(reason);
                }
            }
        }
        if readable == 0 {
            return Err(Answer::new(415, &format!("Unsupported Media Type: {}", reasons.join("; "))));
        }
        if readable > TRACK_COUNT_MAX {
            return Err(Answer::new(413, "Request Entity Too Large: more than 10 tracks"));
        }
        Ok(Self { id, stream, owner, uri, description, set_up: Vec::new(), recording: None })
    }

    /// Sets a section up, or again. Answers with its Transport field.
    pub(crate) async fn set_up(
        &mut self,
        section: usize,
        wanted: Wanted,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<String, Refused> {
        self.set_up.retain(|other| other.section != section);
        let (path, field) = match wanted {
            Wanted::Interleaved(pair) => {
                let (rtp, rtcp) = self.free_channels(pair).ok_or_else(|| Answer::new(461, "Unsupported Transport"))?;
                let field = format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp};mode=record");
                (Path::Interleaved { rtp, rtcp }, field)
            }
            Wanted::Udp(rtp_port, rtcp_port) => {
                let unavailable = |error: std::io::Error| {
                    tracing::warn!(%error, "no UDP ports");
                    Answer::new(503, "Service Unavailable: no UDP ports")
                };
                let pair = UdpPair::bind(local.ip(), peer.ip().to_canonical(), rtcp_port).await.map_err(unavailable)?;
                let port = pair.port().map_err(unavailable)?;
                let client = format!("client_port={rtp_port}-{rtcp_port}");
                let field = format!("RTP/AVP;unicast;{client};server_port={port}-{};mode=record", port + 1);
                (Path::Udp(Box::new(pair)), field)
            }
        };
        self.set_up.push(SetUp { section, path, track: None });
        Ok(field)
    }

    /// The client's choice unless another track has it, else the first free pair.
    fn free_channels(&self, wanted: Option<(u8, u8)>) -> Option<(u8, u8)> {
        let taken = |channel: u8| {
            self.set_up.iter().any(|set_up| match set_up.path {
                Path::Interleaved { rtp, rtcp } => channel == rtp || channel == rtcp,
                Path::Udp(_) => false,
            })
        };
        let pairs = (0..=127_u8).map(|n| (2 * n, 2 * n + 1));
        wanted.into_iter().chain(pairs).find(|(rtp, rtcp)| !taken(*rtp) && !taken(*rtcp))
    }

    /// True if packets come whether they are read or not.
    pub(crate) fn has_udp(&self) -> bool {
        self.set_up.iter().any(|set_up| matches!(set_up.path, Path::Udp(_)))
    }

    /// The receiving ends of what was set up. Sections that are not understood are set up, and their packets ignored.
    pub(crate) fn media(&mut self, wait: Duration) -> Media {
        let mut media = Media::new(wait);
        let mut count = 0;
        // In the order of the announcement, whatever the order of SETUP.
        self.set_up.sort_by_key(|set_up| set_up.section);
        for set_up in &mut self.set_up {
            let section = &self.description.medias[set_up.section];
            let Ok(depacketizer) = depacketize::choose(section) else { continue };
            media.add(source(section, depacketizer, &set_up.path), section.clock_hz);
            set_up.track = Some(count);
            count += 1;
        }
        media
    }

    /// The track and kind of an interleaved channel.
    pub(crate) fn channel(&self, channel: u8) -> Option<(Option<usize>, bool)> {
        self.set_up.iter().find_map(|set_up| match set_up.path {
            Path::Interleaved { rtp, .. } if rtp == channel => Some((set_up.track, false)),
            Path::Interleaved { rtcp, .. } if rtcp == channel => Some((set_up.track, true)),
            _ => None,
        })
    }

    /// Sends receiver reports over UDP, and gives those that go interleaved.
    pub(crate) fn report(&mut self, own_ssrc: u32, now: Duration) -> Vec<u8> {
        let mut frames = Vec::new();
        let Some(recording) = &mut self.recording else { return frames };
        for set_up in &self.set_up {
            let Some(track) = set_up.track else { continue };
            let Some(report) = recording.media.report(track, own_ssrc, now) else { continue };
            match &set_up.path {
                Path::Udp(pair) => pair.send_report(&report),
                Path::Interleaved { rtcp, .. } => {
                    frames.extend([b'$', *rtcp]);
                    frames.extend((report.len() as u16).to_be_bytes());
                    frames.extend(report);
                }
            }
        }
        frames
    }

    /// The UDP ports, each with the position of its track.
    pub(crate) fn udp(&mut self) -> impl Iterator<Item = (usize, &mut UdpPair)> {
        self.set_up.iter_mut().enumerate().filter_map(|(position, set_up)| match &mut set_up.path {
            Path::Udp(pair) => Some((position, &mut **pair)),
            Path::Interleaved { .. } => None,
        })
    }
}

fn source(section: &sdp::Media, depacketizer: Box<dyn Depacketize>, path: &Path) -> Source {
    let patience = if matches!(path, Path::Udp(_)) { Patience::UDP } else { Patience::NONE };
    Source::new(section.payload_type, section.clock_hz, depacketizer, patience)
}
