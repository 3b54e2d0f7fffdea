//! What `/metrics` says (Prometheus text format 0.0.4).

use anyhow::Context;

/// The metrics that are looked at (`docs/operating.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Metrics {
    pub(crate) fragments: u64,
    pub(crate) syncs: u64,
    pub(crate) record_bytes: u64,
    pub(crate) pushes_open: u64,
}

impl Metrics {
    /// Out of an answer, header fields and all.
    pub(crate) fn parse(answer: &str) -> anyhow::Result<Self> {
        let value = |name: &str| metric(answer, name).with_context(|| format!("no {name} in /metrics: {answer:.200}"));
        Ok(Self {
            fragments: value("vidar_fragments")?,
            syncs: value("vidar_syncs_total")?,
            record_bytes: value("vidar_record_bytes_total")?,
            pushes_open: value("vidar_pushes_open")?,
        })
    }
}

fn metric(answer: &str, name: &str) -> Option<u64> {
    let mut values = answer.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n# HELP vidar_fragments Fragments.\n\
        # TYPE vidar_fragments gauge\nvidar_fragments_old 1\nvidar_fragments 12\nvidar_syncs_total 34\n\
        vidar_record_bytes_total 56\nvidar_pushes_open 7\n";

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let wanted = Metrics { fragments: 12, syncs: 34, record_bytes: 56, pushes_open: 7 };
        assert_eq!(Metrics::parse(ANSWER).unwrap(), wanted);
    }

    #[test]
    fn a_missing_metric_is_named() {
        let error = Metrics::parse(&ANSWER.replace("vidar_syncs_total", "x")).unwrap_err();
        assert!(error.to_string().contains("vidar_syncs_total"), "{error}");
        assert!(Metrics::parse("HTTP/1.1 401 Unauthorized\r\n\r\n").is_err());
    }
}
