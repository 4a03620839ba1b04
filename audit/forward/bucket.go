package forward

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
)

// Objects is what of a bucket objects are written to.
type Objects interface {
	// Put writes an object; one of the same name holds the same and may be replaced.
	Put(ctx context.Context, name string, data []byte) error
}

// Bucket writes an object per batch. Close closes what it was made of.
type Bucket struct {
	Objects Objects
	Closer  func() error
}

// Send implements Sender.
func (w *Bucket) Send(ctx context.Context, b Batch) error {
	text := b.text()
	if err := w.Objects.Put(ctx, objectName(b, text), text); err != nil {
		return fmt.Errorf("writing the object: %w", err)
	}
	return nil
}

// Close implements Sender.
func (w *Bucket) Close() error {
	if w.Closer == nil {
		return nil
	}
	return w.Closer()
}

// objectName is the day of the first record, the member, the numbers of the records, and
// half of the text's SHA-256: what is sent twice gets the same name, unless batches were
// cut otherwise meanwhile. Whoever alters the database and has its records sent again
// replaces nothing: what they made of them lies beside what was sent before.
func objectName(b Batch, text []byte) string {
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%s/%s/%012d-%012d-%x.jsonl", b.Time.UTC().Format("2006/01/02"), safe(b.Member), b.First, b.Last, sum[:sha256.Size/2])
}

// safe keeps names of members, which are letters, digits, dashes and underscores, from
// being anything else in a name.
func safe(member string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, member)
}
