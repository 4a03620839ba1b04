// Package index makes what sessions showed findable: it keeps their transcripts (package
// transcript) in a Store while they run, and answers which lines match a text or a
// regular expression.
//
// Nothing waits for it. A session's recorder hands over copies of its events; what does
// not fit into bounded memory is dropped, the transcript counts as partial and is made
// again from the recording once the session has ended, as is what a crash cut off. The
// index is made of recordings alone and can be thrown away.
package index
