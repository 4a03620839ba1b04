// Package evidence puts what is known of a request for access into one file that stands for
// itself: the request as it was asked, the decisions on it, the sessions that it opened with
// the digests of their recordings, and the audit records of all that, signed by the
// server's evidence key.
//
// The signature is one that "ssh-keygen -Y verify" checks, too (namespace Namespace, over
// the text of File.Evidence).
package evidence
