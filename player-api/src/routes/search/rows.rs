//! All results of a search as rows, sent as they are found.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use vidar_core::time::UnixMs;
use vidar_indexer::{SearchHit, SearchPage, SearchRequest};

use super::{page, show};
use crate::params::LIMIT_MAX;
use crate::{Api, ApiResult};

/// How rows are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows {
    /// RFC 4180, with a header.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

const COLUMNS: &str = "kind,stream,device,run,fragment_number,protocol,source,codecs,producer_time,server_time,duration_ms,\
                       size_bytes,width,height,fps,bitrate,gap,tags\r\n";

/// What is left to be sent.
struct Rest {
    api: Arc<Api>,
    request: SearchRequest,
    rows: Rows,
    left: u64,
    ready: Option<SearchPage>,
}

impl Rows {
    /// `limit`: rows at most; none: all. A search that fails before the first row is an error as any other; later it
    /// breaks the answer off.
    pub(super) async fn stream(self, api: Arc<Api>, request: SearchRequest, limit: Option<u64>) -> ApiResult<Response> {
        let mut rest = Rest { api, request, rows: self, left: limit.unwrap_or(u64::MAX), ready: None };
        rest.ready = Some(rest.page().await?);
        let head = matches!(self, Self::Csv).then(|| Ok(Bytes::from_static(COLUMNS.as_bytes())));
        let rows = stream::try_unfold(rest, |mut rest| async move {
            let page = match rest.ready.take() {
                Some(page) => page,
                None if rest.left == 0 || rest.request.after.is_none() => return Ok(None),
                None => rest.page().await.map_err(|error| io::Error::other(error.detail().to_owned()))?,
            };
            rest.left -= (page.results.len() as u64).min(rest.left);
            rest.request.after = page.next;
            let bytes: String = page.results.iter().map(|hit| rest.rows.line(hit)).collect();
            Ok::<_, io::Error>(Some((Bytes::from(bytes), rest)))
        });
        let body = Body::from_stream(futures::StreamExt::chain(stream::iter(head), rows));
        let (content_type, name) = match self {
            Self::Csv => ("text/csv; charset=utf-8; header=present", "attachment; filename=\"search.csv\""),
            Self::Ndjson => ("application/x-ndjson", "attachment; filename=\"search.ndjson\""),
        };
        let head = [(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, name)];
        Ok((head, body).into_response())
    }

    fn line(self, hit: &SearchHit) -> String {
        match self {
            Self::Csv => csv(hit),
            Self::Ndjson => format!("{}\n", show(hit)),
        }
    }
}

impl Rest {
    async fn page(&self) -> ApiResult<SearchPage> {
        let limit = usize::try_from(self.left).unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        page(&self.api, SearchRequest { limit, count: false, ..self.request.clone() }).await
    }
}

fn csv(hit: &SearchHit) -> String {
    fn number<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let time = |at: UnixMs| at.to_string();
    let tags: Vec<_> = hit.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = [
        hit.kind.name().to_owned(),
        hit.stream_name.clone(),
        hit.device.clone(),
        number(hit.run),
        number(hit.fragment_number),
        number(hit.protocol.as_deref()),
        number(hit.source.as_deref()),
        hit.codecs.join(" "),
        time(hit.time),
        time(hit.server_time),
        number(hit.duration_ms),
        number(hit.size_bytes),
        number(hit.width),
        number(hit.height),
        number(hit.fps),
        number(hit.bitrate),
        number(hit.gap),
        tags.join(";"),
    ];
    fields.map(quoted).join(",") + "\r\n"
}

/// A field of RFC 4180, section 2.
fn quoted(field: String) -> String {
    if field.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for (field, written) in
            [("", ""), ("a b;c", "a b;c"), ("a,b", "\"a,b\""), ("say \"x\"", "\"say \"\"x\"\"\""), ("a\nb", "\"a\nb\"")]
        {
            assert_eq!(quoted(field.to_owned()), written);
        }
    }
}
