//! What a server says that it keeps of a stream.

use serde_json::Value;

use crate::http::Peer;
use crate::tally::Tally;

/// Counts all fragments of a stream.
pub(crate) async fn fragments(peer: &Peer, stream: &str, tally: &mut Tally) -> anyhow::Result<()> {
    pages(peer, stream, "fragments", |page| tally.listed(page)).await
}

/// How many gaps there are in it, as far as the server knows.
pub(crate) async fn gaps(peer: &Peer, stream: &str) -> anyhow::Result<usize> {
    let mut count = 0;
    pages(peer, stream, "timeline", |page| count += page["gaps"].as_array().map_or(0, Vec::len)).await?;
    Ok(count)
}

async fn pages(peer: &Peer, stream: &str, list: &str, mut each: impl FnMut(&Value)) -> anyhow::Result<()> {
    let mut query = "limit=1000".to_owned();
    loop {
        let page: Value = serde_json::from_slice(&peer.get(&format!("/v1/streams/{stream}/{list}?{query}")).await?)?;
        each(&page);
        let Some(token) = page["next_token"].as_str() else { return Ok(()) };
        query = format!("limit=1000&next_token={token}");
    }
}
