package transfer

import "strings"

// Operation is what was done.
type Operation string

// Operations. Upload and Download are told when the file is closed or the transfer ends.
const (
	Upload     Operation = "upload"
	Download   Operation = "download"
	Remove     Operation = "remove"
	Rename     Operation = "rename"
	Mkdir      Operation = "mkdir"
	Rmdir      Operation = "rmdir"
	Link       Operation = "link"
	Symlink    Operation = "symlink"
	Setattr    Operation = "setattr"
	Copy       Operation = "copy"
	Unfollowed Operation = "unfollowed" // the rest of the transfer is not told of
)

// Event is one thing done to a file, as the ends said.
type Event struct {
	Operation Operation
	Path      string // as the client or the sender named it; at most 4,096 bytes
	// Target is the other path of a rename, link or copy, or what scp on the node was
	// told to write or to read.
	Target string
	// Bytes were transferred, of an upload or a download. Offset is where in the file
	// the first of them belongs.
	Bytes, Offset int64
	// SHA256 is that of the transferred bytes, in hexadecimal; empty where Note says why.
	SHA256 string
	Note   string
	// Error is why the other end refused or broke off; empty for success.
	Error string
}

// maxPath bounds a path in an event, in bytes: Linux takes no longer one.
const maxPath = 4096

// clip makes a text that an end sent fit for an event.
func clip(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
