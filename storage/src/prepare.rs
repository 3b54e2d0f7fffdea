//! What is asked of an item before it is sealed.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use vidar_core::control::{Control, ControlRecord};
use vidar_core::ids::{FileId, FragmentNumber, StreamId};
use vidar_core::sink::SinkError;
use vidar_core::source::ConfigKey;

use crate::class;
use crate::commit::{Committer, Ready, What};
use crate::crypto::keyring::Keyring;
use crate::item::{Body, Fragment, Item};
use crate::read;
use crate::segment_file::record::TABLE_LEN_MAX;

impl Committer {
    /// Checks items; those that cannot be stored are answered at once.
    pub(crate) fn prepare(&self, items: Vec<Item>, keys: &Keyring) -> Vec<Ready> {
        let mut parts = HashSet::new();
        let mut ready = Vec::with_capacity(items.len());
        for (position, Item { body, reply, room }) in items.into_iter().enumerate() {
            match self.check(body, keys, &mut parts) {
                Ok(Some(what)) => {
                    let class = self.class(&what);
                    ready.push(Ready { position, class, what, reply, room });
                }
                Ok(None) => drop(reply.send(Ok(()))),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        ready
    }

    /// The class of its stream; of a fragment of which parts are stored, theirs.
    fn class(&self, what: &What) -> u8 {
        let controls = self.shared.controls();
        match what {
            What::Fragment { fragment, .. } => {
                let begun = self.fragments.get(&fragment.name());
                begun.map_or_else(|| controls.class(fragment.meta.stream), |begun| begun.class)
            }
            What::Control { record, .. } => class::of_control(&controls, &record.body),
        }
    }

    /// None if nothing needs to be written.
    fn check(
        &self,
        body: Body,
        keys: &Keyring,
        parts: &mut HashSet<(StreamId, FragmentNumber, u16)>,
    ) -> Result<Option<What>, SinkError> {
        let (control, is_copy) = match body {
            Body::Fragment(fragment) => return self.check_fragment(fragment, keys, parts).map(Some),
            Body::Control(body) => {
                (ControlRecord { number: self.shared.next_number(self.shared.clock.now()), body }, false)
            }
            Body::Copy(record) => (record, true),
        };
        // The deletion speaks for files that were begun before it: nothing about the stream may stand in later ones.
        let is_deletion = matches!(control.body, Control::StreamDeleted { .. });
        if !is_deletion && control.body.stream().is_some_and(|stream| self.shared.controls().is_deleted(stream)) {
            return Ok(None);
        }
        let plain = control.encode();
        if plain.len() > TABLE_LEN_MAX as usize {
            return Err(SinkError::Failed { detail: "the control record is too long".into() });
        }
        Ok(Some(What::Control { record: Arc::new(control), plain, is_copy }))
    }

    fn check_fragment(
        &self,
        fragment: Box<Fragment>,
        keys: &Keyring,
        parts: &mut HashSet<(StreamId, FragmentNumber, u16)>,
    ) -> Result<What, SinkError> {
        let failed = |detail: String| Err(SinkError::Failed { detail });
        let (stream, number) = fragment.name();
        if keys.current(stream).is_none() || self.shared.controls().is_gone(stream, number) {
            return Err(SinkError::NoSuchStream { stream });
        }
        if !fragment.within_bounds() {
            return failed(format!("fragment {number} is longer than a record can be"));
        }
        let known = self.fragments.get(&(stream, number));
        let is_known = |index: &u16| {
            parts.contains(&(stream, number, *index))
                || known.is_some_and(|open| open.parts.iter().any(|part| part.index == *index))
        };
        if let Some(missing) = fragment.parts.iter().find(|index| !is_known(index)) {
            return failed(format!("part {missing} of fragment {number} was not written"));
        }
        let key = fragment.config_key();
        let Some(config) = self.plain_config(key) else {
            return failed(format!("config {} of fragment {number} is not known", key.1));
        };
        if let Some(index) = fragment.part {
            parts.insert((stream, number, index));
        }
        Ok(What::Fragment { fragment, config })
    }

    /// A config that was put before: from memory, or from the newest files.
    fn plain_config(&self, key: ConfigKey) -> Option<Bytes> {
        if let Some(plain) = self.shared.configs.get(&key) {
            return Some(plain);
        }
        let files = self.rolling.newest();
        let keys = self.shared.keys.ring();
        let has_it = |file: &FileId| matches!(self.shared.files.config(*file, key, &keys), Ok(Some(_)));
        let plain =
            files.into_iter().filter(has_it).find_map(|file| read::plain_config(&self.shared, file, key).ok())?;
        self.shared.configs.insert(key, plain.clone(), plain.len());
        Some(plain)
    }
}
