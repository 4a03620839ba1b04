package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

// encryptedPeer plays the gateway and a client that encrypts. Its key service decrypts
// what is the encryption context of this session, and nothing else.
type encryptedPeer struct {
	*peer
	c         *control
	key       *datakey.Key
	challenge string
}

func encryptedSession(t *testing.T, document string) *encryptedPeer {
	t.Helper()
	raw := slices.Concat(bytes.Repeat([]byte{1}, datakey.Size/2), bytes.Repeat([]byte{2}, datakey.Size/2))
	key, err := datakey.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t)
	g.decrypt = func(in decryptInput) []byte {
		if in.KeyID != "alias/k" || string(in.CiphertextBlob) != fmt.Sprint(in.EncryptionContext) {
			return nil
		}
		return raw
	}
	cfg := g.config()
	cfg.Shell.Program = plainShell(t)
	run(t, cfg)
	c := g.control()
	c.start(wire.StartSession{SessionID: "locked", DataChannelToken: "given", DocumentContent: json.RawMessage(document)})
	p := &encryptedPeer{peer: g.attach("locked"), c: c, key: key}
	p.awaitType(wire.PayloadHandshakeRequest)
	p.mu.Lock()
	defer p.mu.Unlock()
	var request wire.HandshakeRequest
	if err := json.Unmarshal(p.firsts[0], &request); err != nil || len(request.RequestedClientActions) != 2 {
		t.Fatalf("the handshake asks for %s, %v", p.firsts[0], err)
	}
	var asked wire.KMSEncryptionParameters
	json.Unmarshal(request.RequestedClientActions[1].ActionParameters, &asked)
	if asked.KMSKeyID != "alias/k" || len(asked.Challenge) != 24 {
		t.Errorf("the handshake asks for %+v", asked)
	}
	p.challenge = asked.Challenge
	return p
}

func (p *encryptedPeer) awaitType(pt wire.PayloadType) {
	p.t.Helper()
	p.until(fmt.Sprint("payload type ", pt), func() bool { return slices.Contains(p.payloads, pt) })
}

// answer hands in the data key of an encryption context.
func (p *encryptedPeer) answer(e map[string]string) {
	result, _ := json.Marshal(wire.KMSEncryptionResult{
		KMSCipherTextKey: []byte(fmt.Sprint(e)), ChallengeAcknowledgement: e[wire.ContextChallenge] != "",
	})
	p.respond(
		wire.ProcessedAction{ActionType: wire.ActionSessionType, ActionStatus: wire.ActionSuccess},
		wire.ProcessedAction{ActionType: wire.ActionKMSEncryption, ActionStatus: wire.ActionSuccess, ActionResult: result},
	)
}

func (p *encryptedPeer) respond(actions ...wire.ProcessedAction) {
	b, _ := json.Marshal(wire.HandshakeResponse{ClientVersion: "1.2.700.0", ProcessedClientActions: actions})
	p.send(wire.PayloadHandshakeResponse, b)
}

func (p *encryptedPeer) context() map[string]string {
	return wire.DataKeyContext("locked", testNode, p.challenge)
}

// prove answers the challenge, changed by change.
func (p *encryptedPeer) prove(change func([]byte) []byte) {
	p.t.Helper()
	p.awaitType(wire.PayloadEncChallengeRequest)
	p.mu.Lock()
	var asked wire.EncryptionChallenge
	json.Unmarshal([]byte(p.byType[wire.PayloadEncChallengeRequest]), &asked)
	p.mu.Unlock()
	random, err := p.key.Open(true, asked.Challenge)
	if err != nil || len(random) != 64 {
		p.t.Fatalf("challenge: got %d bytes, %v", len(random), err)
	}
	b, _ := json.Marshal(wire.EncryptionChallenge{Challenge: p.key.Seal(false, change(random))})
	p.send(wire.PayloadEncChallengeResponse, b)
}

func same(b []byte) []byte { return b }

// shownLocked is the session's output, decrypted; what is not encrypted is an error.
func (p *encryptedPeer) shownLocked() string {
	var text strings.Builder
	for i, b := range p.firsts {
		if !p.payloads[i].IsEncrypted(true) {
			continue
		}
		clear, err := p.key.Open(true, b)
		if err != nil {
			p.t.Errorf("%q was sent in clear", b)
		}
		text.Write(clear)
	}
	return text.String()
}

func (p *encryptedPeer) see(text string) {
	p.t.Helper()
	p.until("output of "+text, func() bool { return strings.Contains(p.shownLocked(), text) })
}

const encryptedShell = `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"kmsKeyId":"alias/k"}}`

func TestEncryptedShell(t *testing.T) {
	p := encryptedSession(t, encryptedShell)
	p.typed("echo early=$((1+1))\n") // in clear, before there is a key: dropped
	p.answer(p.context())
	p.prove(same)
	p.awaitType(wire.PayloadHandshakeComplete)
	p.send(wire.PayloadOutput, p.key.Seal(false, []byte("echo sum=$((6*7))\nexit 3\n")))
	p.see("sum=42")
	if tc := p.c.completed("locked"); tc.FinalTaskStatus != "Success" || tc.ExitStatus == nil || *tc.ExitStatus != 3 {
		t.Errorf("got %+v", tc)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if shown := p.shownLocked(); strings.Contains(shown, "early=2") {
		t.Errorf("what came in clear was typed: %q", shown)
	}
}

func TestEncryptedCommand(t *testing.T) {
	p := encryptedSession(t, `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","inputs":{"kmsKeyId":"alias/k"},
		"properties":{"linux":{"commands":"sh -c 'echo out; echo err >&2; exit 3'","separateOutputStream":true},
			"macos":{"commands":"sh -c 'echo out; echo err >&2; exit 3'","separateOutputStream":true}}}`)
	p.answer(p.context())
	p.prove(same)
	p.see("EXIT_CODE: 3")
	p.see("err\n")
	p.c.completed("locked")
}

// A client that does not encrypt, or with a key that is not this session's, gets nothing.
func TestEncryptionRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		play func(p *encryptedPeer)
		want string
	}{
		"no answer to it": {func(p *encryptedPeer) {
			p.respond(wire.ProcessedAction{ActionType: wire.ActionSessionType, ActionStatus: wire.ActionSuccess})
		}, "does not encrypt"},
		"a refusal": {func(p *encryptedPeer) {
			p.respond(wire.ProcessedAction{ActionType: wire.ActionKMSEncryption, ActionStatus: wire.ActionFailed, Error: "no permission"})
		}, "no permission"},
		"no key": {func(p *encryptedPeer) {
			p.respond(wire.ProcessedAction{ActionType: wire.ActionKMSEncryption, ActionStatus: wire.ActionSuccess, ActionResult: json.RawMessage(`{}`)})
		}, "not readable"},
		"a key without the challenge": {func(p *encryptedPeer) { p.answer(wire.DataKeyContext("locked", testNode, "")) }, "newer client"},
		"a key of another challenge":  {func(p *encryptedPeer) { p.answer(wire.DataKeyContext("locked", testNode, "earlier")) }, "fetching data key failed"},
		"a key of another session":    {func(p *encryptedPeer) { p.answer(wire.DataKeyContext("other", testNode, p.challenge)) }, "fetching data key failed"},
		"a wrong proof": {func(p *encryptedPeer) {
			p.answer(p.context())
			p.prove(func(b []byte) []byte { b[0]++; return b })
		}, "challenge is wrong"},
		"an unreadable proof": {func(p *encryptedPeer) {
			p.answer(p.context())
			p.awaitType(wire.PayloadEncChallengeRequest)
			p.send(wire.PayloadEncChallengeResponse, []byte(`{"Challenge":"eA=="}`))
		}, "challenge is wrong"},
		"the challenge sent back": {func(p *encryptedPeer) {
			p.answer(p.context())
			p.awaitType(wire.PayloadEncChallengeRequest)
			p.mu.Lock()
			same := []byte(p.byType[wire.PayloadEncChallengeRequest])
			p.mu.Unlock()
			p.send(wire.PayloadEncChallengeResponse, same)
		}, "challenge is wrong"},
		"clear input": {func(p *encryptedPeer) {
			p.answer(p.context())
			p.prove(same)
			p.awaitType(wire.PayloadHandshakeComplete)
			p.typed("echo clear=$((6*7)); and so long that it might be a nonce\n")
		}, "not encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := encryptedSession(t, encryptedShell)
			tt.play(p)
			if tc := p.c.completed("locked"); tc.FinalTaskStatus != "Failed" || !strings.Contains(tc.Output, tt.want) {
				t.Errorf("got %+v, want Failed with %q", tc, tt.want)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if shown := p.shownLocked(); strings.Contains(shown, "clear=42") {
				t.Errorf("it showed %q", shown)
			}
		})
	}
}

// Sessions of the SSH front door, whose document demands encryption, do not begin.
func TestExecIsNotEncrypted(t *testing.T) {
	_, err := readPlan(wire.StartSession{DocumentContent: json.RawMessage(encryptedShell), Exec: &wire.Exec{Command: "true"}})
	if err == nil || !strings.Contains(err.Error(), "encryption") {
		t.Errorf("got %v, want a refusal", err)
	}
	_, err = readPlan(wire.StartSession{DocumentContent: json.RawMessage(
		`{"schemaVersion":"1.0","sessionType":"Port","inputs":{"kmsKeyId":"k"},"properties":{"portNumber":"22"}}`)})
	if err != nil {
		t.Errorf("a forward: got %v", err)
	}
}
