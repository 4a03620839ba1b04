// Package checkpoint signs, every few minutes, where the chains of all members of a
// cluster stand, so that what the chains alone cannot show is found, too: an end that
// was cut off, a chain that is missing, a log that was rewritten from its beginning.
//
// A checkpoint names the head of every chain and the hash of the checkpoint before. It
// lies in the database and, beside the recordings, as two objects: the text that is
// signed, and its signature, which "ssh-keygen -Y verify" checks (namespace Namespace).
// Who has the database but neither the key nor the recording store cannot hide a change
// of what a checkpoint has seen.
package checkpoint
