//! GetHLSStreamingSessionURL and GetDASHStreamingSessionURL.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::control::StreamRecord;
use vidar_core::entry::SharedEntry;
use vidar_core::policy::Action;
use vidar_core::time::UnixMs;
use vidar_indexer::TimeAxis;
use vidar_player_api::hls::{target_s, with_configs};
use vidar_player_api::params::encode;

use super::listing::{live_beginning, ranged};
use super::session::{Container, Discontinuity, First, Maker, Mode, Session};
use super::{Kind, token};
use crate::Kvs;
use crate::call::{Call, members, required, within};
use crate::error::{ServiceError, ServiceResult};
use crate::playable::check_codec_private;
use crate::selector::{Range, Selector, axis};

/// Members of both.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    playback_mode: Option<String>,
    #[serde(rename = "HLSFragmentSelector", alias = "DASHFragmentSelector")]
    selector: Option<Selector>,
    container_format: Option<String>,
    discontinuity_mode: Option<String>,
    display_fragment_timestamp: Option<String>,
    display_fragment_number: Option<String>,
    expires: Option<i64>,
    #[serde(rename = "MaxMediaPlaylistFragmentResults", alias = "MaxManifestFragmentResults")]
    results: Option<i64>,
}

/// What was asked for, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    mode: Mode,
    container: Container,
    axis: TimeAxis,
    range: Option<Range>,
    discontinuity: Discontinuity,
    shows_times: bool,
    shows_numbers: bool,
    expires_s: i64,
    results: u16,
}

/// One of some words; none: that of `default`.
fn word<T: Copy>(name: &str, text: Option<&str>, default: T, words: &[(&str, T)]) -> ServiceResult<T> {
    let Some(text) = text else { return Ok(default) };
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        ServiceError::invalid(format!("{name}: {text:?} is none of {}.", known.join(", ")))
    })
}

impl Request {
    fn asked(self, now: UnixMs) -> ServiceResult<Asked> {
        let modes = [("LIVE", Mode::Live), ("LIVE_REPLAY", Mode::LiveReplay), ("ON_DEMAND", Mode::OnDemand)];
        let mode = word("PlaybackMode", self.playback_mode.as_deref(), Mode::Live, &modes)?;
        let (axis, range) = selected(mode, self.selector, now)?;
        let containers = [("FRAGMENTED_MP4", Container::Mp4), ("MPEG_TS", Container::Ts)];
        let container = word("ContainerFormat", self.container_format.as_deref(), Container::Mp4, &containers)?;
        let discontinuities = [
            ("ALWAYS", Discontinuity::Always),
            ("NEVER", Discontinuity::Never),
            ("ON_DISCONTINUITY", Discontinuity::AtBreaks),
        ];
        let default = match axis {
            TimeAxis::Producer => Discontinuity::Never,
            TimeAxis::Server => Discontinuity::Always,
        };
        let shows = [("ALWAYS", true), ("NEVER", false)];
        let results = self.results.unwrap_or(if mode == Mode::OnDemand { 1000 } else { 5 });
        Ok(Asked {
            mode,
            container,
            axis,
            range,
            discontinuity: word("DiscontinuityMode", self.discontinuity_mode.as_deref(), default, &discontinuities)?,
            shows_times: word("DisplayFragmentTimestamp", self.display_fragment_timestamp.as_deref(), false, &shows)?,
            shows_numbers: word("DisplayFragmentNumber", self.display_fragment_number.as_deref(), false, &shows)?,
            expires_s: within("Expires", self.expires.unwrap_or(300), 300, 43_200)?,
            results: within("The number of fragment results", results, 1, 5000)? as u16,
        })
    }
}

/// Whose clock counts, and the range of a mode that has one.
fn selected(mode: Mode, selector: Option<Selector>, now: UnixMs) -> ServiceResult<(TimeAxis, Option<Range>)> {
    let selector = selector.unwrap_or_default();
    let of_type = selector.fragment_selector_type.as_deref().map(axis).transpose()?;
    match mode {
        Mode::Live if selector.timestamp_range.is_some() => {
            Err(ServiceError::invalid("TimestampRange: not with the playback mode LIVE."))
        }
        Mode::Live => Ok((of_type.unwrap_or(TimeAxis::Server), None)),
        Mode::OnDemand => {
            let range = Range::closed(selector, now)?;
            Ok((range.axis, Some(range)))
        }
        Mode::LiveReplay => {
            let axis = required("FragmentSelectorType", of_type)?;
            let range = required("TimestampRange", selector.timestamp_range)?;
            let start = required("StartTimestamp", range.start_timestamp)?.0;
            // A replay may go on to what comes while it plays.
            let end = range.end_timestamp.map(|end| end.0);
            Ok((axis, Some(Range::new(axis, start, end, UnixMs(i64::MAX))?)))
        }
    }
}

pub(crate) async fn hls(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let call = Call { kvs: &kvs, who: &who, operation: "GetHLSStreamingSessionURL", action: Action::Read };
    let token = open(&call, Kind::Hls, security_token(&who, &uri, &headers), &body).await?;
    let url = format!("{}/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken={token}", kvs.options.public_url);
    Ok(Json(json!({ "HLSStreamingSessionURL": url })))
}

pub(crate) async fn dash(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let call = Call { kvs: &kvs, who: &who, operation: "GetDASHStreamingSessionURL", action: Action::Read };
    let token = open(&call, Kind::Dash, security_token(&who, &uri, &headers), &body).await?;
    let url = format!("{}/dash/v1/getDASHManifest.mpd?SessionToken={token}", kvs.options.public_url);
    Ok(Json(json!({ "DASHStreamingSessionURL": url })))
}

/// What temporary credentials came with; it was checked.
fn security_token(who: &Principal, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    if !who.is_temporary() {
        return None;
    }
    let in_header = headers.get("x-amz-security-token").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let in_query = || {
        let name = "X-Amz-Security-Token";
        let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(known, _)| *known == name)?;
        percent_encoding::percent_decode_str(value).decode_utf8().ok().map(|value| value.into_owned())
    };
    in_header.or_else(in_query)
}

/// Opens a session: its token.
async fn open(call: &Call<'_>, kind: Kind, session_token: Option<String>, body: &[u8]) -> ServiceResult<String> {
    let (kvs, now) = (call.kvs, call.kvs.clock.now());
    let request: Request = members(body)?;
    let stream = call.stream(request.stream_name.as_deref(), request.arn.as_deref())?;
    let asked = request.asked(now)?;
    if stream.settings.retention_hours == 0 {
        return Err(ServiceError::no_retention());
    }
    let beginning = beginning(kvs, &stream, &asked, now).await?;
    let first = beginning.first().ok_or_else(|| match asked.mode {
        Mode::Live => ServiceError::not_live(),
        _ => ServiceError::no_fragments(),
    })?;
    check_codec_private(kvs, first).await?;
    let durations = || beginning.iter().map(|entry| entry.meta.duration_ms);
    let maker = Maker { access_key_id: call.who.access_key_id.clone(), session_token };
    let session = Session {
        stream: stream.stream,
        name: stream.name.clone(),
        maker,
        mode: asked.mode,
        container: if kind == Kind::Hls { asked.container } else { Container::Mp4 },
        axis: asked.axis,
        range: asked.range,
        first: First { number: first.meta.number, ordinal: first.meta.ordinal, config: first.meta.config },
        began: now,
        expires: now.plus_ms(asked.expires_s * 1000),
        target_s: target_s(durations()),
        lead_ms: durations().map(u64::from).sum(),
        results: asked.results,
        discontinuity: asked.discontinuity,
        shows_times: asked.shows_times,
        shows_numbers: asked.shows_numbers,
    };
    let plan = with_configs(&kvs.player, beginning).await?;
    let plays = match session.container {
        Container::Mp4 => !plan.renditions().is_empty(),
        Container::Ts => plan.plays_as_ts(),
    };
    if !plays {
        return Err(ServiceError::unsupported_media("None of the stream's tracks can be played in a session."));
    }
    let secret = kvs.keys.secret(&session.maker.access_key_id, session.maker.session_token.as_deref());
    let (_, secret) = secret.map_err(|_| ServiceError::session_over())?;
    let token = token::make(&*kvs.sessions, kind, &session, &secret);
    let token = token.ok_or_else(|| {
        ServiceError::invalid("These credentials have a policy that is too long to be carried by a session URL.")
    })?;
    Ok(encode(&token))
}

/// What the first playlist shows.
async fn beginning(kvs: &Kvs, stream: &StreamRecord, asked: &Asked, now: UnixMs) -> ServiceResult<Vec<SharedEntry>> {
    let (player, stream, asked) = (Arc::clone(&kvs.player), stream.stream, *asked);
    let look = move || {
        let timeline = player.index.timeline();
        match &asked.range {
            None => live_beginning(timeline, stream, asked.results, now),
            Some(range) => {
                let mut fragments = ranged(timeline, stream, range, asked.mode, asked.results);
                fragments.truncate(asked.results.into());
                fragments
            }
        }
    };
    kvs.look(look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000_000);

    fn asked(body: Value) -> ServiceResult<Asked> {
        members::<Request>(body.to_string().as_bytes())?.asked(NOW)
    }

    #[test]
    fn what_is_not_said() {
        let live = asked(json!({})).unwrap();
        assert_eq!((live.mode, live.axis, live.range), (Mode::Live, TimeAxis::Server, None));
        assert_eq!((live.discontinuity, live.results, live.expires_s), (Discontinuity::Always, 5, 300));
        assert!(!live.shows_times && !live.shows_numbers);
        let selector = |kind: &str| json!({ "FragmentSelectorType": kind, "TimestampRange": { "StartTimestamp": 1, "EndTimestamp": 2 } });
        let demand =
            asked(json!({ "PlaybackMode": "ON_DEMAND", "DASHFragmentSelector": selector("PRODUCER_TIMESTAMP") }))
                .unwrap();
        assert_eq!((demand.discontinuity, demand.results), (Discontinuity::Never, 1000));
        let (start, end) = (UnixMs(1000), Some(UnixMs(2000)));
        assert_eq!(demand.range, Some(Range { axis: TimeAxis::Producer, start, end }));
    }

    #[test]
    fn what_may_not_be_asked_for() {
        let range = json!({ "StartTimestamp": 1, "EndTimestamp": 2 });
        let selector = json!({ "FragmentSelectorType": "SERVER_TIMESTAMP", "TimestampRange": range });
        for bad in [
            json!({ "PlaybackMode": "REPLAY" }),
            json!({ "HLSFragmentSelector": selector }),
            json!({ "HLSFragmentSelector": { "FragmentSelectorType": "CLOCK" } }),
            json!({ "PlaybackMode": "ON_DEMAND" }),
            json!({ "PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": { "TimestampRange": range } }),
            json!({ "PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": {
                "FragmentSelectorType": "SERVER_TIMESTAMP", "TimestampRange": { "StartTimestamp": 1 } } }),
            json!({ "PlaybackMode": "LIVE_REPLAY", "HLSFragmentSelector": {
                "FragmentSelectorType": "SERVER_TIMESTAMP", "TimestampRange": { "EndTimestamp": 1 } } }),
            json!({ "PlaybackMode": "LIVE_REPLAY", "HLSFragmentSelector": { "FragmentSelectorType": "SERVER_TIMESTAMP" } }),
            json!({ "ContainerFormat": "MKV" }),
            json!({ "DiscontinuityMode": "SOMETIMES" }),
            json!({ "DisplayFragmentTimestamp": "YES" }),
            json!({ "DisplayFragmentNumber": true }),
            json!({ "Expires": 299 }),
            json!({ "Expires": 43_201 }),
            json!({ "Expires": "300" }),
            json!({ "MaxMediaPlaylistFragmentResults": 0 }),
            json!({ "MaxManifestFragmentResults": 5001 }),
            json!({ "MaxMediaPlaylistFragmentResults": i64::MIN }),
        ] {
            assert!(asked(bad.clone()).is_err(), "{bad}");
        }
    }
}
