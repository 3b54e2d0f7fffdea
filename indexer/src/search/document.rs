//! The document of a result.

use tantivy::TantivyDocument;

use super::SearchHit;
use super::aggregate::{facet, tag_facet};
use super::schema::{Fields, Identity, Number, PRESENT, Text, words};
use super::subject::{Standing, Subject, kind_code, stream_key};

pub(crate) fn document(fields: &Fields, subject: Subject, standing: &Standing, hit: &SearchHit) -> TantivyDocument {
    let mut document = Document { fields, document: TantivyDocument::default() };
    document.identity(subject, standing);
    document.numbers(subject, hit);
    document.texts(hit);
    document.document
}

struct Document<'a> {
    fields: &'a Fields,
    document: TantivyDocument,
}

impl Document<'_> {
    fn identity(&mut self, subject: Subject, standing: &Standing) {
        let [high, millis, low] = subject.name_parts();
        for (column, value) in [
            (Identity::Id, standing.id),
            (Identity::Attributes, standing.attributes),
            (Identity::Stream, stream_key(subject.stream())),
            (Identity::KindCode, kind_code(subject.kind())),
            (Identity::High, high),
            (Identity::Low, low),
            (Identity::Millis, millis),
            (Identity::Expires, standing.expires),
        ] {
            self.document.add_u64(self.fields.identity(column), value);
        }
    }

    fn numbers(&mut self, subject: Subject, hit: &SearchHit) {
        let end = hit.time.plus_ms(i64::try_from(hit.duration_ms.unwrap_or(0)).unwrap_or(i64::MAX).max(1));
        self.document.add_i64(self.fields.number(Number::Time), hit.time.0);
        self.document.add_i64(self.fields.number(Number::End), end.0);
        self.document.add_i64(self.fields.number(Number::ServerTime), hit.server_time.0);
        for (field, value) in [
            (Number::SizeBytes, hit.size_bytes),
            (Number::DurationMs, hit.duration_ms),
            (Number::Width, hit.width.map(u64::from)),
            (Number::Height, hit.height.map(u64::from)),
            (Number::Bitrate, hit.bitrate),
        ] {
            if let Some(value) = value {
                self.document.add_u64(self.fields.number(field), value);
            }
        }
        if let Some(fps) = hit.fps {
            self.document.add_f64(self.fields.number(Number::Fps), fps);
        }
        if let Subject::Fragment(_, number) = subject {
            self.document.add_u64(self.fields.number(Number::Sequence), number.sequence());
        }
    }

    fn texts(&mut self, hit: &SearchHit) {
        self.words(Text::Stream, &hit.stream_name);
        self.words(Text::Device, &hit.device);
        for codec in &hit.codecs {
            self.words(Text::Codec, codec);
            self.facet("codec", codec);
        }
        if let Some(protocol) = &hit.protocol {
            self.words(Text::Protocol, protocol);
            self.facet("protocol", protocol);
        }
        if let Some(source) = &hit.source {
            self.words(Text::Source, source);
            // The address without its port.
            if let Some((host, _)) = source.rsplit_once(':') {
                self.words(Text::Source, host);
            }
        }
        if let Some(run) = hit.run {
            self.token(Text::Run, &run.to_string());
        }
        self.token(Text::Kind, hit.kind.name());
        if let Some(number) = hit.fragment_number {
            self.token(Text::FragmentNumber, &number.to_string());
        }
        match hit.gap {
            None => self.document.add_text(self.fields.text(Text::Gap), "false"),
            Some(cause) => {
                self.document.add_text(self.fields.text(Text::Gap), "true");
                self.token(Text::Gap, cause);
                self.facet("gap", cause);
            }
        }
        for (name, value) in &hit.tags {
            self.tag(name, value);
            self.facet(&tag_facet(name), value);
        }
    }

    /// A value of one token.
    fn token(&mut self, field: Text, value: &str) {
        self.document.add_text(self.fields.text(field), value);
        self.document.add_text(self.fields.text(field), PRESENT);
    }

    fn words(&mut self, field: Text, value: &str) {
        self.document.add_text(self.fields.text(field), PRESENT);
        for word in words(value) {
            self.document.add_text(self.fields.text(field), &word);
            self.document.add_text(self.fields.text(Text::Any), &word);
        }
    }

    fn facet(&mut self, name: &str, value: &str) {
        self.document.add_text(self.fields.text(Text::Facet), facet(name, value));
    }

    fn tag(&mut self, name: &str, value: &str) {
        let name = name.to_lowercase();
        self.document.add_text(self.fields.text(Text::Tags), format!("{name}\0{PRESENT}"));
        for word in words(value) {
            self.document.add_text(self.fields.text(Text::Tags), format!("{name}\0{word}"));
            self.document.add_text(self.fields.text(Text::Any), &word);
        }
    }
}
