//! URIs of the native playlists: files below the folder of a rendition.

use vidar_core::entry::SharedEntry;
use vidar_core::ids::FragmentNumber;

use super::plan::Names;
use super::rendition::RenditionId;

/// How they are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uris {
    /// `token=…`, percent-encoded, if the request had one.
    pub(crate) token: Option<String>,
    /// Init segments name the fragment they are found by.
    pub(crate) hint_init: bool,
    /// Name of the media playlists, and what they are told.
    pub(crate) file: &'static str,
    pub(crate) parameters: Vec<(&'static str, String)>,
}

impl Uris {
    /// A URI with its parameters and the token.
    fn with(&self, path: &str, parameters: &[(&str, String)]) -> String {
        let own = parameters.iter().map(|(name, value)| format!("{name}={value}"));
        let all: Vec<String> = own.chain(self.token.clone()).collect();
        if all.is_empty() { path.to_owned() } else { format!("{path}?{}", all.join("&")) }
    }
}

impl Names for Uris {
    fn playlist(&self, id: RenditionId) -> String {
        self.with(&format!("{id}/{}", self.file), &self.parameters)
    }

    fn init(&self, _: RenditionId, entry: &SharedEntry) -> String {
        let hint = self.hint_init.then(|| ("at", entry.meta.number.to_string()));
        self.with(&format!("init-{}.mp4", entry.meta.config), hint.as_slice())
    }

    fn segment(&self, _: RenditionId, number: FragmentNumber) -> String {
        self.with(&format!("{number}.m4s"), &[])
    }

    fn missing(&self, _: RenditionId, ordinal: u64) -> String {
        self.with(&format!("gap-{ordinal}.m4s"), &[])
    }
}
