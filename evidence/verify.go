package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/grant"
)

// ErrKey is returned for a file that none of the trusted keys signed.
var ErrKey = errors.New("the evidence is not signed by a trusted key")

// Verify checks the signature of a file by one of the trusted keys, and that what it says
// fits together: the request is the one that was hashed, every decision is on that hash,
// every audit record is whole and those that follow each other are chained, every step has
// its record. It returns what the file says and everything that is wrong with it.
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
	return e, slices.Concat(wrongRequest(e.Request), wrongEvents(e), wrongRecords(e.Audit), wrongSessions(e)), nil
}

func wrongRequest(r grant.Request) (wrong []string) {
	if !r.Intact() {
		wrong = append(wrong, fmt.Sprintf("request %s: what was asked for does not have the hash %s", r.ID, r.Hash))
	}
	for i, d := range r.Decisions {
		if d.Hash != r.Hash {
			wrong = append(wrong, fmt.Sprintf("decision %d is on hash %s", i+1, d.Hash))
		}
	}
	return wrong
}

// wrongEvents finds steps of another request, out of order, or without an audit record.
func wrongEvents(e Export) (wrong []string) {
	last := int64(0)
	for _, ev := range e.Events {
		if ev.Request != e.Request.ID || ev.Hash != "" && ev.Hash != e.Request.Hash {
			wrong = append(wrong, fmt.Sprintf("step %d (%s) is of another request", ev.Seq, ev.Kind))
		}
		if ev.Seq <= last {
			wrong = append(wrong, fmt.Sprintf("step %d (%s) is out of order", ev.Seq, ev.Kind))
		}
		last = ev.Seq
	}
	return wrong
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

// wrongSessions finds sessions whose beginning or end no audit record tells.
func wrongSessions(e Export) (wrong []string) {
	told := map[[2]string]bool{}
	for _, r := range e.Audit {
		told[[2]string{r.Session, r.Event}] = true
	}
	for _, s := range e.Session {
		if !s.Ended.IsZero() && !told[[2]string{s.ID, audit.EventSessionEnd}] && !told[[2]string{s.ID, audit.EventDecision}] {
			wrong = append(wrong, "session "+s.ID+" has no audit record")
		}
	}
	return wrong
}
