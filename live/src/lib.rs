//! The live hub: samples in order of arrival, for viewers at the head of a stream.
