package grant

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport.dev/flow"
)

// newID returns the id of a new request, as AWS forms those of access requests.
func newID() string {
	b := make([]byte, 6)
	rand.Read(b) // never fails
	return "oi-" + hex.EncodeToString(b)
}

// freeze returns what was asked for in the form in which it is stored and read again,
// and its hash: hex SHA-256 of its canonical JSON. The flow's code is left out, whose
// text is among the files of SetDigest.
func freeze(f Frozen) (Frozen, string, error) {
	f.Created = f.Created.UTC().Truncate(time.Microsecond)
	if f.Flow.Code != nil {
		f.Flow.Code = &flow.Code{File: f.Flow.Code.File}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return f, "", fmt.Errorf("freezing a request: %w", err)
	}
	var stored Frozen
	if err := json.Unmarshal(text, &stored); err != nil {
		return f, "", fmt.Errorf("freezing a request: %w", err)
	}
	hash, err := stored.hash()
	return stored, hash, err
}

func (f Frozen) hash() (string, error) {
	text, err := json.Marshal(f) // members in order, keys of maps sorted
	if err != nil {
		return "", fmt.Errorf("hashing a request: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Intact reports whether what was asked for is still what was hashed.
func (r Request) Intact() bool {
	hash, err := r.Frozen.hash()
	return err == nil && hash == r.Hash && r.Frozen.ID == r.ID
}

// Bounds of what people write.
const (
	maxReason  = 2000 // bytes
	maxComment = 2000
	maxValues  = 16 << 10 // bytes of a form, names and values
)

// CheckText refuses text that a terminal, a log or a reader might take for something
// else than text: control characters but for tabs and ends of lines, characters that turn
// the direction of writing, bytes that are no UTF-8. What is left is kept as it is.
func CheckText(field, text string, most int) error {
	if len(text) > most {
		return &flow.FieldError{Field: field, Problem: fmt.Sprintf("has %d bytes; at most %d are allowed", len(text), most)}
	}
	if !utf8.ValidString(text) {
		return &flow.FieldError{Field: field, Problem: "is not UTF-8"}
	}
	if i := strings.IndexFunc(text, hidden); i >= 0 {
		r, _ := utf8.DecodeRuneInString(text[i:])
		return &flow.FieldError{Field: field, Problem: fmt.Sprintf("has the control character %U; only printable text, tabs and line ends are allowed", r)}
	}
	return nil
}

// hidden reports whether a character does something instead of being seen.
func hidden(r rune) bool {
	switch r {
	case '\n', '\t':
		return false
	case '\u2028', '\u2029', '\ufeff':
		return true
	case '\u200c', '\u200d': // joiners, which some scripts and emoji need
		return false
	}
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)
}

// visible replaces characters that do something instead of being seen, ends of lines included.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if hidden(r) || r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// checkValues refuses forms that are too large or have hidden characters.
func checkValues(values flow.Values) error {
	size := 0
	for name, list := range values {
		size += len(name)
		for _, v := range list {
			size += len(v)
			if err := CheckText(clip(name, 64), v, maxReason); err != nil {
				return err
			}
		}
	}
	if size > maxValues || len(values) > 100 {
		return &flow.FieldError{Field: "values", Problem: fmt.Sprintf("come to %d bytes; at most %d are allowed", size, maxValues)}
	}
	return nil
}

// tidy makes the ends of lines one kind.
func tidy(text string) string {
	return strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n"))
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
