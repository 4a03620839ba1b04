package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// ErrChain is returned when records do not continue a chain.
var ErrChain = errors.New("audit chain is broken")

// NoPrev is the Prev of the first record of a chain.
var NoPrev = strings.Repeat("0", 2*sha256.Size)

// Canonical returns the bytes that a record's hash is taken over: its JSON with the
// members in the order of Record's fields and empty optional ones left out, the keys
// of details sorted bytewise, hash set to "", no white space, times in UTC as RFC 3339
// with as many decimals as needed, and no escapes but those that JSON demands and
// \u2028, \u2029 and the control characters, as encoding/json writes them without
// HTML escaping.
func Canonical(r Record) ([]byte, error) {
	r.Hash = ""
	r.Time = r.Time.UTC()
	return Encode(r)
}

// Sum returns the hash of a record: hexadecimal SHA-256 of its canonical form.
func Sum(r Record) (string, error) {
	text, err := Canonical(r)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Head is a place in a member's chain. Whoever keeps the heads of yesterday where
// the log's keeper cannot reach them can tell tomorrow whether the log was rewritten
// or its end cut off, which the chain alone cannot show.
type Head struct {
	Member string `json:"member"`
	Seq    int64  `json:"seq"`
	Hash   string `json:"hash"`
}

// linkProblem says how a record does not continue the one before it; "" if it does.
func linkProblem(last, r Record) string {
	prev := last.Hash
	if last.Seq == 0 {
		prev = NoPrev
	}
	switch {
	case r.Seq <= last.Seq:
		return fmt.Sprintf("comes after record %d: it was moved or repeated", last.Seq)
	case r.Seq > last.Seq+1:
		return fmt.Sprintf("comes after record %d: %s missing", last.Seq, span(last.Seq+1, r.Seq-1))
	case r.Prev != prev:
		return fmt.Sprintf("does not continue record %d: one of them was replaced", last.Seq)
	case r.Time.Before(last.Time):
		return fmt.Sprintf("is older than record %d", last.Seq)
	}
	return ""
}

func span(from, to int64) string {
	if from == to {
		return fmt.Sprintf("record %d is", from)
	}
	return fmt.Sprintf("records %d to %d are", from, to)
}

// Verify checks whole chains, from their first records, members interleaved in any
// way. It returns the first thing that is wrong, or the error of the iterator: an ErrChain
// names the record and what is wrong there. What a chain cannot show, package checkpoint
// does.
func Verify(records iter.Seq2[Record, error]) error {
	chains := map[string]*Inspector{}
	for r, err := range records {
		if err != nil {
			return err
		}
		if chains[r.Member] == nil {
			chains[r.Member] = &Inspector{}
		}
		if problem := chains[r.Member].Next(r); problem != "" {
			return fmt.Errorf("record %d of member %q %s: %w", r.Seq, r.Member, problem, ErrChain)
		}
	}
	return nil
}
