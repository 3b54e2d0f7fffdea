//! ISO base media files: fragmented MP4 and CMAF in and out, MP4 with its index first out.
