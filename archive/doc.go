// Package archive keeps recordings: it takes them down while their sessions run, in
// sealed pieces on this machine's disk first and in the object store soon after, and
// reads them back, wherever they lie, without believing anything that it cannot verify.
//
// A recording named 2026/11/20/SESSION is a few objects under that name, the same in
// the spool and in the store:
//
//	key.json       the recording's own key, wrapped by the configured one
//	000001.chunk … sealed frames of what the session showed (see frame)
//	manifest.json  written last: what the chunks are, with their digests and that of the
//	               whole plain recording (asciicast, see package recording)
//
// The SHA-256 of manifest.json is in the audit record of the session's end, so that the
// audit chain covers the manifest and the manifest covers every byte.
package archive
