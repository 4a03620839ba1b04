package forward

import (
	"context"
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
	if err := w.Objects.Put(ctx, objectName(b), b.text()); err != nil {
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

// objectName is the day of the first record, the member, and the numbers of the records:
// what is sent twice gets the same name, unless batches were cut otherwise meanwhile.
func objectName(b Batch) string {
	return fmt.Sprintf("%s/%s/%012d-%012d.jsonl", b.Time.UTC().Format("2006/01/02"), safe(b.Member), b.First, b.Last)
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
