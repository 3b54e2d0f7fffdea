//! URIs below session URLs.

use vidar_core::entry::SharedEntry;
use vidar_core::ids::{ConfigId, FragmentNumber};
use vidar_player_api::hls::{Names, RenditionId};

use super::session::{Container, Session};

/// How the playlists of a session write them.
pub(super) struct SessionNames<'a> {
    pub(super) session: &'a Session,
    /// Empty: the base of the URIs has it.
    pub(super) token: &'a str,
}

/// `SequenceNumber` of an init segment: 0 for the config that the session began with. Others are not counted, as what
/// was before is not known to a playlist that slides: they go by their id.
pub(super) fn sequence(session: &Session, config: ConfigId) -> u128 {
    if config == session.first.config { 0 } else { u128::from_be_bytes(config.0) }
}

impl SessionNames<'_> {
    /// `SessionToken=…&`; nothing in manifests, whose base has the token.
    fn token_first(&self) -> String {
        if self.token.is_empty() { String::new() } else { format!("SessionToken={}&", self.token) }
    }
}

impl Names for SessionNames<'_> {
    fn playlist(&self, id: RenditionId) -> String {
        format!("getHLSMediaPlaylist.m3u8?{}TrackNumber={}", self.token_first(), id.track_number())
    }

    fn init(&self, id: RenditionId, entry: &SharedEntry) -> String {
        let (token, track) = (self.token_first(), id.track_number());
        let sequence = sequence(self.session, entry.meta.config);
        format!("getMP4InitFragment.mp4?{token}TrackNumber={track}&SequenceNumber={sequence}")
    }

    fn segment(&self, id: RenditionId, number: FragmentNumber) -> String {
        let (token, track) = (self.token_first(), id.track_number());
        match self.session.container {
            Container::Mp4 => {
                format!("getMP4MediaFragment.mp4?FragmentNumber={number}&{token}TrackNumber={track}")
            }
            Container::Ts => format!("getTSFragment.ts?FragmentNumber={number}&SessionToken={}", self.token),
        }
    }

    fn missing(&self, id: RenditionId, _ordinal: u64) -> String {
        self.segment(id, FragmentNumber::MIN)
    }
}
