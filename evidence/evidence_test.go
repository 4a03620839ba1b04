package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/internal/needs"
)

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// export is evidence of a request with one decision, one session and two audit records.
func export(t *testing.T) Export {
	t.Helper()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	r := asked(at)
	sum := sha256.Sum256(text(t, r.Frozen))
	r.Hash = hex.EncodeToString(sum[:])
	const carol, bob = "arn:aws:iam::111111111111:user/carol", "arn:aws:iam::111111111111:user/bob"
	r.Decisions = []grant.Decision{{Approve: true, By: flow.Person{Name: "bob"}, Principal: bob, Hash: r.Hash, At: at}}
	return Export{
		Made: at, By: "arn:aws:iam::111111111111:user/admin", Request: text(t, r),
		Events: []json.RawMessage{
			text(t, grant.Event{Seq: 1, Request: r.ID, Kind: grant.KindRequested, Actor: carol, Hash: r.Hash, At: at}),
			text(t, grant.Event{Seq: 2, Request: r.ID, Kind: grant.KindApproved, Actor: bob, Hash: r.Hash, At: at}),
		},
		Session: []Session{{ID: "carol-1", Started: at, Ended: at.Add(time.Minute), Granted: true}},
		Audit: chain(t, recordOf(r, "1", "requested", carol), recordOf(r, "2", "approved", bob),
			audit.Record{Event: audit.EventSessionEnd, Session: "carol-1", Time: at}),
	}
}

// recordOf is the audit record of a step.
func recordOf(r grant.Request, seq, kind, by string) audit.Record {
	return audit.Record{
		Event: audit.EventRequest, Time: r.Frozen.Created, Principal: by, Action: "request:" + kind,
		Details: map[string]string{"request": r.ID, "event": seq},
	}
}

func asked(at time.Time) grant.Request {
	return grant.Request{ID: "oi-0123456789ab", State: grant.Ended, Frozen: grant.Frozen{
		ID: "oi-0123456789ab", Person: flow.Person{Name: "carol"}, Reason: "look", Created: at,
	}}
}

func text(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changeRequest changes the request of an export.
func changeRequest(t *testing.T, change func(*grant.Request)) func(*Export) {
	return func(e *Export) {
		var r grant.Request
		if err := json.Unmarshal(e.Request, &r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		e.Request = text(t, r)
	}
}

// changeStep changes the second step of an export.
func changeStep(t *testing.T, change func(*grant.Event)) func(*Export) {
	return func(e *Export) {
		var ev grant.Event
		if err := json.Unmarshal(e.Events[1], &ev); err != nil {
			t.Fatal(err)
		}
		change(&ev)
		e.Events[1] = text(t, ev)
	}
}

func chain(t *testing.T, records ...audit.Record) []audit.Record {
	t.Helper()
	prev := audit.NoPrev
	for i := range records {
		records[i].Member, records[i].Seq, records[i].Prev = "m", int64(i+1), prev
		sum, err := audit.Sum(records[i])
		if err != nil {
			t.Fatal(err)
		}
		records[i].Hash, prev = sum, sum
	}
	return records
}

func sign(t *testing.T, e Export, signer ssh.Signer) File {
	t.Helper()
	f, err := Sign(e, signer)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What was signed and fits together verifies; whoever has the key still cannot make a
// request out of another one, or records that were not written.
func TestVerify(t *testing.T) {
	signer := newSigner(t)
	for _, test := range []struct {
		name   string
		change func(*Export)
		wrong  string
	}{
		{"whole", func(*Export) {}, ""},
		{"another reason", changeRequest(t, func(r *grant.Request) { r.Frozen.Reason = "play" }), "does not have the hash"},
		{"a longer time", changeRequest(t, func(r *grant.Request) { r.Frozen.Duration = time.Hour }), "does not have the hash"},
		{"a decision on something else", changeRequest(t, func(r *grant.Request) { r.Decisions[0].Hash = "0" }), "decision 1 is on hash 0"},
		{"a step of another request", changeStep(t, func(ev *grant.Event) { ev.Request = "oi-000000000000" }), "step 2 (approved) is of another request"},
		{"steps out of order", changeStep(t, func(ev *grant.Event) { ev.Seq = 1 }), "out of order"},
		{"another approver", changeRequest(t, func(r *grant.Request) { r.Decisions[0].Principal = "arn:aws:iam::111111111111:user/eve" }), "the approval of arn:aws:iam::111111111111:user/eve, is no step"},
		{"another step", changeStep(t, func(ev *grant.Event) { ev.Actor = "arn:aws:iam::111111111111:user/eve" }), "is request:approved by arn:aws:iam::111111111111:user/bob in the audit log"},
		{"a step that nobody recorded", func(e *Export) { e.Audit = slices.Concat(e.Audit[:1], e.Audit[2:]) }, "step 2 (approved) has no audit record"},
		{"a changed record", func(e *Export) { e.Audit[1].Reason = "x" }, "audit record m/2 does not have its hash"},
		{"a record put between", func(e *Export) { e.Audit[1].Prev = audit.NoPrev; rehash(t, &e.Audit[1]) }, "audit record m/2 does not continue the one before"},
		{"a session that nobody recorded", func(e *Export) { e.Audit = e.Audit[:2] }, "session carol-1 has no audit record of its end"},
		{"a session with another record", func(e *Export) {
			e.Audit[2].Event = audit.EventDecision
			rehash(t, &e.Audit[2])
		}, "session carol-1 has no audit record of its end"},
		{"an open session that nobody recorded", func(e *Export) { e.Session[0].Ended = time.Time{} }, "session carol-1 has no audit record of its beginning"},
		{"an open session", func(e *Export) {
			e.Session[0].Ended = time.Time{}
			e.Audit[2].Event = audit.EventSessionStart
			rehash(t, &e.Audit[2])
		}, ""},
		{"held by nobody's decision", changeRequest(t, func(r *grant.Request) { r.State, r.Decisions = grant.Active, nil }), "stage 1 was passed with 0 of 1 approvals"},
		{"ended, by nobody's decision", changeRequest(t, func(r *grant.Request) { r.ActivatedAt, r.Decisions = r.Frozen.Created, nil }), "stage 1 was passed with 0 of 1 approvals"},
		{"approved in another stage", changeRequest(t, func(r *grant.Request) { r.State, r.Decisions[0].Stage = grant.Approved, 1 }), "stage 1 was passed with 0 of 1 approvals"},
		{"approved by what was struck", changeRequest(t, func(r *grant.Request) { r.State, r.Decisions[0].Struck = grant.Active, "left" }), "stage 1 was passed with 0 of 1 approvals"},
		{"approved by a rule", func(e *Export) {
			changeRequest(t, func(r *grant.Request) {
				r.State, r.Decisions = grant.Active, []grant.Decision{{Approve: true, Rule: "code", Hash: r.Hash}}
			})(e)
			changeStep(t, func(ev *grant.Event) { ev.Actor = "rule code" })(e)
			e.Audit[1].Principal = "rule code"
			rehash(t, &e.Audit[1])
			e.Audit[2].Prev = e.Audit[1].Hash
			rehash(t, &e.Audit[2])
		}, ""},
		{"approved by a rule in no step", changeRequest(t, func(r *grant.Request) {
			r.State, r.Decisions = grant.Active, []grant.Decision{{Approve: true, Rule: "code", Hash: r.Hash}}
		}), "decision 1, the approval of rule code, is no step"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := export(t)
			test.change(&e)
			_, wrong, err := Verify(sign(t, e, signer), []ssh.PublicKey{newSigner(t).PublicKey(), signer.PublicKey()})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(wrong, "; "); test.wrong == "" && got != "" || !strings.Contains(got, test.wrong) {
				t.Errorf("got %q, want %q", got, test.wrong)
			}
		})
	}
}

func rehash(t *testing.T, r *audit.Record) {
	t.Helper()
	sum, err := audit.Sum(*r)
	if err != nil {
		t.Fatal(err)
	}
	r.Hash = sum
}

// A file that was changed, or that somebody else signed, or whose signature was made for
// another purpose, is no evidence.
func TestVerifyForged(t *testing.T) {
	signer, other := newSigner(t), newSigner(t)
	whole := sign(t, export(t), signer)
	for name, change := range map[string]func(*File){
		"one byte":        func(f *File) { f.Evidence = strings.Replace(f.Evidence, "carol", "carox", 1) },
		"another key":     func(f *File) { *f = sign(t, export(t), other) },
		"the key in it":   func(f *File) { *f = sign(t, export(t), other); f.PublicKey = whole.PublicKey },
		"no signature":    func(f *File) { f.Signature = "" },
		"half of it":      func(f *File) { f.Signature = f.Signature[:len(f.Signature)/2] },
		"of another text": func(f *File) { f.Signature = sign(t, Export{}, signer).Signature },
	} {
		f := whole
		change(&f)
		if _, _, err := Verify(f, []ssh.PublicKey{signer.PublicKey()}); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// Whoever is given a file needs none of our programs to check the signature.
func TestSSHKeygenVerifies(t *testing.T) {
	keygen := needs.Program(t, "ssh-keygen")
	signer, dir := newSigner(t), t.TempDir()
	f := sign(t, export(t), signer)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	signers, sig := write("signers", "sallyport "+f.PublicKey+"\n"), write("sig", f.Signature)
	verify := func(text string) error {
		cmd := exec.Command(keygen, "-Y", "verify", "-f", signers, "-I", "sallyport", "-n", Namespace, "-s", sig)
		cmd.Stdin = strings.NewReader(text)
		return cmd.Run()
	}
	if err := verify(f.Evidence); err != nil {
		t.Errorf("ssh-keygen: %v", err)
	}
	if err := verify(f.Evidence + " "); err == nil {
		t.Error("ssh-keygen takes a changed text")
	}
}

func FuzzVerify(f *testing.F) {
	_, private, _ := ed25519.GenerateKey(nil)
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		f.Fatal(err)
	}
	whole, err := Sign(Export{}, signer)
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		if _, _, err := Verify(file, []ssh.PublicKey{signer.PublicKey()}); err == nil && file.Evidence != whole.Evidence {
			t.Error("a file that nobody signed verifies")
		}
	})
}
