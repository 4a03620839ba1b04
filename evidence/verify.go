package evidence

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

// ErrKey is returned for a file that none of the trusted keys signed.
var ErrKey = errors.New("the evidence is not signed by a trusted key")

// Verify checks the signature of a file by one of the trusted keys, and that what it says
// fits together: the request is the one that was hashed, every decision is on that hash and
// every approval that counts was a step, what was granted has the approvals that its flow wants,
// every audit record is whole and those that follow each other are chained, every step has its
// record, every session that of its beginning or, once it is over, its end. It returns what the
// file says and everything that is wrong with it.
func Verify(f File, trusted []ssh.PublicKey) (Export, []string, error) {
	var e Export
	sig, err := sshsig.Unarmor([]byte(f.Signature))
	if err != nil {
		return e, nil, fmt.Errorf("reading the signature: %w", err)
	}
	signed := slices.ContainsFunc(trusted, func(key ssh.PublicKey) bool {
		return sshsig.Verify(strings.NewReader(f.Evidence), sig, key, sig.HashAlgorithm, Namespace) == nil
	})
	if !signed {
		return e, nil, ErrKey
	}
	if err := json.Unmarshal([]byte(f.Evidence), &e); err != nil {
		return e, nil, fmt.Errorf("reading evidence: %w", err)
	}
	if e.Format != Format {
		return e, nil, fmt.Errorf("the format is %q; this program reads %s", e.Format, Format)
	}
	r, err := e.Asked()
	if err != nil {
		return e, nil, err
	}
	return e, slices.Concat(wrongRequest(r), wrongEvents(r, e), wrongRecords(e.Audit), wrongSessions(e)), nil
}

// Asked reads the request.
func (e Export) Asked() (Request, error) {
	var r Request
	if err := json.Unmarshal(e.Request, &r); err != nil {
		return r, fmt.Errorf("reading the request: %w", err)
	}
	return r, nil
}

// Request is what is read of a request.
type Request struct {
	ID, State, Hash         string
	Frozen                  json.RawMessage
	Decisions               []Decision
	ApprovedAt, ActivatedAt time.Time
}

// Decision is what is read of one.
type Decision struct {
	Stage                         int
	Hash, Principal, Rule, Struck string
	Approve                       bool
	At                            time.Time
}

// step is what is read of a step.
type step struct {
	Seq                        int64
	Request, Kind, Hash, Actor string
	At                         time.Time
}

// Person is the name of who asked.
func (r Request) Person() string {
	var frozen struct{ Person struct{ Name string } }
	if json.Unmarshal(r.Frozen, &frozen) != nil {
		return ""
	}
	return frozen.Person.Name
}

// intact reports whether what was asked for is what was hashed: SHA-256 over its JSON
// without white space, which is how it was written.
func (r Request) intact() bool {
	var text bytes.Buffer
	var frozen struct{ ID string }
	if json.Compact(&text, r.Frozen) != nil || json.Unmarshal(r.Frozen, &frozen) != nil {
		return false
	}
	sum := sha256.Sum256(text.Bytes())
	return hex.EncodeToString(sum[:]) == r.Hash && frozen.ID == r.ID
}

func wrongRequest(r Request) (wrong []string) {
	if !r.intact() {
		wrong = append(wrong, fmt.Sprintf("request %s: what was asked for does not have the hash %s", r.ID, r.Hash))
	}
	for i, d := range r.Decisions {
		if d.Hash != r.Hash {
			wrong = append(wrong, fmt.Sprintf("decision %d is on hash %s", i+1, d.Hash))
		}
	}
	return append(wrong, r.lacking()...)
}

// granted reports whether the request was approved, whatever became of it.
func (r Request) granted() bool {
	return r.State == "Approved" || r.State == "Active" || !r.ApprovedAt.IsZero() || !r.ActivatedAt.IsZero()
}

// lacking tells of the stages that a request went through without the approvals of people that
// its flow wants. A rule approves for all stages.
func (r Request) lacking() (wrong []string) {
	var frozen struct {
		Flow struct{ Stages []struct{ Approvals int } }
	}
	if !r.granted() || json.Unmarshal(r.Frozen, &frozen) != nil { // which the hash tells
		return nil
	}
	approvals := map[int]int{}
	for _, d := range r.Decisions {
		if !d.counts() {
			continue
		}
		if d.Rule != "" {
			return nil
		}
		approvals[d.Stage]++
	}
	stages := frozen.Flow.Stages
	for i := range max(1, len(stages)) {
		want := 1
		if i < len(stages) {
			want = max(1, stages[i].Approvals)
		}
		if got := approvals[i]; got < want {
			wrong = append(wrong, fmt.Sprintf("stage %d was passed with %d of %d approvals", i+1, got, want))
		}
	}
	return wrong
}

// counts reports whether a decision is an approval that counts.
func (d Decision) counts() bool { return d.Approve && d.Struck == "" }

// wrongEvents finds steps of another request, out of order, or that the audit log does not
// have so, and approvals that were none.
func wrongEvents(r Request, e Export) (wrong []string) {
	var steps []step
	recorded := recordsOf(r, e.Audit)
	last := int64(0)
	for i, text := range e.Events {
		var ev step
		if err := json.Unmarshal(text, &ev); err != nil {
			wrong = append(wrong, fmt.Sprintf("step %d cannot be read", i+1))
			continue
		}
		if ev.Request != r.ID || ev.Hash != "" && ev.Hash != r.Hash {
			wrong = append(wrong, fmt.Sprintf("step %d (%s) is of another request", ev.Seq, ev.Kind))
		}
		if ev.Seq <= last {
			wrong = append(wrong, fmt.Sprintf("step %d (%s) is out of order", ev.Seq, ev.Kind))
		}
		if record, ok := recorded[strconv.FormatInt(ev.Seq, 10)]; !ok {
			wrong = append(wrong, fmt.Sprintf("step %d (%s) has no audit record", ev.Seq, ev.Kind))
		} else if record.Action != "request:"+ev.Kind || record.Principal != ev.Actor {
			wrong = append(wrong, fmt.Sprintf("step %d (%s by %s) is %s by %s in the audit log", ev.Seq, ev.Kind, ev.Actor, record.Action, record.Principal))
		}
		steps, last = append(steps, ev), ev.Seq
	}
	return append(wrong, wrongApprovals(r, steps)...)
}

// recordsOf are the audit records of a request's steps, by the step's number.
func recordsOf(r Request, all []audit.Record) map[string]audit.Record {
	recorded := map[string]audit.Record{}
	for _, record := range all {
		if record.Event == audit.EventRequest && record.Details["request"] == r.ID {
			recorded[record.Details["event"]] = record
		}
	}
	return recorded
}

// wrongApprovals finds approvals that count and are no step. Those of requests that were denied
// do not: code may deny what somebody has just approved.
func wrongApprovals(r Request, steps []step) (wrong []string) {
	for i, d := range r.Decisions {
		if !d.counts() || r.State == "Denied" || slices.ContainsFunc(steps, d.taken) {
			continue
		}
		by := d.Principal
		if d.Rule != "" {
			by = "rule " + d.Rule
		}
		wrong = append(wrong, fmt.Sprintf("decision %d, the approval of %s, is no step", i+1, by))
	}
	return wrong
}

// taken reports whether a step is that of an approval. What code approves because somebody just
// has is one step with that.
func (d Decision) taken(s step) bool {
	if s.Kind != "approved" {
		return false
	}
	if d.Rule != "" {
		return s.Actor == "rule "+d.Rule || s.At.Equal(d.At)
	}
	return s.Actor == d.Principal && s.At.Equal(d.At)
}

// wrongRecords finds audit records that were changed, and gaps where there can be none.
func wrongRecords(records []audit.Record) (wrong []string) {
	var before audit.Record
	for _, r := range records {
		sum, err := audit.Sum(r)
		if err != nil || sum != r.Hash {
			wrong = append(wrong, fmt.Sprintf("audit record %s/%d does not have its hash", r.Member, r.Seq))
		}
		if r.Member == before.Member && r.Seq == before.Seq+1 && r.Prev != before.Hash {
			wrong = append(wrong, fmt.Sprintf("audit record %s/%d does not continue the one before", r.Member, r.Seq))
		}
		before = r
	}
	return wrong
}

// wrongSessions finds sessions that no audit record tells of: of the end of those that are over,
// of the beginning of others. One that was lost before it began has no more than its end.
func wrongSessions(e Export) (wrong []string) {
	told := map[[2]string]bool{}
	for _, r := range e.Audit {
		told[[2]string{r.Session, r.Event}] = true
	}
	for _, s := range e.Session {
		event, what := audit.EventSessionStart, "beginning"
		if !s.Ended.IsZero() {
			event, what = audit.EventSessionEnd, "end"
		}
		if !told[[2]string{s.ID, event}] {
			wrong = append(wrong, fmt.Sprintf("session %s has no audit record of its %s", s.ID, what))
		}
	}
	return wrong
}
