package bulk

import (
	"fmt"
	"strings"
	"testing"
)

func TestProofs(t *testing.T) {
	lock := NewLock("alice-1")
	client, err := NewProver("alice-1", Client, lock.Token(Client))
	if err != nil {
		t.Fatal(err)
	}
	var proofs []string
	for range 3000 {
		proofs = append(proofs, client.Next("b"))
	}
	open := func(proof, binding string, want bool) {
		t.Helper()
		r, err := lock.Open(proof, binding)
		if got := err == nil; got != want || got && r != Client {
			t.Errorf("%.12s…: got %q, %v", proof, r, err)
		}
	}
	open(proofs[0], "b", true)
	open(proofs[0], "b", false)     // again
	open(proofs[2], "other", false) // for another TLS session
	open(proofs[2], "b", true)      // a refusal spends nothing
	open(proofs[1], "b", true)      // overtaken
	open(proofs[1], "b", false)
	open(proofs[2000], "b", true)
	open(proofs[2000-window], "b", false) // too late
	open(proofs[2000-window+1], "b", true)
	open(proofs[2000-window+1], "b", false)
	for _, n := range []int{2999, 2500, 2001} {
		open(proofs[n], "b", true)
		open(proofs[n], "b", false)
	}
	agent, err := NewProver("alice-1", Agent, lock.Token(Agent))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := lock.Open(agent.Next(""), ""); r != Agent || err != nil {
		t.Errorf("agent: got %q, %v", r, err)
	}
	if lock.Token(Client) == lock.Token(Agent) || lock.Token(Client) == NewLock("alice-1").Token(Client) {
		t.Error("tokens are not their own")
	}
}

func TestTokensThatAreNone(t *testing.T) {
	for _, token := range []string{"", "x", strings.Repeat("A", 44), strings.Repeat("*", 43)} {
		if _, err := NewProver("alice-1", Client, token); err == nil {
			t.Errorf("%q was taken", token)
		}
	}
}

func FuzzProof(f *testing.F) {
	lock := NewLock("alice-1")
	f.Add("client.1.00", "b")
	f.Add("agent.9223372036854775807."+strings.Repeat("0", 64), "")
	f.Fuzz(func(t *testing.T, proof, binding string) {
		if r, err := lock.Open(proof, binding); err == nil {
			t.Errorf("%s was let in with %q", r, proof)
		}
	})
}

func TestURLBeside(t *testing.T) {
	for in, want := range map[string]string{
		"wss://gate:8443/v1/data-channel/alice-1?role=publish_subscribe": "https://gate:8443/v1/bulk/alice-1",
		"ws://gate/behind/v1/data-channel/alice-1":                       "http://gate/behind/v1/bulk/alice-1",
		"wss://ssmmessages.us-east-1.amazonaws.com/other/alice-1":        "",
		"://": "",
	} {
		got, err := URLBeside(in, "alice-1")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestFingerprints(t *testing.T) {
	if id := identity(t); !ValidFingerprint(id.Fingerprint()) {
		t.Errorf("own fingerprint %q is not valid", id.Fingerprint())
	}
	for _, s := range []string{"", "ab", strings.Repeat("g", 64), strings.Repeat("A", 64), fmt.Sprintf("%066d", 0)} {
		if ValidFingerprint(s) {
			t.Errorf("%q is valid", s)
		}
	}
}
