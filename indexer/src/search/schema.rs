//! The fields of a document. Nothing is stored: a result is made from catalog and timeline.
//!
//! Texts are single tokens, made by [`words`]: the index and the query need no tokenizer beyond that.

use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};

/// Fields that hold words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Stream,
    Device,
    Codec,
    Protocol,
    Source,
    Run,
    Kind,
    Gap,
    FragmentNumber,
    /// `name NUL word`, the name in lower case.
    Tags,
    /// The words of stream, device, codec, protocol, source and tags.
    Any,
    /// `name NUL value`, as it is: what groups of results are made by.
    Facet,
}

impl Text {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Stream, "stream"),
        (Self::Device, "device"),
        (Self::Codec, "codec"),
        (Self::Protocol, "protocol"),
        (Self::Source, "source"),
        (Self::Run, "run"),
        (Self::Kind, "kind"),
        (Self::Gap, "gap"),
        (Self::FragmentNumber, "fragment_number"),
        (Self::Tags, "tags"),
        (Self::Any, "any"),
        (Self::Facet, "facet"),
    ];

    /// Of its name in a query; none: not a field of words.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, known)| *known == name).map(|(field, _)| *field);
        known.filter(|field| !matches!(field, Self::Any | Self::Facet))
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Fields that hold numbers, for ranges and orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    Time,
    ServerTime,
    SizeBytes,
    DurationMs,
    Width,
    Height,
    Fps,
    Bitrate,
    /// High part of a fragment's number: their order.
    Sequence,
    /// First instant after it by the producer's clock.
    End,
}

/// What the numbers of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberType {
    Unsigned,
    /// Milliseconds since 1970.
    Time,
    Float,
}

impl Number {
    const ALL: [(Self, &'static str, NumberType); 10] = [
        (Self::Time, "time", NumberType::Time),
        (Self::ServerTime, "server_time", NumberType::Time),
        (Self::SizeBytes, "size_bytes", NumberType::Unsigned),
        (Self::DurationMs, "duration_ms", NumberType::Unsigned),
        (Self::Width, "width", NumberType::Unsigned),
        (Self::Height, "height", NumberType::Unsigned),
        (Self::Fps, "fps", NumberType::Float),
        (Self::Bitrate, "bitrate", NumberType::Unsigned),
        (Self::Sequence, "sequence", NumberType::Unsigned),
        (Self::End, "end", NumberType::Time),
    ];

    /// Of its name in a query; none: not a field of numbers.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(field, _, _)| *field);
        known.filter(|field| !matches!(field, Self::Sequence | Self::End))
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self.index()].1
    }

    pub(crate) fn number_type(self) -> NumberType {
        Self::ALL[self.index()].2
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn of_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).map(|(field, _, _)| *field)
    }
}

/// Columns by which a document is told from all others, and found in catalog and timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Of what it is a document of.
    Id,
    /// Fingerprint of the attributes of stream and run that it was made with.
    Attributes,
    /// Low half of the stream's id.
    Stream,
    /// [`HitKind`](super::HitKind).
    KindCode,
    /// Sequence of its number; of a run the high half of its id.
    High,
    /// Random bits of its number; of a run the low half of its id.
    Low,
    /// Milliseconds of its number; of a run 0.
    Millis,
    /// Once the floor's sequence is greater, it is gone.
    Expires,
}

impl Identity {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Id, "id"),
        (Self::Attributes, "attributes"),
        (Self::Stream, "stream_key"),
        (Self::KindCode, "kind_code"),
        (Self::High, "high"),
        (Self::Low, "low"),
        (Self::Millis, "millis"),
        (Self::Expires, "expires"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The schema, and its fields by name.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    pub(crate) schema: Schema,
    text: Vec<Field>,
    number: Vec<Field>,
    identity: Vec<Field>,
}

impl Fields {
    pub(crate) fn new() -> Self {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default().set_tokenizer("raw").set_fieldnorms(false);
        let words = TextOptions::default().set_indexing_options(indexing.set_index_option(IndexRecordOption::Basic));
        let text = Text::ALL.iter().map(|(_, name)| schema.add_text_field(name, words.clone())).collect();
        let fast = NumericOptions::default() | FAST;
        let mut number = Vec::new();
        for (_, name, number_type) in Number::ALL {
            number.push(match number_type {
                NumberType::Unsigned => schema.add_u64_field(name, fast.clone()),
                NumberType::Time => schema.add_i64_field(name, fast.clone()),
                NumberType::Float => schema.add_f64_field(name, fast.clone()),
            });
        }
        let mut identity = Vec::new();
        for (column, name) in Identity::ALL {
            let sought = matches!(column, Identity::Id | Identity::Stream);
            identity.push(schema.add_u64_field(name, if sought { fast.clone() | INDEXED } else { fast.clone() }));
        }
        Self { schema: schema.build(), text, number, identity }
    }

    pub(crate) fn text(&self, field: Text) -> Field {
        self.text[field.index()]
    }

    pub(crate) fn number(&self, field: Number) -> Field {
        self.number[field.index()]
    }

    pub(crate) fn identity(&self, column: Identity) -> Field {
        self.identity[column as usize]
    }
}

/// The token that every document with a value has.
pub(crate) const PRESENT: &str = "\0";

/// Words of a value that are found one by one.
const WORDS_MAX: usize = 64;

/// The tokens of a value: the whole, and where it has several, its words. Lower case: queries do not mind it.
pub(crate) fn words(value: &str) -> Vec<String> {
    let whole = value.to_lowercase();
    let mut words = vec![whole.clone()];
    let parts = whole.split(|c: char| !c.is_alphanumeric()).chain(whole.split_whitespace());
    for part in parts.filter(|part| !part.is_empty()).take(WORDS_MAX) {
        if !words.iter().any(|word| word == part) {
            words.push(part.to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_at_their_own_index() {
        assert!(Text::ALL.iter().enumerate().all(|(index, (field, _))| field.index() == index));
        assert!(Number::ALL.iter().enumerate().all(|(index, (field, _, _))| field.index() == index));
        assert!(Identity::ALL.iter().enumerate().all(|(index, (column, _))| *column as usize == index));
        assert_eq!((Text::of_name("any"), Text::of_name("facet")), (None, None));
        assert_eq!(Number::of_name("sequence"), None);
    }

    #[test]
    fn values_are_found_whole_and_by_word() {
        assert_eq!(words("Demo-RTSP"), ["demo-rtsp", "demo", "rtsp"]);
        assert_eq!(words("front door, öffen"), ["front door, öffen", "front", "door", "öffen", "door,"]);
        assert_eq!(words("h264"), ["h264"]);
        assert_eq!(words(""), [""]);
    }
}
