//! A stretch of server time: one tantivy index, dropped as a whole.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use tantivy::directory::RamDirectory;
use tantivy::indexer::{IndexWriterOptions, NoMergePolicy};
use tantivy::schema::IndexRecordOption;
use tantivy::store::Compressor;
use tantivy::{
    Directory, DocSet, Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, SegmentReader,
    TERMINATED, TantivyDocument, Term,
};

use super::directory::{ChunkCache, SealedDirectory};
use super::schema::{Fields, Identity, Number};
use super::subject::{Subject, stream_key};
use vidar_core::ids::{FileId, StreamId};

/// Raised with every change to what documents hold: older files are then made again.
const DOCUMENT_VERSION: u32 = 4;
/// Memory that a writer fills before it writes a segment.
const WRITER_BYTES: usize = 32 << 20;

/// Where partitions are.
#[derive(Clone)]
pub(super) enum Home {
    Memory,
    Disk { dir: PathBuf, key: [u8; 32], cache: Arc<ChunkCache> },
}

/// Number of a partition: server time divided by its length.
pub(super) type PartitionId = i64;

pub(super) struct Partition {
    index: Index,
    reader: IndexReader,
    writer: Option<IndexWriter>,
    fields: Arc<Fields>,
    /// None: in memory.
    pub(super) path: Option<PathBuf>,
    /// Greatest sequence of a fragment that it may hold.
    newest: u64,
    /// Of the stream that was asked for last.
    of_stream: Option<(StreamId, Attributes)>,
}

/// What committed documents were made with, by their ids, in order.
type Attributes = Vec<(u64, u64)>;

impl Home {
    /// Partitions that are on disk. Those of another version are removed.
    pub(super) fn list(&self) -> io::Result<BTreeMap<PartitionId, PathBuf>> {
        let mut found = BTreeMap::new();
        let Self::Disk { dir, .. } = self else { return Ok(found) };
        fs::create_dir_all(dir)?;
        for (path, version, id) in partitions(dir)? {
            if version != DOCUMENT_VERSION {
                remove(&path);
            } else if let Some(other) = found.insert(id, path) {
                remove(&other);
            }
        }
        Ok(found)
    }

    /// Directories of partitions that are on disk now.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let Self::Disk { dir, .. } = self else { return Ok(Vec::new()) };
        let own = partitions(dir)?.into_iter().filter(|(_, version, _)| *version == DOCUMENT_VERSION);
        Ok(own.filter_map(|(path, _, _)| name(&path)).collect())
    }

    /// Makes a partition. Its directory is new: a thread that still writes to one that was removed does no harm.
    pub(super) fn make(&self, id: PartitionId, fields: &Arc<Fields>) -> tantivy::Result<Partition> {
        match self {
            Self::Memory => Partition::open(Box::new(RamDirectory::create()), None, fields),
            Self::Disk { dir, .. } => {
                self.open(dir.join(format!("v{DOCUMENT_VERSION}-{id}-{}", FileId::new())), fields)
            }
        }
    }

    /// Opens a partition that was listed.
    pub(super) fn open(&self, path: PathBuf, fields: &Arc<Fields>) -> tantivy::Result<Partition> {
        let directory: Box<dyn Directory> = match self {
            Self::Memory => Box::new(RamDirectory::create()),
            Self::Disk { key, cache, .. } => Box::new(SealedDirectory::open(path.clone(), *key, Arc::clone(cache))?),
        };
        Partition::open(directory, Some(path), fields)
    }
}

/// Removes all partitions in a directory, and the directory if nothing else is in it.
pub(crate) fn wipe(dir: &Path) -> io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    for (path, _, _) in partitions(dir)? {
        fs::remove_dir_all(path)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// Path, version and id of all partitions in a directory. What else is there is not ours.
fn partitions(dir: &Path) -> io::Result<Vec<(PathBuf, u32, PartitionId)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some((version, id)) = path.file_name().and_then(|name| read_name(name.to_str()?)) {
            found.push((path, version, id));
        }
    }
    Ok(found)
}

/// The last part of its path.
pub(super) fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// `vVERSION-ID-UUID`.
fn read_name(name: &str) -> Option<(u32, PartitionId)> {
    let (version, rest) = name.strip_prefix('v')?.split_once('-')?;
    let (id, uuid) = rest.split_at_checked(rest.len().checked_sub(37)?)?;
    uuid.strip_prefix('-')?.parse::<FileId>().ok()?;
    Some((version.parse().ok()?, id.parse().ok()?))
}

/// Removes a partition's files. Searchers that still hold them may fail.
pub(super) fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "index files could not be removed");
    }
}

pub(super) fn settings() -> IndexSettings {
    IndexSettings {
        docstore_compression: Compressor::None,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}

impl Partition {
    fn open(directory: Box<dyn Directory>, path: Option<PathBuf>, fields: &Arc<Fields>) -> tantivy::Result<Self> {
        let index = if Index::exists(&*directory)? {
            Index::open(directory)?
        } else {
            Index::builder().schema(fields.schema.clone()).settings(settings()).open_or_create(directory)?
        };
        if index.schema() != fields.schema {
            return Err(tantivy::TantivyError::SchemaError("made by another version".to_owned()));
        }
        let reader: IndexReader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let newest = newest(&reader.searcher())?;
        Ok(Self { index, reader, writer: None, fields: Arc::clone(fields), path, newest, of_stream: None })
    }

    pub(super) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// Documents that were committed.
    pub(super) fn len(&self) -> u64 {
        self.searcher().num_docs()
    }

    /// Attributes of the document of a subject, if one was committed. Of a fragment that is newer than all of them the
    /// files are not asked: nearly all are. Of another one they are asked for all of its stream, which costs little more:
    /// ask for those of a stream one after the other, and then [forget](Self::forget_stream) it.
    pub(super) fn held(&mut self, subject: Subject) -> tantivy::Result<Option<u64>> {
        let stream = match subject {
            Subject::Fragment(_, number) if number.sequence() > self.newest => return Ok(None),
            Subject::Fragment(stream, _) => stream,
            Subject::Run(..) | Subject::Gap(..) => return self.held_alone(subject),
        };
        if self.of_stream.as_ref().is_none_or(|(known, _)| *known != stream) {
            self.of_stream = Some((stream, self.all_held(stream)?));
        }
        let held = self.of_stream.as_ref().map_or(&[][..], |(_, held)| held);
        let found = held.binary_search_by_key(&subject.id(), |(id, _)| *id).ok();
        Ok(found.and_then(|index| held.get(index)).map(|(_, attributes)| *attributes))
    }

    /// Gives the memory back that `held` took.
    pub(super) fn forget_stream(&mut self) {
        self.of_stream = None;
    }

    #[cfg(test)]
    pub(super) fn keeps_stream(&self) -> bool {
        self.of_stream.is_some()
    }

    fn all_held(&self, stream: StreamId) -> tantivy::Result<Attributes> {
        let term = self.stream_term(stream);
        let mut held = Attributes::new();
        for segment in self.searcher().segment_readers() {
            let inverted = segment.inverted_index(term.field())?;
            let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::Basic)? else { continue };
            let columns = segment.fast_fields();
            let (ids, attributes) = (columns.u64(Identity::Id.name())?, columns.u64(Identity::Attributes.name())?);
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if !segment.is_deleted(doc) {
                    held.extend(ids.first(doc).zip(attributes.first(doc)));
                }
                doc = postings.advance();
            }
        }
        held.sort_unstable();
        Ok(held)
    }

    /// Whether a document of a subject was committed. Nothing of its stream is remembered.
    pub(super) fn holds(&self, subject: Subject) -> tantivy::Result<bool> {
        let is_newer = matches!(subject, Subject::Fragment(_, number) if number.sequence() > self.newest);
        Ok(!is_newer && self.held_alone(subject)?.is_some())
    }

    fn held_alone(&self, subject: Subject) -> tantivy::Result<Option<u64>> {
        let term = self.term(subject.id());
        for segment in self.searcher().segment_readers() {
            let inverted = segment.inverted_index(term.field())?;
            let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::Basic)? else { continue };
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if !segment.is_deleted(doc) {
                    return Ok(segment.fast_fields().u64(Identity::Attributes.name())?.first(doc));
                }
                doc = postings.advance();
            }
        }
        Ok(None)
    }

    /// Adds the document of a subject, in the place of one that was committed. What is deleted is looked for in every
    /// segment: so nothing is that is not there.
    pub(super) fn add(&mut self, subject: Subject, document: TantivyDocument) -> tantivy::Result<()> {
        let is_held = self.held(subject)?.is_some();
        let term = self.term(subject.id());
        let writer = self.writer()?;
        if is_held {
            writer.delete_term(term);
        }
        writer.add_document(document)?;
        Ok(())
    }

    /// Whether it holds documents of a stream, dead ones included.
    pub(super) fn has_stream(&self, stream: StreamId) -> tantivy::Result<bool> {
        Ok(self.searcher().doc_freq(&self.stream_term(stream))? > 0)
    }

    /// Deletes a stream's documents, and writes what is left into new files: no byte of them stays in any that is needed.
    pub(super) fn purge(&mut self, stream: StreamId) -> tantivy::Result<()> {
        // A merge that is under way would bring them into another file.
        self.close_writer()?;
        let term = self.stream_term(stream);
        let writer = self.writer()?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        writer.delete_term(term);
        self.commit()?;
        self.expunge()?;
        self.close_writer()?;
        if self.has_stream(stream)? {
            return Err(tantivy::TantivyError::InternalError("documents of a deleted stream stayed".to_owned()));
        }
        Ok(())
    }

    /// Removes files of segments that were merged into others. A query that still reads them fails, and is tried again.
    pub(super) fn collect_garbage(&self) -> tantivy::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let needed: HashSet<String> =
            self.index.searchable_segment_ids()?.iter().map(tantivy::index::SegmentId::uuid_string).collect();
        // While a writer is open it may be about a segment that is not needed yet.
        if self.writer.is_some() {
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            let of = path.file_name().and_then(|name| name.to_str()?.split_once('.')).map(|(of, _)| of);
            if of.is_some_and(|of| of.len() == 32 && !needed.contains(of)) {
                remove(&path);
            }
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, id: u64) -> tantivy::Result<()> {
        let term = self.term(id);
        self.writer()?.delete_term(term);
        Ok(())
    }

    fn term(&self, id: u64) -> Term {
        Term::from_field_u64(self.fields.identity(Identity::Id), id)
    }

    fn stream_term(&self, stream: StreamId) -> Term {
        Term::from_field_u64(self.fields.identity(Identity::Stream), stream_key(stream))
    }

    pub(super) fn commit(&mut self) -> tantivy::Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.commit()?;
            self.reader.reload()?;
            self.newest = newest(&self.searcher())?;
            self.of_stream = None;
        }
        Ok(())
    }

    /// Writes the documents that are left into new files, so that no byte of deleted ones stays.
    pub(super) fn expunge(&mut self) -> tantivy::Result<()> {
        let segments: Vec<_> = self
            .searcher()
            .segment_readers()
            .iter()
            .filter(|reader| reader.has_deletes())
            .map(SegmentReader::segment_id)
            .collect();
        if !segments.is_empty() {
            let writer = self.writer()?;
            writer.merge(&segments).wait()?;
            writer.commit()?;
            self.reader.reload()?;
        }
        Ok(())
    }

    /// Lets merges end and gives the writer's threads back.
    pub(super) fn close_writer(&mut self) -> tantivy::Result<()> {
        match self.writer.take() {
            Some(writer) => writer.wait_merging_threads(),
            None => Ok(()),
        }
    }

    fn writer(&mut self) -> tantivy::Result<&mut IndexWriter> {
        if self.writer.is_none() {
            let options = IndexWriterOptions::builder()
                .num_worker_threads(1)
                .num_merge_threads(1)
                .memory_budget_per_thread(WRITER_BYTES)
                .build();
            self.writer = Some(self.index.writer_with_options(options)?);
        }
        self.writer.as_mut().ok_or_else(|| tantivy::TantivyError::InternalError("no writer".to_owned()))
    }
}

/// Greatest sequence of a fragment.
fn newest(searcher: &Searcher) -> tantivy::Result<u64> {
    let mut newest = 0;
    for segment in searcher.segment_readers() {
        newest = newest.max(segment.fast_fields().u64(Number::Sequence.name())?.max_value());
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_directories_are_ours() {
        let uuid = FileId::new();
        assert_eq!(read_name(&format!("v1-2922-{uuid}")), Some((1, 2922)));
        assert_eq!(read_name(&format!("v7--3-{uuid}")), Some((7, -3)));
        for other in ["", "v1", "video", "v1-5", "segments", &format!("1-5-{uuid}"), &format!("v1-x-{uuid}"), "v1-5-é"]
        {
            assert_eq!(read_name(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join(format!("v{DOCUMENT_VERSION}-5-{}", FileId::new()));
        fs::create_dir(&ours).unwrap();
        fs::write(dir.path().join("notes"), "x").unwrap();
        let old = dir.path().join(format!("v{}-5-{}", DOCUMENT_VERSION - 1, FileId::new()));
        fs::create_dir(&old).unwrap();
        let home = Home::Disk { dir: dir.path().to_owned(), key: [0; 32], cache: ChunkCache::new(0) };
        assert_eq!(home.list().unwrap(), BTreeMap::from([(5, ours.clone())]));
        assert!(!old.exists());
        wipe(dir.path()).unwrap();
        assert!(!ours.exists() && dir.path().join("notes").exists());
    }
}
