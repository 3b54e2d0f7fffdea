//! The query of a request, as every route reads it: each parameter at most once, and none unknown.

use percent_encoding::percent_decode_str;

use crate::time::UnixMs;

/// The parameters of a query.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// Why a query is refused: a broken request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct QueryError {
    /// At fault; none: the query does not read at all.
    pub parameter: Option<String>,
    /// In words.
    pub detail: String,
}

impl QueryError {
    /// Of a parameter.
    #[must_use]
    pub fn of(parameter: &str, what: &str) -> Self {
        Self { parameter: Some(parameter.to_owned()), detail: format!("{parameter}: {what}") }
    }
}

impl Query {
    /// Reads a query string. `token` is known everywhere: it carries the signature of a player's URL.
    ///
    /// # Errors
    /// If a parameter is unknown or given twice, or the query is not percent-encoded UTF-8.
    pub fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, QueryError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if name != "token" && !known.contains(&name.as_str()) {
                let detail = format!("unknown parameter {name:?}; known: {}", known.join(", "));
                return Err(QueryError { parameter: Some(name), detail });
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(QueryError::of(&name, "is given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// As it was given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A point in time: RFC 3339, or seconds or milliseconds since 1970.
    ///
    /// # Errors
    /// If it is none.
    pub fn time(&self, name: &str) -> Result<Option<UnixMs>, QueryError> {
        let read = |text: &str| UnixMs::parse(text).map_err(|error| QueryError::of(name, &error.to_string()));
        self.text(name).map(read).transpose()
    }

    /// A whole number.
    ///
    /// # Errors
    /// If it is none, or out of the range.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, QueryError> {
        let read = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        let expected = || format!("expected a whole number from {} to {}", range.start(), range.end());
        self.text(name).map(|text| read(text).ok_or_else(|| QueryError::of(name, &expected()))).transpose()
    }

    /// A length of time: a whole number above 0 and `s`, `m`, `h` or `d`. In milliseconds.
    ///
    /// # Errors
    /// If it is none, or longer than a hundred years.
    pub fn interval_ms(&self, name: &str) -> Result<Option<i64>, QueryError> {
        let read = |text: &str| {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let unit_ms = match unit {
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            let interval = number.parse::<u32>().ok().map(|number| i64::from(number) * unit_ms);
            interval.filter(|interval| (1..=36_525 * 86_400_000).contains(interval))
        };
        let expected = || QueryError::of(name, "expected a whole number and s, m, h or d, such as 15m");
        self.text(name).map(|text| read(text).ok_or_else(expected)).transpose()
    }

    /// One of some words; the first if it is not given.
    ///
    /// # Errors
    /// If it is another.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, QueryError> {
        let Some(text) = self.text(name) else { return Ok(words[0].1) };
        let expected = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| QueryError::of(name, &format!("expected {}", expected())))
    }
}

fn decode(text: &str) -> Result<String, QueryError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned());
    let detail = || "the query is not percent-encoded UTF-8".to_owned();
    decoded.map_err(|_| QueryError { parameter: None, detail: detail() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        let read = |text: &str| {
            Query::parse(Some(&format!("interval={text}")), &["interval"]).expect("a query").interval_ms("interval")
        };
        for (text, ms) in [("1s", 1000), ("15m", 900_000), ("2h", 7_200_000), ("36525d", 36_525 * 86_400_000)] {
            assert_eq!(read(text), Ok(Some(ms)), "{text}");
        }
        for text in ["", "s", "0s", "15", "-1m", "1.5h", "36526d", "4294967296s", "1w", "5%C2%B5"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_parameter_is_known_and_stands_once() {
        let query = Query::parse(Some("start=1&a%2Bb=x+y%20z&&token=t"), &["start", "a+b"]).expect("a query");
        assert_eq!((query.text("start"), query.text("a+b"), query.text("none")), (Some("1"), Some("x y z"), None));
        assert_eq!(query.time("start"), Ok(Some(UnixMs(1000))));
        let error = |text| Query::parse(Some(text), &["start", "ack"]).expect_err("no query");
        assert_eq!(error("starts=1").parameter.as_deref(), Some("starts"));
        assert_eq!(error("start=1&st%61rt=2").parameter.as_deref(), Some("start"));
        assert_eq!(error("start=%ff").parameter, None);
        assert_eq!(error("token=a&token=b").parameter.as_deref(), Some("token"));
        let query = Query::parse(Some("start=x&ack=no"), &["start", "ack"]).expect("a query");
        assert_eq!(query.time("start").map_err(|error| error.parameter), Err(Some("start".into())));
        assert_eq!(query.number("start", 0..=9).map_err(|error| error.parameter), Err(Some("start".into())));
        let error = query.choice("ack", &[("end", false), ("stream", true)]).expect_err("no choice");
        assert_eq!(error.to_string(), "ack: expected end or stream");
        assert_eq!(query.choice("other", &[("end", false), ("stream", true)]), Ok(false));
    }
}
