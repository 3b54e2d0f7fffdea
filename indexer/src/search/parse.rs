//! Reads the query language of `docs/api/search.md`: that of tantivy, with a byte position for every mistake.
//!
//! ```text
//! any     = all *( "OR" all )
//! all     = one *( [ "AND" ] one )
//! one     = ( "-" / "NOT" / "+" ) one / ( "(" any ")" / term ) [ "^" number ]
//! term    = "*" / [ field ":" ] value / field ":(" any ")"
//! value   = word [ "*" ] / quoted [ "*" ] / "*" / range / comparison / "IN [" *( word / quoted ) "]"
//! ```

use std::ops::Bound;

use super::{QUERY_BYTES_MAX, SearchError};

/// Terms of a query at most.
const TERMS_MAX: usize = 64;
/// Parentheses and negations inside each other at most.
const DEPTH_MAX: usize = 16;

/// A piece of the query and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    pub(super) text: String,
    pub(super) position: usize,
}

/// A query as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ast {
    All,
    And(Vec<Ast>),
    Or(Vec<Ast>),
    Not(Box<Ast>),
    Term { field: Option<At>, value: Value },
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Word { word: At, quoted: bool, prefix: bool },
    Range { lower: Bound<At>, upper: Bound<At>, position: usize },
    Set { words: Vec<At> },
    Exists,
}

pub(super) fn malformed(position: usize, detail: impl Into<String>) -> SearchError {
    SearchError::Malformed { position, detail: detail.into() }
}

pub(super) fn parse(query: &str) -> Result<Ast, SearchError> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(malformed(QUERY_BYTES_MAX, format!("longer than {QUERY_BYTES_MAX} bytes")));
    }
    let mut parser = Parser { query, position: 0, term_count: 0 };
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(Ast::All);
    }
    let ast = parser.any(0, None)?;
    match parser.peek() {
        None => Ok(ast),
        Some(c) => Err(parser.error(format!("unexpected {c:?}"))),
    }
}

type Parsed = Result<Ast, SearchError>;

struct Parser<'a> {
    query: &'a str,
    position: usize,
    term_count: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.query.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.position += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, text: &str) -> bool {
        let taken = self.rest().starts_with(text);
        if taken {
            self.position += text.len();
        }
        taken
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.bump();
        }
    }

    fn error(&self, detail: impl Into<String>) -> SearchError {
        malformed(self.position, detail)
    }

    /// An upper-case word that stands alone.
    fn at_keyword(&self, keyword: &str) -> bool {
        let after = self.rest().strip_prefix(keyword).map(|rest| rest.chars().next());
        after.is_some_and(|next| next.is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"' | '[')))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let taken = self.at_keyword(keyword);
        if taken {
            self.position += keyword.len();
            self.skip_space();
        }
        taken
    }

    fn any(&mut self, depth: usize, field: Option<&At>) -> Parsed {
        let mut parts = vec![self.all(depth, field)?];
        while self.take_keyword("OR") {
            parts.push(self.all(depth, field)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Ast::Or(parts) })
    }

    fn all(&mut self, depth: usize, field: Option<&At>) -> Parsed {
        let mut parts = vec![self.one(depth, field)?];
        loop {
            self.skip_space();
            if self.take_keyword("AND") {
                parts.push(self.one(depth, field)?);
            } else if self.peek().is_none_or(|c| c == ')') || self.at_keyword("OR") {
                break;
            } else {
                parts.push(self.one(depth, field)?);
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Ast::And(parts) })
    }

    fn one(&mut self, depth: usize, field: Option<&At>) -> Parsed {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} levels")));
        }
        if self.take("-") || self.take_keyword("NOT") {
            return Ok(Ast::Not(Box::new(self.one(depth + 1, field)?)));
        }
        if self.take("+") {
            return self.one(depth + 1, field);
        }
        let ast = if self.take("(") { self.group(depth, field)? } else { self.term(depth, field)? };
        self.skip_boost()?;
        Ok(ast)
    }

    /// After the opening parenthesis.
    fn group(&mut self, depth: usize, field: Option<&At>) -> Parsed {
        let opened = self.position - 1;
        self.skip_space();
        let ast = self.any(depth + 1, field)?;
        if !self.take(")") {
            return Err(malformed(opened, "this parenthesis is not closed"));
        }
        Ok(ast)
    }

    /// Results are not ordered by score: a weight is read and means nothing.
    fn skip_boost(&mut self) -> Result<(), SearchError> {
        if !self.take("^") {
            return Ok(());
        }
        let digits = self.rest().bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        if self.rest()[..digits].parse::<f64>().is_err() {
            return Err(self.error("expected a number after ^"));
        }
        self.position += digits;
        Ok(())
    }

    fn term(&mut self, depth: usize, group_field: Option<&At>) -> Parsed {
        self.term_count += 1;
        if self.term_count > TERMS_MAX {
            return Err(self.error(format!("more than {TERMS_MAX} terms")));
        }
        if let Some(field) = self.field() {
            self.skip_space();
            if self.take("(") {
                return self.group(depth, Some(&field));
            }
            let value = self.value(true)?;
            return Ok(Ast::Term { field: Some(field), value });
        }
        if group_field.is_none() && self.at_star() {
            self.bump();
            return Ok(Ast::All);
        }
        let value = self.value(group_field.is_some())?;
        Ok(Ast::Term { field: group_field.cloned(), value })
    }

    /// A name and its colon.
    fn field(&mut self) -> Option<At> {
        let start = self.position;
        let name = self.word(false).ok().filter(|word| !word.text.is_empty());
        match name {
            Some(name) if self.take(":") => Some(name),
            _ => {
                self.position = start;
                None
            }
        }
    }

    fn at_star(&self) -> bool {
        let next = self.rest().strip_prefix('*').map(|rest| rest.chars().next());
        next.is_some_and(|next| next.is_none_or(|c| c.is_whitespace() || c == ')' || c == '^'))
    }

    fn value(&mut self, has_field: bool) -> Result<Value, SearchError> {
        let position = self.position;
        match self.peek() {
            None => Err(self.error("expected a value")),
            Some('[' | '{' | '<' | '>') if !has_field => Err(self.error("a range needs a field before it")),
            Some('[' | '{') => self.range(),
            Some('<' | '>') => self.comparison(),
            Some('/') => Err(self.error("regular expressions are not supported (put a value with / in quotes)")),
            Some('"' | '\'') => {
                let word = self.quoted()?;
                let prefix = self.take("*");
                if self.peek() == Some('~') {
                    return Err(self.error("distances (~) are not supported"));
                }
                Ok(Value::Word { word, quoted: true, prefix })
            }
            Some(_) if self.at_star() => {
                self.bump();
                Ok(Value::Exists)
            }
            Some(_) if has_field && self.take_keyword("IN") => self.set(position),
            Some(_) if ["AND", "OR", "NOT", "IN"].iter().any(|keyword| self.at_keyword(keyword)) => {
                Err(self.error("expected a term, found a keyword (put it in quotes to search for it)"))
            }
            Some(_) => {
                let mut word = self.word(has_field)?;
                let prefix = word.text.ends_with('*') && !self.query[..self.position].ends_with("\\*");
                if prefix {
                    word.text.pop();
                }
                Ok(Value::Word { word, quoted: false, prefix })
            }
        }
    }

    /// Up to a space or a special character. `colons`: they belong to it.
    fn word(&mut self, colons: bool) -> Result<At, SearchError> {
        let position = self.position;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.bump();
                    text.push(self.bump().ok_or_else(|| self.error("expected a character after \\"))?);
                }
                ':' if !colons => break,
                '^' | '`' | '{' | '}' | '"' | '\'' | '[' | ']' | '(' | ')' => break,
                _ if c.is_whitespace() => break,
                _ => text.extend(self.bump()),
            }
        }
        if self.position == position {
            let found = self.peek().map_or("the end".to_owned(), |c| format!("{c:?}"));
            return Err(self.error(format!("expected a word, found {found}")));
        }
        Ok(At { text, position })
    }

    fn quoted(&mut self) -> Result<At, SearchError> {
        let position = self.position;
        let quote = self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                None => return Err(malformed(position, "this quote is not closed")),
                Some('\\') => text.extend(self.bump()),
                c if c == quote => return Ok(At { text, position }),
                Some(c) => text.push(c),
            }
        }
    }

    fn comparison(&mut self) -> Result<Value, SearchError> {
        let position = self.position;
        let sign = ["<=", ">=", "<", ">"].into_iter().find(|sign| self.take(sign));
        self.skip_space();
        let bound = if self.peek() == Some('"') { self.quoted()? } else { self.word(true)? };
        let (lower, upper) = match sign {
            Some("<=") => (Bound::Unbounded, Bound::Included(bound)),
            Some(">=") => (Bound::Included(bound), Bound::Unbounded),
            Some("<") => (Bound::Unbounded, Bound::Excluded(bound)),
            _ => (Bound::Excluded(bound), Bound::Unbounded),
        };
        Ok(Value::Range { lower, upper, position })
    }

    fn range(&mut self) -> Result<Value, SearchError> {
        let position = self.position;
        let includes_lower = self.bump() == Some('[');
        let lower = self.bound()?;
        self.skip_space();
        if !self.take_keyword("TO") {
            return Err(self.error("expected TO"));
        }
        let upper = self.bound()?;
        self.skip_space();
        let includes_upper = match self.bump() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(malformed(position, "this range is not closed by ] or }")),
        };
        let bound = |at: Option<At>, includes| match at {
            None => Bound::Unbounded,
            Some(at) if includes => Bound::Included(at),
            Some(at) => Bound::Excluded(at),
        };
        Ok(Value::Range { lower: bound(lower, includes_lower), upper: bound(upper, includes_upper), position })
    }

    /// None: `*`.
    fn bound(&mut self) -> Result<Option<At>, SearchError> {
        self.skip_space();
        if matches!(self.peek(), Some('"' | '\'')) {
            return self.quoted().map(Some);
        }
        let word = self.word(true)?;
        Ok((word.text != "*").then_some(word))
    }

    fn set(&mut self, position: usize) -> Result<Value, SearchError> {
        if !self.take("[") {
            return Err(self.error("expected [ after IN"));
        }
        let mut words = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None => return Err(malformed(position, "this list is not closed by ]")),
                Some(']') => break,
                Some('"' | '\'') => words.push(self.quoted()?),
                Some(_) => words.push(self.word(true)?),
            }
            self.term_count += 1;
            if self.term_count > TERMS_MAX {
                return Err(self.error(format!("more than {TERMS_MAX} terms")));
            }
        }
        self.bump();
        if words.is_empty() {
            return Err(malformed(position, "this list is empty"));
        }
        Ok(Value::Set { words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(ast: &Ast) -> String {
        let at = |at: &At| at.text.clone();
        let bound = |bound: &Bound<At>| match bound {
            Bound::Included(word) => format!("={}", word.text),
            Bound::Excluded(word) => format!("≠{}", word.text),
            Bound::Unbounded => "*".to_owned(),
        };
        let list = |parts: &[Ast]| parts.iter().map(shape).collect::<Vec<_>>().join(" ");
        match ast {
            Ast::All => "all".to_owned(),
            Ast::And(parts) => format!("(and {})", list(parts)),
            Ast::Or(parts) => format!("(or {})", list(parts)),
            Ast::Not(part) => format!("(not {})", shape(part)),
            Ast::Term { field, value } => {
                let field = field.as_ref().map_or(String::new(), |field| format!("{}:", field.text));
                match value {
                    Value::Word { word, quoted, prefix } => {
                        let quote = if *quoted { "'" } else { "" };
                        format!("{field}{quote}{}{quote}{}", word.text, if *prefix { "…" } else { "" })
                    }
                    Value::Range { lower, upper, .. } => format!("{field}[{} {}]", bound(lower), bound(upper)),
                    Value::Set { words } => {
                        format!("{field}{{{}}}", words.iter().map(at).collect::<Vec<_>>().join(","))
                    }
                    Value::Exists => format!("{field}?"),
                }
            }
        }
    }

    #[test]
    fn queries_are_read() {
        for (query, expected) in [
            ("", "all"),
            ("  * ", "all"),
            ("a", "a"),
            ("a b", "(and a b)"),
            ("a AND b OR c d", "(or (and a b) (and c d))"),
            ("a (b OR -c)", "(and a (or b (not c)))"),
            ("NOT a", "(not a)"),
            ("+a -b", "(and a (not b))"),
            ("stream:demo-rtsp", "stream:demo-rtsp"),
            ("stream:demo*", "stream:demo…"),
            (r"stream:demo\*", "stream:demo*"),
            ("stream:(a OR b) codec:h264", "(and (or stream:a stream:b) codec:h264)"),
            ("source:127.0.0.1:5000", "source:127.0.0.1:5000"),
            ("time:2026-01-01T00:00:00Z", "time:2026-01-01T00:00:00Z"),
            ("time:[2026-01-01T00:00:00Z TO 1767323045}", "time:[=2026-01-01T00:00:00Z ≠1767323045]"),
            ("time:{* TO *]", "time:[* *]"),
            ("time:[\"a b\" TO -5]", "time:[=a b =-5]"),
            ("size_bytes:>=10 fps:< 5", "(and size_bytes:[=10 *] fps:[* ≠5])"),
            ("codec: IN [h264 \"aac x\"]", "codec:{h264,aac x}"),
            ("width:*", "width:?"),
            ("tags.door:'o\\'p\"en'*^2.5 x", "(and tags.door:'o'p\"en'… x)"),
            (r"tags.my\ name:x", "tags.my name:x"),
            ("ORDER ANDROID NOTE", "(and ORDER ANDROID NOTE)"),
            ("\"a:b\"", "'a:b'"),
        ] {
            assert_eq!(parse(query).map(|ast| shape(&ast)).as_deref(), Ok(expected), "{query}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (query, position) in [
            ("a )", 2),
            ("(a", 0),
            ("a (b OR (c)", 2),
            ("a OR", 4),
            ("OR a", 0),
            ("a AND", 5),
            ("stream:", 7),
            ("stream: AND", 8),
            ("stream:\"x", 7),
            ("x time:[1 TO", 12),
            ("x time:[1 2]", 10),
            ("x time:[1 TO 2", 7),
            ("[1 TO 2]", 0),
            (">5", 0),
            ("codec:IN [a", 6),
            ("codec:IN []", 6),
            ("codec:IN a", 9),
            ("/a/", 0),
            ("stream:/a/", 7),
            ("a^", 2),
            ("()", 1),
            ("ü ]", 3),
            ("a\\", 2),
            ("\"a b\"~2", 5),
        ] {
            let error = parse(query).expect_err(query);
            assert!(matches!(error, SearchError::Malformed { position: at, .. } if at == position), "{query}: {error}");
        }
    }

    #[test]
    fn queries_are_bounded() {
        let refused = |query: &str| matches!(parse(query), Err(SearchError::Malformed { .. }));
        assert!(parse(&"a".repeat(QUERY_BYTES_MAX)).is_ok());
        assert!(refused(&"a".repeat(QUERY_BYTES_MAX + 1)));
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert!(refused(&nested(DEPTH_MAX + 1)));
        assert!(refused(&"-".repeat(1000)));
        assert!(parse(&"a ".repeat(TERMS_MAX)).is_ok());
        assert!(refused(&"a ".repeat(TERMS_MAX + 1)));
        assert!(refused(&format!("codec:IN [{}]", "a ".repeat(TERMS_MAX + 1))));
    }
}
