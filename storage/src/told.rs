//! What a file tells when the log is replayed: read and opened ahead, on another thread, so that who tells observers has
//! little left to do.
//!
//! Of a fragment the facts are opened. Its table is only if it may refer to parts: nobody is told of it, and a bit that
//! rotted in it does not match the checksum of the footer.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::record::{FragmentFacts, FragmentMeta};

use crate::controls::Controls;
use crate::crypto::keyring::Keyring;
use crate::files::{Witness, witness};
use crate::load::{LogFile, OpenPart, Records, open_fragment, opener_of, read_records};
use crate::segment_file::footer::{RecordEntry, Summary};
use crate::segment_file::reader::Wanted;
use crate::segment_file::record::RecordKind;

/// About what a fragment takes in memory: its entry, and what is the same for all facts.
const STEP_BYTES: usize = 1024;
/// What the rest of the facts takes, tags above all: so many times what it takes sealed.
const FACTS_SHARE: usize = 2;

/// What a file tells.
pub(crate) struct Told {
    /// In the order of its records.
    pub(crate) steps: Vec<Step>,
    pub(crate) witness: Option<Witness>,
    /// The disk did not give back all of it.
    pub(crate) unread: bool,
    /// About how many bytes of memory it takes.
    pub(crate) weight: usize,
}

/// What one record tells.
pub(crate) enum Step {
    /// There is a control record of this number.
    Control(FragmentNumber),
    /// A part of a fragment that is not closed here.
    Part { meta: FragmentMeta, class: u8, part: OpenPart },
    /// A fragment is closed.
    Closed(Closed),
    /// What stood there may no longer be read.
    Gone(Locator),
}

/// The record that closes a fragment.
pub(crate) struct Closed {
    /// Without its parts.
    pub(crate) entry: Arc<FragmentEntry>,
    pub(crate) part_count: u16,
    /// Or why it does not open.
    pub(crate) head: Result<Head, String>,
}

/// What is needed of a head.
pub(crate) struct Head {
    pub(crate) facts: Arc<FragmentFacts>,
    /// Parts in its table.
    pub(crate) refers_to: Vec<u16>,
}

impl Told {
    /// Reads a file. Fragments that are `gone` are left out, or where that is asked for named; of those whose parts were
    /// `torn` nothing is told.
    pub(crate) fn read(
        file: &LogFile,
        keys: &Keyring,
        gone: &Controls,
        torn: &HashSet<(StreamId, FragmentNumber)>,
        with_gone: bool,
    ) -> io::Result<Self> {
        let mut records = read_records(file, keys, Wanted::All).0?;
        let mut unread = false;
        if let Records::Scanned(scan) = &mut records {
            scan.drop_without_parts(|shape| !torn.contains(&(shape.meta.stream, shape.meta.number)));
            unread = scan.unread;
        }
        let archived = records.archived().unwrap_or(file.header.archive);
        let witness = witness(records.iter().map(|(entry, _)| entry), gone);
        let (mut steps, mut facts_len) = (Vec::with_capacity(records.len()), 0);
        records.for_each(|entry, head| {
            let meta = entry.shape.meta;
            let locator = entry.shape.locator(file.header.file, file.header.volume, entry.offset);
            let is_gone = || gone.is_gone(meta.stream, meta.number);
            match entry.shape.kind {
                RecordKind::Control => steps.push(Step::Control(meta.number)),
                RecordKind::Config => {}
                _ if is_gone() => steps.extend(with_gone.then_some(Step::Gone(locator))),
                RecordKind::Part => {
                    let (class, index) = (entry.shape.class, entry.shape.part);
                    steps.push(Step::Part { meta, class, part: OpenPart { index, locator } });
                }
                RecordKind::Fragment => {
                    let (part_count, head) = (entry.shape.part, open(keys, &entry, head));
                    facts_len += entry.shape.facts_len as usize;
                    let mut entry = entry;
                    if entry.summary.as_ref().is_none_or(|summary| *summary == Summary::default()) {
                        // It was listed by a recovery that lacked its key.
                        entry.summary = head.as_ref().ok().map(|head| Summary::new(&head.facts));
                    }
                    let entry = entry.timeline(file.header.file, file.header.volume, archived, Vec::new());
                    steps.push(Step::Closed(Closed { entry: Arc::new(entry), part_count, head }));
                }
            }
        });
        let weight = steps.len() * STEP_BYTES + facts_len * FACTS_SHARE;
        Ok(Self { steps, witness, unread, weight })
    }
}

/// Opens what is needed of the head of a fragment.
fn open(keys: &Keyring, entry: &RecordEntry, head: Option<&mut [u8]>) -> Result<Head, String> {
    if entry.shape.part == 0 {
        let head = head.ok_or("its head is missing")?;
        let facts = opener_of(keys, entry, head)?.facts(head).map_err(|error| error.to_string())?;
        return Ok(Head { facts: Arc::new(facts), refers_to: Vec::new() });
    }
    let head = open_fragment(keys, entry, head.map(|head| &*head))?;
    let refers_to = head.table.pieces.iter().filter_map(|piece| piece.part).collect();
    Ok(Head { facts: Arc::new(head.facts), refers_to })
}
