//! From a query as a tree to one that tantivy runs.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{AllQuery, BooleanQuery, ExistsQuery, Occur, Query, RangeQuery, TermQuery};
use tantivy::schema::IndexRecordOption;
use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;

use super::SearchError;
use super::parse::{Ast, At, Value, malformed};
use super::schema::{Fields, Number, NumberType, PRESENT, Text};

pub(super) const FIELD_NAMES: &str = "stream, device, codec, protocol, source, run, kind, gap, fragment_number, \
                                      tags.NAME, time, server_time, size_bytes, duration_ms, width, height, fps, bitrate";

type Compiled = Result<Box<dyn Query>, SearchError>;

pub(super) fn compile(fields: &Fields, ast: &Ast) -> Compiled {
    match ast {
        Ast::All => Ok(Box::new(AllQuery)),
        Ast::Or(parts) => {
            let parts = parts.iter().map(|part| compile(fields, part));
            Ok(Box::new(BooleanQuery::union(parts.collect::<Result<_, _>>()?)))
        }
        Ast::And(parts) => all_of(fields, parts),
        Ast::Not(_) => all_of(fields, std::slice::from_ref(ast)),
        Ast::Term { field, value } => term(fields, field.as_ref(), value),
    }
}

fn all_of(fields: &Fields, parts: &[Ast]) -> Compiled {
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    for part in parts {
        clauses.push(match part {
            Ast::Not(part) => (Occur::MustNot, compile(fields, part)?),
            part => (Occur::Must, compile(fields, part)?),
        });
    }
    if clauses.iter().all(|(occur, _)| *occur == Occur::MustNot) {
        clauses.push((Occur::Must, Box::new(AllQuery)));
    }
    Ok(Box::new(BooleanQuery::new(clauses)))
}

/// What overlaps `[start, end)` by the producer's clock.
pub(super) fn overlapping(fields: &Fields, start: Option<UnixMs>, end: Option<UnixMs>) -> Vec<Box<dyn Query>> {
    let bound = |field, at: UnixMs| Term::from_field_i64(fields.number(field), at.0);
    let after = start.map(|at| RangeQuery::new(Bound::Excluded(bound(Number::End, at)), Bound::Unbounded));
    let before = end.map(|at| RangeQuery::new(Bound::Unbounded, Bound::Excluded(bound(Number::Time, at))));
    after.into_iter().chain(before).map(|range| Box::new(range) as Box<dyn Query>).collect()
}

fn term(fields: &Fields, field: Option<&At>, value: &Value) -> Compiled {
    let Some(At { text: name, position }) = field else {
        return text(fields, Text::Any, "", value);
    };
    if let Some(tag) = name.strip_prefix("tags.").filter(|tag| !tag.is_empty()) {
        return text(fields, Text::Tags, &format!("{}\0", tag.to_lowercase()), value);
    }
    if let Some(field) = Number::of_name(name) {
        return number(fields, field, value);
    }
    match Text::of_name(name) {
        Some(Text::Tags) => Err(malformed(*position, "a tag needs its name: tags.NAME")),
        Some(Text::FragmentNumber) => fragment_number(fields, value),
        Some(field) => text(fields, field, "", value),
        None => Err(malformed(*position, format!("unknown field {name:?}; known are {FIELD_NAMES}"))),
    }
}

/// `before`: what stands before every token of this field.
fn text(fields: &Fields, field: Text, before: &str, value: &Value) -> Compiled {
    let token = |word: &str| Term::from_field_text(fields.text(field), &format!("{before}{word}"));
    let equal = |word: &str| -> Box<dyn Query> { Box::new(TermQuery::new(token(word), IndexRecordOption::Basic)) };
    match value {
        Value::Word { word, prefix: true, .. } => {
            let word = word.text.to_lowercase();
            let beyond = token(&format!("{word}{}", char::MAX));
            Ok(Box::new(RangeQuery::new(Bound::Included(token(&word)), Bound::Excluded(beyond))))
        }
        Value::Word { word, quoted, .. } => {
            let whole = word.text.to_lowercase();
            let words: Vec<_> = whole.split_whitespace().map(equal).collect();
            if *quoted && words.len() > 1 {
                let all = Box::new(BooleanQuery::intersection(words));
                return Ok(Box::new(BooleanQuery::union(vec![equal(&whole), all])));
            }
            Ok(equal(&whole))
        }
        Value::Set { words } => {
            let words = words.iter().map(|word| equal(&word.text.to_lowercase()));
            Ok(Box::new(BooleanQuery::union(words.collect())))
        }
        Value::Exists if field == Text::Any => Ok(Box::new(AllQuery)),
        Value::Exists => Ok(equal(PRESENT)),
        Value::Range { position, .. } => {
            Err(malformed(*position, "ranges are for numbers, times and fragment numbers"))
        }
    }
}

fn fragment_number(fields: &Fields, value: &Value) -> Compiled {
    let Value::Range { lower, upper, .. } = value else {
        return text(fields, Text::FragmentNumber, "", value);
    };
    // A sequence is never given twice: it orders the numbers.
    let sequence = |at: &At| {
        let number: FragmentNumber =
            at.text.parse().map_err(|_| malformed(at.position, "expected a fragment number"))?;
        Ok(Term::from_field_u64(fields.number(Number::Sequence), number.sequence()))
    };
    range(Number::Sequence, map(lower, sequence)?, map(upper, sequence)?)
}

fn number(fields: &Fields, field: Number, value: &Value) -> Compiled {
    let read = |at: &At| number_term(fields, field, at);
    let equal = |at: &At| -> Compiled {
        let term = read(at)?;
        Ok(Box::new(RangeQuery::new(Bound::Included(term.clone()), Bound::Included(term))))
    };
    match value {
        Value::Word { word, prefix: true, .. } => Err(malformed(word.position, "no prefix of a number or a time")),
        Value::Word { word, .. } => equal(word),
        Value::Set { words } => Ok(Box::new(BooleanQuery::union(words.iter().map(equal).collect::<Result<_, _>>()?))),
        Value::Exists => Ok(Box::new(ExistsQuery::new(field.name().to_owned(), false))),
        Value::Range { lower, upper, .. } => range(field, map(lower, read)?, map(upper, read)?),
    }
}

fn map(bound: &Bound<At>, read: impl Fn(&At) -> Result<Term, SearchError>) -> Result<Bound<Term>, SearchError> {
    Ok(match bound {
        Bound::Included(at) => Bound::Included(read(at)?),
        Bound::Excluded(at) => Bound::Excluded(read(at)?),
        Bound::Unbounded => Bound::Unbounded,
    })
}

fn range(field: Number, lower: Bound<Term>, upper: Bound<Term>) -> Compiled {
    if lower == Bound::Unbounded && upper == Bound::Unbounded {
        return Ok(Box::new(ExistsQuery::new(field.name().to_owned(), false)));
    }
    Ok(Box::new(RangeQuery::new(lower, upper)))
}

fn number_term(fields: &Fields, field: Number, at: &At) -> Result<Term, SearchError> {
    let (tantivy_field, text) = (fields.number(field), at.text.as_str());
    let expected = |what: &str| malformed(at.position, format!("expected {what} for {}", field.name()));
    match field.number_type() {
        NumberType::Unsigned => {
            let number = text.parse().map_err(|_| expected("a whole number from 0 on"))?;
            Ok(Term::from_field_u64(tantivy_field, number))
        }
        NumberType::Time => {
            let time = UnixMs::parse(text);
            let time = time.map_err(|_| expected("RFC 3339, or seconds or milliseconds since 1970,"))?;
            Ok(Term::from_field_i64(tantivy_field, time.0))
        }
        NumberType::Float => {
            let number: f64 = text.parse().map_err(|_| expected("a number"))?;
            if !number.is_finite() {
                return Err(expected("a finite number"));
            }
            Ok(Term::from_field_f64(tantivy_field, number))
        }
    }
}
