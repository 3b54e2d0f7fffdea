//! What is answered to each method (RFC 2326 section 10).

use rtsp_types::headers::{AUTHORIZATION, CONTENT_TYPE, REQUIRE, SESSION, TRANSPORT, USER_AGENT};
use rtsp_types::{Method, Request, Url, Version};
use uuid::Uuid;
use vidar_core::auth::Principal;
use vidar_core::ids::StreamName;
use vidar_core::policy::{Action, Target};

use super::auth::Denied;
use super::connection::{Connection, DATAGRAM_BYTES_MAX, End, REPORT_INTERVAL};
use super::message::{Answer, header};
use super::outlet::Outlet;
use super::session::{Path, Recording, Refused, Session};
use super::{transport, uri};

const PUBLIC: &str = "OPTIONS, ANNOUNCE, SETUP, RECORD, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";

impl Connection {
    /// Does what is asked. An error ends the connection.
    pub(super) async fn answer(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, End> {
        if request.version() != Version::V1_0 {
            return Ok(Answer::new(505, "RTSP Version Not Supported"));
        }
        if request.method() == Method::Options {
            return Ok(self.with_session(Answer::ok().field("Public", PUBLIC)));
        }
        let principal = match self.authorize(request) {
            Ok(principal) => principal,
            Err(refused) => return Ok(refused),
        };
        if let Some(features) = header(request, &REQUIRE) {
            return Ok(Answer::new(551, "Option not supported").field("Unsupported", features));
        }
        if let Some(refused) = self.check_session(request) {
            return Ok(refused);
        }
        let answered = match request.method() {
            Method::Announce => self.announce(request, principal),
            Method::Setup => self.set_up(request).await,
            Method::Record => self.record(request).await,
            Method::Pause => return self.pause(request).await,
            Method::Teardown => return self.teardown(request).await,
            Method::GetParameter => Ok(self.with_session(Answer::ok())),
            Method::SetParameter => self.set_parameter(request),
            Method::Describe | Method::Play => {
                Err(Answer::new(405, "Method Not Allowed: playback is over HTTP").field("Allow", PUBLIC))
            }
            _ => Err(Answer::new(501, "Not Implemented").field("Public", PUBLIC)),
        };
        Ok(answered.unwrap_or_else(|refused| refused))
    }

    fn authorize(&mut self, request: &Request<Vec<u8>>) -> Result<Principal, Refused> {
        let method: &str = request.method().into();
        let authorization = header(request, &AUTHORIZATION);
        match self.challenge.check(&*self.options.auth, method, request.request_uri(), authorization) {
            Ok(principal) => {
                tracing::trace!(access_key_id = principal.access_key_id, "authorised");
                (self.authorized, self.denied_count) = (true, 0);
                if self.may(&principal, request) {
                    return Ok(principal);
                }
                Err(Answer::new(403, "Forbidden: this access key does not allow that"))
            }
            Err(denied) => {
                if denied == Denied::Wrong {
                    self.denied_count += 1;
                    tracing::warn!(count = self.denied_count, "wrong credentials");
                }
                let answer = Answer::new(401, "Unauthorized");
                let fields = self.challenge.fields(denied);
                Err(fields.iter().fold(answer, |answer, field| answer.field("WWW-Authenticate", field)))
            }
        }
    }

    /// A session is of who announced it, and each request of it needs what the announcement did: keys change.
    fn may(&self, principal: &Principal, request: &Request<Vec<u8>>) -> bool {
        let announced = request.request_uri().filter(|_| request.method() == Method::Announce);
        let announced = announced.and_then(|uri| uri::stream_name(uri).ok());
        let push = |stream: &StreamName| principal.may(Action::Push, Target::Stream(stream.as_str()));
        let session = self.session.as_ref();
        session.is_none_or(|session| session.owner.access_key_id == principal.access_key_id && push(&session.stream))
            && announced.is_none_or(|stream| push(&stream))
    }

    /// RFC 2326 section 12.37. A request without the field means the session of its connection.
    fn check_session(&self, request: &Request<Vec<u8>>) -> Option<Refused> {
        let given = header(request, &SESSION)?.split(';').next().unwrap_or_default().trim();
        let ours = self.session.as_ref().is_some_and(|session| session.id == given);
        (!ours).then(|| Answer::new(454, "Session Not Found"))
    }

    fn with_session(&self, answer: Answer) -> Answer {
        match &self.session {
            Some(session) if !session.set_up.is_empty() => {
                let timeout = self.options.session_timeout.as_secs().max(1);
                answer.field("Session", &format!("{};timeout={timeout}", session.id))
            }
            _ => answer,
        }
    }

    fn announce(&mut self, request: &Request<Vec<u8>>, owner: Principal) -> Result<Answer, Refused> {
        if self.session.as_ref().is_some_and(|session| !session.set_up.is_empty()) {
            return Err(wrong_state("a session is under way"));
        }
        let uri = request_uri(request)?;
        let stream = uri::stream_name(uri).map_err(|(status, reason)| Answer::new(status, reason))?;
        if !uri::is_aggregate(uri) {
            return Err(Answer::new(404, "Not Found: the path is /STREAM"));
        }
        let kind = header(request, &CONTENT_TYPE).unwrap_or("application/sdp");
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/sdp") {
            return Err(Answer::new(415, "Unsupported Media Type: expected application/sdp"));
        }
        let id = Uuid::new_v4().simple().to_string();
        let session = Session::announce(id, stream, owner, uri.clone(), request.body())?;
        tracing::Span::current().record("stream", session.stream.as_str());
        self.session = Some(session);
        Ok(Answer::ok())
    }

    async fn set_up(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        let uri = request_uri(request)?;
        let Some(session) = &mut self.session else { return Err(wrong_state("nothing was announced")) };
        if session.recording.is_some() {
            return Err(wrong_state("recording"));
        }
        let taken: Vec<usize> = session.set_up.iter().map(|set_up| set_up.section).collect();
        let section = uri::find_track(&session.uri, uri, &session.description, &taken);
        let section = section.ok_or_else(|| Answer::new(404, "Not Found: no such track was announced"))?;
        let wanted = transport::parse(header(request, &TRANSPORT).unwrap_or_default())
            .map_err(|reason| Answer::new(461, &format!("Unsupported Transport: {reason}")))?;
        let field = session.set_up(section, wanted, self.local, self.peer).await?;
        for set_up in &session.set_up {
            if let Path::Interleaved { rtp, rtcp } = set_up.path {
                self.reader.expect_channel(rtp);
                self.reader.expect_channel(rtcp);
            }
        }
        Ok(self.with_session(Answer::ok().field("Transport", &field)))
    }

    async fn record(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        let uri = request_uri(request)?;
        let now = self.now();
        let Some(session) = self.session.as_mut().filter(|session| !session.set_up.is_empty()) else {
            return Err(wrong_state("nothing was set up"));
        };
        only_aggregate(session, uri)?;
        if session.recording.is_none() {
            let user_agent = header(request, &USER_AGENT).unwrap_or_default();
            let begun =
                self.options.publishers.begin(session.stream.clone(), &session.owner, self.peer, user_agent).await;
            let publish = begun.map_err(|refusal| {
                tracing::info!(status = refusal.status, reason = refusal.reason, "publisher refused");
                // Somebody else publishes: the method is not valid in this state. RTSP has no word for a full disk.
                let (status, phrase) = match refusal.status {
                    409 => (455, "Method Not Valid in This State"),
                    507 => (503, "Service Unavailable"),
                    status @ 400..=599 => (status, "Refused"),
                    _ => (500, "Internal Server Error"),
                };
                Answer::new(status, &format!("{phrase}: {}", refusal.reason))
            })?;
            let outlet = Outlet::new(publish, session.has_udp());
            let media = session.media(self.options.report_wait);
            let next_report = now.monotonic + REPORT_INTERVAL;
            session.recording = Some(Recording { media, outlet, next_report });
            self.datagram.resize(if session.has_udp() { DATAGRAM_BYTES_MAX } else { 0 }, 0);
            tracing::info!(tracks = session.set_up.len(), udp = session.has_udp(), user_agent, "publisher began");
        }
        Ok(self.with_session(Answer::ok()))
    }

    /// The run ends, so that all of it is kept for however long the pause is; the next RECORD begins another.
    async fn pause(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, End> {
        let refused = match (&self.session, request_uri(request)) {
            (Some(session), Ok(uri)) if !session.set_up.is_empty() => only_aggregate(session, uri).err(),
            (_, Err(refused)) => Some(refused),
            _ => Some(wrong_state("nothing was set up")),
        };
        if let Some(refused) = refused {
            return Ok(refused);
        }
        self.end_run(true, "PAUSE", true).await?;
        Ok(self.with_session(Answer::ok()))
    }

    async fn teardown(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, End> {
        let refused = match (&self.session, request.request_uri()) {
            (None, _) => Some(Answer::new(454, "Session Not Found")),
            (Some(session), Some(uri)) => only_aggregate(session, uri).err(),
            (Some(_), None) => None,
        };
        if let Some(refused) = refused {
            return Ok(refused);
        }
        self.end_run(true, "TEARDOWN", true).await?;
        self.session = None;
        Ok(Answer::ok())
    }

    fn set_parameter(&self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        if !request.body().is_empty() {
            return Err(Answer::new(451, "Parameter Not Understood"));
        }
        Ok(self.with_session(Answer::ok()))
    }
}

fn request_uri(request: &Request<Vec<u8>>) -> Result<&Url, Refused> {
    request.request_uri().ok_or_else(|| Answer::new(400, "Bad Request: no URI"))
}

fn wrong_state(why: &str) -> Refused {
    Answer::new(455, &format!("Method Not Valid in This State: {why}")).field("Allow", PUBLIC)
}

/// RFC 2326 section 11.3.11: what holds for the whole is asked of the whole.
fn only_aggregate(session: &Session, uri: &Url) -> Result<(), Refused> {
    if session.set_up.len() > 1 && !uri::is_aggregate(uri) {
        return Err(Answer::new(460, "Only Aggregate Operation Allowed"));
    }
    Ok(())
}
