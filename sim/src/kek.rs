//! The key provider: a service beside the machine that has its own memory, and does not always answer.

use vidar_storage::Secret;
use vidar_storage::crypto::kek::{KekError, KekProvider};

use crate::disk::SimDisk;

/// What the provider remembers. A copy of the directory comes with a copy of it, as with that of a key file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// Number of the key.
    current: u8,
    /// Number of the next one, while the key is rotated.
    next: Option<u8>,
    /// So many calls are answered, then so many are not.
    answers: u32,
    silent: u32,
}

impl Memory {
    /// After `answers` calls it does not answer for the next `silent`.
    pub(crate) fn fall_silent(&mut self, answers: u32, silent: u32) {
        (self.answers, self.silent) = (answers, silent);
    }

    fn answers(&mut self) -> bool {
        match (self.answers, self.silent) {
            (0, 0) => true,
            (0, silent) => {
                self.silent = silent - 1;
                false
            }
            (answers, _) => {
                self.answers = answers - 1;
                true
            }
        }
    }
}

/// A provider that needs no key: what it wrapped opens under the same number, and under no other.
pub(crate) struct NumberedKek {
    disk: SimDisk,
    /// It has another key.
    is_wrong: bool,
}

impl NumberedKek {
    /// The one that belongs to a directory.
    #[must_use]
    pub(crate) fn of(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), is_wrong: false }
    }

    /// One that belongs to none.
    #[must_use]
    pub(crate) fn wrong(disk: &SimDisk) -> Self {
        Self { is_wrong: true, ..Self::of(disk) }
    }

    fn ask<T>(&self, what: &str, work: impl FnOnce(&mut Memory) -> Option<T>) -> Result<T, KekError> {
        let silent = || KekError::Unavailable { place: self.place(), detail: "it is down".into() };
        let answer = self.disk.kek(what, |kek| kek.answers().then(|| work(kek)));
        answer.ok_or_else(silent)?.ok_or_else(|| KekError::Wrong { place: self.place() })
    }

    fn wrapped(number: u8, secret: &Secret) -> Vec<u8> {
        [&[number], &secret.bytes()[..]].concat()
    }
}

impl std::fmt::Debug for NumberedKek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NumberedKek").finish_non_exhaustive()
    }
}

impl KekProvider for NumberedKek {
    fn place(&self) -> String {
        "the simulation's key".into()
    }

    fn prepare(&self) -> Result<(), KekError> {
        self.ask("prepare", |_| Some(()))
    }

    fn wrap(&self, _context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        self.ask("wrap", |kek| Some(Self::wrapped(kek.current, secret)))
    }

    fn unwrap(&self, _context: &[u8], wrapped: &[u8]) -> Result<Secret, KekError> {
        self.ask("unwrap", |kek| {
            let (number, secret) = wrapped.split_first()?;
            let opens = !self.is_wrong && (*number == kek.current || Some(*number) == kek.next);
            secret.try_into().ok().filter(|_| opens).map(Secret::new)
        })
    }

    fn rotate(&self, _context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        self.ask("rotate", |kek| {
            let next = *kek.next.get_or_insert(kek.current.wrapping_add(1));
            Some(Self::wrapped(next, secret))
        })
    }

    fn settle(&self, _context: &[u8], wrapped: &[u8]) -> Result<(), KekError> {
        self.ask("settle", |kek| {
            if let Some(next) = kek.next.take()
                && wrapped.first() == Some(&next)
            {
                kek.current = next;
            }
            Some(())
        })
    }
}
