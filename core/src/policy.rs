//! What a key may do: statements that allow or deny actions on streams, by patterns of their names.
//!
//! ```text
//! {"statements": [{"effect": "allow", "actions": ["list", "read"], "streams": ["lobby-*"]},
//!                 {"effect": "deny",  "actions": ["*"],            "streams": ["lobby-safe"]}]}
//! ```
//!
//! Nothing is allowed that no statement allows; what one denies no other allows.

use serde::{Deserialize, Serialize};

/// Statements of a policy at most.
pub const STATEMENT_COUNT_MAX: usize = 32;
/// Patterns of a statement at most.
pub const PATTERN_COUNT_MAX: usize = 64;
/// Bytes of a pattern at most: the longest name of a stream.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Stars of a pattern at most: each is a search.
pub const PATTERN_STAR_COUNT_MAX: usize = 8;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sees that a stream is there, its settings and tags.
    List,
    /// Gets its media, its pictures, its times; searches.
    Read,
    /// Sends media, also to a stream that is made by it.
    Push,
    /// Makes a stream.
    Create,
    /// Changes its tags.
    Tag,
    /// Changes its settings, retention among them.
    Change,
    /// Deletes it, with all it holds.
    Delete,
    /// Runs the server: metrics, verification, keys, credentials. Of no stream.
    Operate,
    /// All of these.
    #[serde(rename = "*")]
    Any,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Lets it through.
    Allow,
    /// Does not, whatever others say.
    Deny,
}

/// Actions on streams, and whether they are let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What it does.
    pub effect: Effect,
    /// To which actions.
    pub actions: Vec<Action>,
    /// On which streams: names in which `*` stands for anything.
    pub streams: Vec<String>,
}

/// What a key may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// In no order.
    pub statements: Vec<Statement>,
}

/// A policy in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// For players.
    Read,
    /// For cameras.
    Write,
    /// For people.
    Admin,
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy: {detail}")]
pub struct PolicyError {
    detail: String,
}

/// What is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A stream of this name.
    Stream(&'a str),
    /// Every stream there is or may be.
    All,
    /// At least one stream, whichever.
    Some,
}

impl Preset {
    /// Its statements, for the streams of these patterns.
    #[must_use]
    pub fn policy(self, streams: Vec<String>) -> Policy {
        let actions = match self {
            Self::Read => vec![Action::List, Action::Read],
            Self::Write => vec![Action::List, Action::Push, Action::Create, Action::Tag],
            Self::Admin => vec![Action::Any],
        };
        Policy { statements: vec![Statement { effect: Effect::Allow, actions, streams }] }
    }
}

impl Policy {
    /// Allows everything.
    #[must_use]
    pub fn all() -> Self {
        Preset::Admin.policy(vec!["*".to_owned()])
    }

    /// Within the bounds, and of patterns that can match a name.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self) -> Result<(), PolicyError> {
        let wrong = |detail: String| Err(PolicyError { detail });
        if self.statements.is_empty() || self.statements.len() > STATEMENT_COUNT_MAX {
            return wrong(format!("expected 1 to {STATEMENT_COUNT_MAX} statements"));
        }
        for Statement { actions, streams, .. } in &self.statements {
            if actions.is_empty() || actions.len() > 16 {
                return wrong("expected 1 to 16 actions in a statement".to_owned());
            }
            if streams.is_empty() || streams.len() > PATTERN_COUNT_MAX {
                return wrong(format!("expected 1 to {PATTERN_COUNT_MAX} patterns of streams in a statement"));
            }
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'*');
            let stars = |pattern: &str| pattern.bytes().filter(|byte| *byte == b'*').count();
            let good = |pattern: &str| {
                (1..=PATTERN_BYTES_MAX).contains(&pattern.len())
                    && pattern.bytes().all(plain)
                    && stars(pattern) <= PATTERN_STAR_COUNT_MAX
            };
            if let Some(bad) = streams.iter().find(|pattern| !good(pattern)) {
                return wrong(format!(
                    "stream {bad:?}: expected 1 to {PATTERN_BYTES_MAX} of a-z A-Z 0-9 _ . - and at most {PATTERN_STAR_COUNT_MAX} *"
                ));
            }
        }
        Ok(())
    }

    /// Whether it allows this.
    #[must_use]
    pub fn allows(&self, action: Action, target: Target<'_>) -> bool {
        let says = |effect: Effect, matches: &dyn Fn(&str) -> bool| {
            self.statements.iter().any(|statement| {
                statement.effect == effect
                    && statement.actions.iter().any(|named| *named == action || *named == Action::Any)
                    && statement.streams.iter().any(|pattern| matches(pattern))
            })
        };
        let everything = |pattern: &str| pattern.bytes().all(|byte| byte == b'*');
        match target {
            Target::Stream(name) => {
                let matches = |pattern: &str| is_match(pattern, name);
                says(Effect::Allow, &matches) && !says(Effect::Deny, &matches)
            }
            // One stream denied is not all.
            Target::All => says(Effect::Allow, &everything) && !says(Effect::Deny, &|_| true),
            Target::Some => says(Effect::Allow, &|_| true) && !says(Effect::Deny, &everything),
        }
    }
}

/// Whether the name is of the pattern. Goes back to the last star only, so takes at most the product of the lengths.
fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((star_p, star_n)) = star else { return false };
                star = Some((star_p, star_n + 1));
                (p, n) = (star_p + 1, star_n + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(effect: Effect, actions: &[Action], streams: &[&str]) -> Statement {
        Statement {
            effect,
            actions: actions.to_vec(),
            streams: streams.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn patterns() {
        for (pattern, names) in [
            ("*", &["", "a", "a.b"][..]),
            ("a", &["a"]),
            ("a*", &["a", "ab", "a*"]),
            ("*-cam", &["-cam", "x-cam", "x-cam-cam"]),
            ("a*b*c", &["abc", "aXbYc", "abcbc"]),
            ("**", &["", "x"]),
        ] {
            for name in names {
                assert!(is_match(pattern, name), "{pattern} {name}");
            }
        }
        for (pattern, name) in
            [("a", ""), ("a", "ab"), ("a", "A"), ("", "a"), ("a*b", "a"), ("a*b", "abx"), ("*x", "y")]
        {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
        assert!(!is_match(&"a*".repeat(128), &"a".repeat(100)));
    }

    #[test]
    fn what_is_not_allowed_is_denied_and_denials_win() {
        let policy = Policy {
            statements: vec![
                statement(Effect::Allow, &[Action::List, Action::Read], &["lobby-*", "yard"]),
                statement(Effect::Deny, &[Action::Any], &["lobby-safe"]),
            ],
        };
        let may = |action, name| policy.allows(action, Target::Stream(name));
        assert!(may(Action::Read, "lobby-1") && may(Action::List, "yard"));
        assert!(!may(Action::Push, "lobby-1") && !may(Action::Read, "lobby-safe") && !may(Action::Read, "yard2"));
        assert!(!policy.allows(Action::Read, Target::All) && policy.allows(Action::Read, Target::Some));
        assert!(!policy.allows(Action::Push, Target::Some) && !policy.allows(Action::Operate, Target::All));
        assert!(!Policy::default().allows(Action::List, Target::Some));
    }

    #[test]
    fn presets() {
        let everywhere = || vec!["*".to_owned()];
        let (read, write) = (Preset::Read.policy(everywhere()), Preset::Write.policy(everywhere()));
        for action in [Action::Push, Action::Create, Action::Tag, Action::Change, Action::Delete, Action::Operate] {
            assert!(!read.allows(action, Target::All), "{action:?}");
            assert!(Policy::all().allows(action, Target::All), "{action:?}");
        }
        assert!(read.allows(Action::Read, Target::All) && !write.allows(Action::Read, Target::All));
        assert!(write.allows(Action::Push, Target::All) && !write.allows(Action::Delete, Target::All));
        let mut but_one = Policy::all();
        but_one.statements.push(statement(Effect::Deny, &[Action::Read], &["a"]));
        assert!(!but_one.allows(Action::Read, Target::All) && but_one.allows(Action::List, Target::All));
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(Policy::all().check(), Ok(()));
        let allow = |actions: &[Action], streams: &[&str]| {
            Policy { statements: vec![statement(Effect::Allow, actions, streams)] }.check()
        };
        assert!(allow(&[Action::Read], &["a*"]).is_ok());
        assert!(allow(&[Action::Read], &[&"a*".repeat(8)]).is_ok());
        let stars = "*a".repeat(9);
        for streams in [&[][..], &[""], &["a b"], &["ü"], &["a/b"], &[&stars], &["a"; PATTERN_COUNT_MAX + 1]] {
            assert!(allow(&[Action::Read], streams).is_err(), "{streams:?}");
        }
        assert!(allow(&[Action::Read], &[&"a".repeat(257)]).is_err());
        assert!(allow(&[], &["*"]).is_err() && Policy::default().check().is_err());
    }
}
