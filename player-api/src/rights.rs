//! What a request needs to be let through: one table, by method and path, for every route behind the gate.
//!
//! A path that is not in it needs the right to run the server, so a route that is forgotten here is closed.

use http::Method;
use percent_encoding::percent_decode_str;
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::policy::{Action, Target};

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be somebody.
    Known,
    /// This on that stream.
    Stream(Action, String),
    /// This on some stream; the handler looks at which.
    Some(Action),
    /// This on every stream.
    All(Action),
}

impl Need {
    /// Of a request.
    pub(crate) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let parts: Vec<&str> = path.split('/').collect();
        let on = |action, name: &str| match percent_decode_str(name).decode_utf8() {
            Ok(name) => Self::Stream(action, name.into_owned()),
            Err(_) => Self::All(action),
        };
        match parts.as_slice() {
            ["", "v1", "streams"] if reads => Self::Some(Action::List),
            ["", "v1", "streams"] => Self::Some(Action::Create),
            ["", "v1", "streams", name] => match *method {
                Method::PATCH => on(Action::Change, name),
                Method::DELETE => on(Action::Delete, name),
                _ => on(Action::List, name),
            },
            ["", "v1", "streams", name, "media"] => on(Action::Push, name),
            ["", "v1", "streams", name, ..] => on(Action::Read, name),
            ["", "v1", "search"] | ["", "v1", "search", "aggregate"] => Self::All(Action::Read),
            ["", "v1", "sign"] => Self::Some(Action::Read),
            ["", "v1", "pushes"] => match query.and_then(|query| query.strip_prefix("stream=")) {
                Some(name) if !name.contains('&') => on(Action::List, name),
                _ => Self::All(Action::List),
            },
            // The handler looks at its stream.
            ["", "v1", "pushes", _] => Self::Known,
            ["", "v1", "credentials", "session"] => Self::Known,
            _ => Self::All(Action::Operate),
        }
    }

    /// Whether that somebody has it.
    pub(crate) fn is_met(&self, principal: &Principal) -> bool {
        match self {
            Self::Known => true,
            Self::Stream(action, name) => principal.may(*action, Target::Stream(name)),
            Self::Some(action) => principal.may(*action, Target::Some),
            Self::All(action) => principal.may(*action, Target::All),
        }
    }

    /// Whether somebody who was let in for it still has it. A push ends by itself, and says why.
    pub(crate) fn is_still_met(&self, auth: &dyn Authenticator, principal: &Principal) -> bool {
        match self {
            Self::Known | Self::Stream(Action::Push, _) => true,
            Self::Stream(action, name) => auth.may_still(principal, *action, Target::Stream(name)),
            Self::Some(action) => auth.may_still(principal, *action, Target::Some),
            Self::All(action) => auth.may_still(principal, *action, Target::All),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_needs_something() {
        let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
        let stream = |action, name: &str| Need::Stream(action, name.to_owned());
        for (method, path, query, need) in [
            (&get, "/v1/streams", None, Need::Some(Action::List)),
            (&post, "/v1/streams", None, Need::Some(Action::Create)),
            (&Method::HEAD, "/v1/streams/a", None, stream(Action::List, "a")),
            (&Method::PATCH, "/v1/streams/a%2Db", None, stream(Action::Change, "a-b")),
            (&Method::DELETE, "/v1/streams/a", None, stream(Action::Delete, "a")),
            (&put, "/v1/streams/a/media", None, stream(Action::Push, "a")),
            (&get, "/v1/streams/a/clip.mp4", None, stream(Action::Read, "a")),
            (&get, "/v1/streams/a/hls/x/y", None, stream(Action::Read, "a")),
            (&get, "/v1/streams/%ff/clip.mp4", None, Need::All(Action::Read)),
            (&get, "/v1/pushes", None, Need::All(Action::List)),
            (&get, "/v1/pushes", Some("stream=a"), stream(Action::List, "a")),
            (&get, "/v1/pushes", Some("stream=a&stream=b"), Need::All(Action::List)),
            (&get, "/v1/pushes/1", None, Need::Known),
            (&get, "/v1/search", None, Need::All(Action::Read)),
            (&get, "/v1/search/aggregate", None, Need::All(Action::Read)),
            (&post, "/v1/credentials/session", None, Need::Known),
        ] {
            assert_eq!(Need::of(method, path, query), need, "{method} {path}");
        }
        for path in ["/metrics", "/v1/keys", "/v1/credentials", "/v1/verify", "/v1//streams/a", "/V1/streams", "/", ""]
        {
            assert_eq!(Need::of(&get, path, None), Need::All(Action::Operate), "{path}");
        }
    }
}
