//! Plain functions over bytes, for fuzzers and for a committed corpus.
