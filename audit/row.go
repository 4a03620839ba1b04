package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Row is a record as a store keeps it: where it lies, its text, and the columns that it
// is found by. A store that somebody else wrote to may hold rows that are no records.
type Row struct {
	Member string
	Seq    int64
	Text   string // JSON of the record, as AppendAudit wrote it

	// Columns that records are searched by.
	Time                                              time.Time
	Event, Principal, Action, Decision, Node, Session string
	Hash                                              string
}

// Record reads the record in a row. The error says what is wrong with the row itself:
// its text is not one that was written, or lies in another's place. The record is
// returned with it as far as it could be read.
func (w Row) Record() (Record, error) {
	r, err := ParseRecord([]byte(w.Text))
	if err != nil {
		return r, err
	}
	if r.Member != w.Member || r.Seq != w.Seq {
		return r, fmt.Errorf("holds record %d of member %q: they were swapped or moved", r.Seq, r.Member)
	}
	for _, c := range []struct{ name, row, record string }{
		{"hash", w.Hash, r.Hash}, {"event", w.Event, r.Event}, {"principal", w.Principal, r.Principal},
		{"action", w.Action, r.Action}, {"decision", w.Decision, r.Decision}, {"node", w.Node, r.Node},
		{"session", w.Session, r.Session},
	} {
		if c.row != c.record {
			return r, fmt.Errorf("was changed: its column %s is not that of the record", c.name)
		}
	}
	if w.Time.UnixMicro() != r.Time.UnixMicro() {
		return r, fmt.Errorf("was changed: its column time is not that of the record")
	}
	return r, nil
}

// ParseRecord reads the JSON of a record. It takes none that says more, less or the same
// otherwise than what the record would be written as, but for white space and HTML
// escapes: of those, nothing hangs on a hash.
func ParseRecord(text []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("was changed: it cannot be read: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return r, fmt.Errorf("was changed: it cannot be read: %w", err)
	}
	escaped, err := json.Marshal(r)
	if err != nil {
		return r, fmt.Errorf("encoding audit record: %w", err)
	}
	if bytes.Equal(compact.Bytes(), escaped) {
		return r, nil
	}
	plain, err := Encode(r)
	if err != nil || !bytes.Equal(compact.Bytes(), plain) {
		return r, fmt.Errorf("was changed: its text is not as it was written")
	}
	return r, nil
}

// Encode returns the JSON of a record, as its canonical form has it but with its hash.
func Encode(r Record) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encoding audit record: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// Inspector checks one member's chain and goes on after what is wrong, so that every
// place is found and none is blamed for the one before. The zero value is ready.
type Inspector struct {
	last    Record
	unknown bool // which hash the last record had
}

// Inspect takes the next row and returns its record and what is wrong at it, "" for
// nothing.
func (i *Inspector) Inspect(w Row) (Record, string) {
	r, err := w.Record()
	if err != nil {
		i.last, i.unknown = Record{Member: w.Member, Seq: w.Seq, Time: i.last.Time}, true
		return r, err.Error()
	}
	return r, i.Next(r)
}

// Next takes the next record, and returns what is wrong at it, "" for nothing.
func (i *Inspector) Next(r Record) string {
	problem := i.judge(r)
	if r.Seq > i.last.Seq {
		// As it says of itself, so that the next one is judged by that.
		i.last, i.unknown = r, false
	}
	return problem
}

func (i *Inspector) judge(r Record) string {
	sum, err := Sum(r)
	if err != nil || sum != r.Hash {
		return "was changed: its hash is not that of its content"
	}
	last := i.last
	if i.unknown {
		last.Hash = r.Prev
	}
	return linkProblem(last, r)
}

// Last is the record that was inspected last; its Seq is 0 before the first.
func (i *Inspector) Last() Record { return i.last }

// Resume makes the place after a record the next one to be inspected.
func (i *Inspector) Resume(last Record) { i.last, i.unknown = last, false }

// RowOf is the row that a record lies in, and text is how it is written there.
func RowOf(r Record, text string) Row {
	return Row{
		Member: r.Member, Seq: r.Seq, Text: text, Time: r.Time, Event: r.Event, Principal: r.Principal,
		Action: r.Action, Decision: r.Decision, Node: r.Node, Session: r.Session, Hash: r.Hash,
	}
}
