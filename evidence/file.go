package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
)

// Namespace is the namespace of the signatures, as OpenSSH's PROTOCOL.sshsig has it.
const Namespace = "sallyport-evidence"

// Format is the format of an Export.
const Format = "sallyport-evidence-1"

// MaxFile bounds a file that is read, in bytes.
const MaxFile = 64 << 20

// Export is what is signed. Times are UTC.
type Export struct {
	Format  string    `json:"format"`
	Made    time.Time `json:"made"`
	By      string    `json:"by"` // ARN
	Account string    `json:"account"`
	Region  string    `json:"region"`
	// Request is a grant.Request, and Events are its grant.Event, in order.
	Request json.RawMessage   `json:"request"`
	Events  []json.RawMessage `json:"events"`
	Session []Session         `json:"sessions"`
	Audit   []audit.Record    `json:"audit"` // in order of members and their sequences
}

// Session is a session of who asked, while the grant held.
type Session struct {
	ID          string    `json:"id"`
	NodeID      string    `json:"node"`
	Document    string    `json:"document"`
	SessionType string    `json:"session_type"`
	Owner       string    `json:"owner"` // ARN
	RunAs       string    `json:"run_as,omitempty"`
	SourceIP    string    `json:"source_ip,omitempty"`
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended,omitzero"`
	EndReason   string    `json:"end_reason,omitempty"`
	// Granted tells that it was allowed thanks to this grant; others of the time are listed
	// for completeness.
	Granted   bool       `json:"granted"`
	Recording *Recording `json:"recording,omitempty"`
}

// Recording is the recording of a session.
type Recording struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256,omitempty"` // of the plain text, hex; empty while it is written
	Size   int64  `json:"size,omitempty"`   // of the plain text, in bytes
	// Manifest is the hex SHA-256 of its manifest.json in the recording store.
	Manifest string `json:"manifest_sha256,omitempty"`
}

// File is a signed Export. Evidence is its JSON, as text, so that what was signed is what
// is read.
type File struct {
	Evidence  string `json:"evidence"`
	PublicKey string `json:"public_key"` // as in authorized_keys
	Signature string `json:"signature"`  // armored, as of ssh-keygen -Y sign
}

// Sign makes the file of an export.
func Sign(e Export, signer ssh.Signer) (File, error) {
	e.Format = Format
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return File{}, fmt.Errorf("encoding evidence: %w", err)
	}
	sig, err := sshsig.Sign(bytes.NewReader(text), signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		return File{}, fmt.Errorf("signing evidence: %w", err)
	}
	return File{
		Evidence: string(text), Signature: string(sshsig.Armor(sig)),
		PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
	}, nil
}

// Read reads a file.
func Read(r io.Reader) (File, error) {
	var f File
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("larger than %d bytes", MaxFile)
	}
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err == nil && (f.Evidence == "" || f.Signature == "") {
		err = errors.New("there is no evidence and signature in it")
	}
	if err != nil {
		return f, fmt.Errorf("reading evidence: %w", err)
	}
	return f, nil
}
