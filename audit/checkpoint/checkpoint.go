package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
)

// Namespace is the namespace of the signatures, as OpenSSH's PROTOCOL.sshsig has it.
const Namespace = "sallyport-audit"

// Format is the format of a Checkpoint.
const Format = "sallyport-audit-checkpoint-1"

// Why a checkpoint was made.
const (
	WhyStart = "start" // a member started
	WhyTime  = "time"  // the last one was old enough
	WhyStop  = "stop"  // a member stops
)

// Checkpoint says where all chains stood. Times are UTC.
type Checkpoint struct {
	Format  string    `json:"format"`
	Number  int64     `json:"number"` // from 1, without gaps
	Time    time.Time `json:"time"`
	Account string    `json:"account"`
	Region  string    `json:"region"`
	By      string    `json:"by"` // the member that signed
	Why     string    `json:"why"`
	// Heads are the ends of all chains, in order of members.
	Heads []audit.Head `json:"heads"`
	// Problems are what the member found wrong with the log since the checkpoint before.
	Problems []string `json:"problems,omitempty"`
	Prev     string   `json:"prev"` // hex SHA-256 of the text of the checkpoint before, or 64 zeros
}

// Signed is a checkpoint as it is kept. Text is what was signed, byte for byte.
type Signed struct {
	Number    int64  `json:"Number"`
	Text      string `json:"Text"`      // JSON of a Checkpoint and a line feed
	Signature string `json:"Signature"` // armored, as of ssh-keygen -Y sign
	PublicKey string `json:"PublicKey"` // as in authorized_keys; who signed, if it is believed
	Stored    bool   `json:"Stored"`    // in the recording store, too
}

// Errors of checkpoints.
var (
	// ErrConflict is returned for a checkpoint that another one came before.
	ErrConflict = errors.New("another checkpoint was made meanwhile")
	// ErrKey is returned for a checkpoint that none of the trusted keys signed.
	ErrKey = errors.New("is not signed by a trusted key")
	// ErrSize is in errors of Objects: what lies there is larger than MaxText.
	ErrSize = errors.New("is too large to be a checkpoint")
)

// Sum is what the next checkpoint's Prev is.
func (s Signed) Sum() string {
	sum := sha256.Sum256([]byte(s.Text))
	return hex.EncodeToString(sum[:])
}

// Sign signs a checkpoint.
func Sign(c Checkpoint, signer ssh.Signer) (Signed, error) {
	c.Format = Format
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return Signed{}, fmt.Errorf("encoding checkpoint %d: %w", c.Number, err)
	}
	text = append(text, '\n')
	sig, err := sshsig.Sign(bytes.NewReader(text), signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		return Signed{}, fmt.Errorf("signing checkpoint %d: %w", c.Number, err)
	}
	return Signed{
		Number: c.Number, Text: string(text), Signature: string(sshsig.Armor(sig)),
		PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
	}, nil
}

// Bounds of what is read as a checkpoint.
const (
	MaxText      = 4 << 20 // bytes: tens of thousands of members
	maxSignature = 16 << 10
)

// Open checks that one of the trusted keys signed a checkpoint, and reads it. Whether it
// lies where it belongs, and continues the one before, is the caller's to check.
func (s Signed) Open(trusted []ssh.PublicKey) (Checkpoint, error) {
	var c Checkpoint
	if len(s.Text) > MaxText || len(s.Signature) > maxSignature {
		return c, ErrSize
	}
	sig, err := sshsig.Unarmor([]byte(s.Signature))
	if err != nil {
		return c, fmt.Errorf("has a signature that cannot be read (%v): %w", err, ErrKey)
	}
	if !slices.ContainsFunc(trusted, func(key ssh.PublicKey) bool {
		return sshsig.Verify(strings.NewReader(s.Text), sig, key, sig.HashAlgorithm, Namespace) == nil
	}) {
		return c, ErrKey
	}
	if err := json.Unmarshal([]byte(s.Text), &c); err != nil {
		return c, fmt.Errorf("cannot be read: %w", err)
	}
	if c.Format != Format {
		return c, fmt.Errorf("has the format %q, must be %s", c.Format, Format)
	}
	return c, nil
}

// Folder is where checkpoints lie in the recording store.
const Folder = "audit/checkpoints/"

const (
	textSuffix = ".json"
	// SignatureSuffix follows the name of the text, as ssh-keygen -Y sign names it.
	SignatureSuffix = ".sig"
)

// Name is the name of the object that holds a checkpoint's text.
func Name(number int64) string { return fmt.Sprintf("%s%012d%s", Folder, number, textSuffix) }

// NumberOf is the number in the name of an object, 0 if it is not that of a text.
func NumberOf(name string) int64 {
	digits, found := strings.CutSuffix(strings.TrimPrefix(name, Folder), textSuffix)
	if !found || len(digits) != 12 {
		return 0
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || Name(n) != name {
		return 0
	}
	return n
}
