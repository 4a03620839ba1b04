// Package custody keeps recordings as long as they must be kept, and not longer: by
// retention, legal holds, deletion, and new wrapping of their keys.
//
// It promises:
//
//   - What is held is deleted by nobody. A hold is on a recording, or on all of a person,
//     a node or a request, those to come included. Placing a hold and condemning a
//     recording lock the same row of the store, so that of two that come together the
//     second sees what the first did, on whichever members they run.
//   - What cannot be audited is not deleted: the record is durable before.
//   - A recording that is deleted loses its key first: what is left of it anywhere, in a
//     backup too, cannot be read. Its row stays, with who deleted it and why.
//   - What the store refuses to delete is tried again, and shown until it is gone.
package custody
