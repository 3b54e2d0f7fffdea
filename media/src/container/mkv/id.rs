//! Element ids of Matroska (RFC 9559 section 5 and appendix) and EBML (RFC 8794 section 11) that are read or written.

macro_rules! ids {
    ($($constant:ident = $id:literal $name:literal,)*) => {
        $(pub(super) const $constant: u32 = $id;)*

        /// The name in the specifications, or the id itself.
        pub(super) fn name(id: u32) -> std::borrow::Cow<'static, str> {
            match id {
                $($id => $name.into(),)*
                _ => format!("0x{id:X}").into(),
            }
        }
    };
}

ids! {
    EBML = 0x1A45_DFA3 "EBML",
    EBML_VERSION = 0x4286 "EBMLVersion",
    EBML_READ_VERSION = 0x42F7 "EBMLReadVersion",
    EBML_MAX_ID_LENGTH = 0x42F2 "EBMLMaxIDLength",
    EBML_MAX_SIZE_LENGTH = 0x42F3 "EBMLMaxSizeLength",
    DOC_TYPE = 0x4282 "DocType",
    DOC_TYPE_VERSION = 0x4287 "DocTypeVersion",
    DOC_TYPE_READ_VERSION = 0x4285 "DocTypeReadVersion",
    VOID = 0xEC "Void",
    CRC_32 = 0xBF "CRC-32",

    SEGMENT = 0x1853_8067 "Segment",
    SEEK_HEAD = 0x114D_9B74 "SeekHead",
    INFO = 0x1549_A966 "Info",
    TRACKS = 0x1654_AE6B "Tracks",
    CLUSTER = 0x1F43_B675 "Cluster",
    CUES = 0x1C53_BB6B "Cues",
    ATTACHMENTS = 0x1941_A469 "Attachments",
    CHAPTERS = 0x1043_A770 "Chapters",
    TAGS = 0x1254_C367 "Tags",

    TIMESTAMP_SCALE = 0x2A_D7B1 "TimestampScale",
    DURATION = 0x4489 "Duration",
    DATE_UTC = 0x4461 "DateUTC",
    MUXING_APP = 0x4D80 "MuxingApp",
    WRITING_APP = 0x5741 "WritingApp",

    TRACK_ENTRY = 0xAE "TrackEntry",
    TRACK_NUMBER = 0xD7 "TrackNumber",
    TRACK_UID = 0x73C5 "TrackUID",
    TRACK_TYPE = 0x83 "TrackType",
    FLAG_LACING = 0x9C "FlagLacing",
    DEFAULT_DURATION = 0x23_E383 "DefaultDuration",
    NAME = 0x536E "Name",
    LANGUAGE = 0x22_B59C "Language",
    LANGUAGE_BCP47 = 0x22_B59D "LanguageBCP47",
    CODEC_ID = 0x86 "CodecID",
    CODEC_PRIVATE = 0x63A2 "CodecPrivate",
    CODEC_DELAY = 0x56AA "CodecDelay",
    SEEK_PRE_ROLL = 0x56BB "SeekPreRoll",
    MAX_BLOCK_ADDITION_ID = 0x55EE "MaxBlockAdditionID",
    BLOCK_ADDITION_MAPPING = 0x41E4 "BlockAdditionMapping",
    VIDEO = 0xE0 "Video",
    PIXEL_WIDTH = 0xB0 "PixelWidth",
    PIXEL_HEIGHT = 0xBA "PixelHeight",
    PIXEL_CROP_BOTTOM = 0x54AA "PixelCropBottom",
    PIXEL_CROP_TOP = 0x54BB "PixelCropTop",
    PIXEL_CROP_LEFT = 0x54CC "PixelCropLeft",
    PIXEL_CROP_RIGHT = 0x54DD "PixelCropRight",
    AUDIO = 0xE1 "Audio",
    SAMPLING_FREQUENCY = 0xB5 "SamplingFrequency",
    CHANNELS = 0x9F "Channels",
    BIT_DEPTH = 0x6264 "BitDepth",
    CONTENT_ENCODINGS = 0x6D80 "ContentEncodings",
    CONTENT_ENCODING = 0x6240 "ContentEncoding",
    CONTENT_ENCODING_SCOPE = 0x5032 "ContentEncodingScope",
    CONTENT_ENCODING_TYPE = 0x5033 "ContentEncodingType",
    CONTENT_COMPRESSION = 0x5034 "ContentCompression",
    CONTENT_COMP_ALGO = 0x4254 "ContentCompAlgo",
    CONTENT_COMP_SETTINGS = 0x4255 "ContentCompSettings",

    TIMESTAMP = 0xE7 "Timestamp",
    SIMPLE_BLOCK = 0xA3 "SimpleBlock",
    BLOCK_GROUP = 0xA0 "BlockGroup",
    BLOCK = 0xA1 "Block",
    BLOCK_DURATION = 0x9B "BlockDuration",
    REFERENCE_BLOCK = 0xFB "ReferenceBlock",
    BLOCK_ADDITIONS = 0x75A1 "BlockAdditions",
    DISCARD_PADDING = 0x75A2 "DiscardPadding",

    TAG = 0x7373 "Tag",
    TARGETS = 0x63C0 "Targets",
    TAG_TRACK_UID = 0x63C5 "TagTrackUID",
    TAG_EDITION_UID = 0x63C9 "TagEditionUID",
    TAG_CHAPTER_UID = 0x63C4 "TagChapterUID",
    TAG_ATTACHMENT_UID = 0x63C6 "TagAttachmentUID",
    SIMPLE_TAG = 0x67C8 "SimpleTag",
    TAG_NAME = 0x45A3 "TagName",
    TAG_STRING = 0x4487 "TagString",
}

/// Children of a Segment: they end a Cluster of unknown size (RFC 8794 section 6.2).
pub(super) fn is_segment_child(id: u32) -> bool {
    matches!(id, SEEK_HEAD | INFO | TRACKS | CLUSTER | CUES | ATTACHMENTS | CHAPTERS | TAGS)
}

/// Root elements: they end a Segment of unknown size.
pub(super) fn is_root(id: u32) -> bool {
    matches!(id, EBML | SEGMENT)
}
