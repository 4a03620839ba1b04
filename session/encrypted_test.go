package session

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

// locked is a session that its ends encrypt, and what a test plays them with.
type locked struct {
	*world
	id            string
	agent, client *peer
	key           *datakey.Key
}

var errContext = errors.New("another encryption context")

// newLocked starts an encrypted session; the gateway records it or not. Its key service
// knows one data key, whose ciphertext is its encryption context.
func newLocked(t *testing.T, record bool, change ...func(*StartRequest)) *locked {
	t.Helper()
	raw := slices.Concat(bytes.Repeat([]byte{1}, datakey.Size/2), bytes.Repeat([]byte{2}, datakey.Size/2))
	w := newWorld(t, func(c *Config) {
		c.DataKey = func(_ context.Context, _ Session, blob []byte, e map[string]string) ([]byte, error) {
			if string(blob) != fmt.Sprint(e) {
				return nil, errContext
			}
			return bytes.Clone(raw), nil
		}
	})
	l := &locked{world: w}
	_, l.id, l.agent, l.client = w.pair(append(change, func(r *StartRequest) {
		r.Options.Record, r.Options.Encrypted, r.Options.KMSKeyID, r.Options.RecordInput = record, true, "alias/k", true
		if r.Session.Encryption = EncryptionUnrecorded; record {
			r.Session.Encryption = EncryptionRecorded
		}
	})...)
	var err error
	if l.key, err = datakey.New(bytes.Clone(raw)); err != nil {
		t.Fatal(err)
	}
	return l
}

// ask is the agent's handshake, with the key that it asks for; none for no encryption.
func (l *locked) ask(key string) {
	actions := `{"ActionType":"SessionType","ActionParameters":{"SessionType":"` + l.store.row(l.id).SessionType + `","Properties":null}}`
	if key != "" {
		actions += `,{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"` + key + `","Challenge":"random"}}`
	}
	l.agent.send(wire.PayloadHandshakeRequest, `{"AgentVersion":"3.3.0.0","RequestedClientActions":[`+actions+`]}`)
}

// answer is a client's answer: the data key of a context, or without one a refusal.
func (l *locked) answer(e map[string]string) {
	l.client.send(wire.PayloadHandshakeResponse, answerWith(e))
}

func answerWith(e map[string]string) string {
	action := wire.ProcessedAction{ActionType: wire.ActionKMSEncryption, ActionStatus: wire.ActionFailed, Error: "no key"}
	if e != nil {
		action.ActionStatus, action.Error = wire.ActionSuccess, ""
		action.ActionResult, _ = json.Marshal(wire.KMSEncryptionResult{
			KMSCipherTextKey: []byte(fmt.Sprint(e)), ChallengeAcknowledgement: e[wire.ContextChallenge] != "",
		})
	}
	b, _ := json.Marshal(wire.HandshakeResponse{ClientVersion: "1.2.700.0", ProcessedClientActions: []wire.ProcessedAction{
		{ActionType: wire.ActionSessionType, ActionStatus: wire.ActionSuccess}, action,
	}})
	return string(b)
}

func (l *locked) context() map[string]string { return wire.DataKeyContext(l.id, testNode, "random") }

// shake makes a whole handshake.
func (l *locked) shake() {
	l.t.Helper()
	l.ask("alias/k")
	l.wantType(l.client, wire.PayloadHandshakeRequest)
	l.answer(l.context())
	l.wantType(l.agent, wire.PayloadHandshakeResponse)
	l.agent.send(wire.PayloadEncChallengeRequest, `{"Challenge":"eA=="}`)
	l.wantType(l.client, wire.PayloadEncChallengeRequest)
	l.client.send(wire.PayloadEncChallengeResponse, `{"Challenge":"eA=="}`)
	l.wantType(l.agent, wire.PayloadEncChallengeResponse)
	l.agent.send(wire.PayloadHandshakeComplete, `{}`)
	l.wantType(l.client, wire.PayloadHandshakeComplete)
}

func (l *locked) wantType(p *peer, pt wire.PayloadType) {
	l.t.Helper()
	eventually(l.t, fmt.Sprint("payload type ", pt), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.payloads) > 0 && p.payloads[len(p.payloads)-1] == pt
	})
}

func (l *locked) shows(text string) {
	l.agent.send(wire.PayloadOutput, string(l.key.Seal(true, []byte(text))))
}

func (l *locked) types(text string) {
	l.client.send(wire.PayloadOutput, string(l.key.Seal(false, []byte(text))))
}

// opened is what a peer got, decrypted; it fails on what is not encrypted.
func (l *locked) opened(p *peer) string {
	l.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	seen := map[int64]bool{}
	for _, f := range p.frames {
		m, err := wire.Decode(f)
		if err != nil || m.PayloadType != wire.PayloadOutput || m.Type == wire.TypeAcknowledge || seen[m.SequenceNumber] {
			continue
		}
		seen[m.SequenceNumber] = true
		clear, err := l.key.Open(!p.isAgent, m.Payload)
		if err != nil {
			l.t.Errorf("%q came in clear", m.Payload)
		}
		text.Write(clear)
	}
	return text.String()
}

func (l *locked) wantOpened(p *peer, want string) {
	l.t.Helper()
	eventually(l.t, want, func() bool { return len(l.opened(p)) >= len(want) })
	if got := l.opened(p); got != want {
		l.t.Errorf("got %q, want %q", got, want)
	}
}

func (n *notes) typed() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return string(n.input)
}

// The gateway passes on what it cannot or need not read, byte for byte, and records what
// is to be recorded.
func TestEncryptedRelay(t *testing.T) {
	for _, record := range []bool{true, false} {
		t.Run(fmt.Sprintf("record %v", record), func(t *testing.T) {
			l := newLocked(t, record)
			l.shake()
			l.types("uptime\n")
			l.wantOpened(l.agent, "uptime\n")
			l.shows("up 7 days")
			l.wantOpened(l.client, "up 7 days")
			output, input := "", ""
			if record {
				output, input = "up 7 days", "uptime\n"
			}
			if got := []string{l.rec.text(), l.rec.typed()}; !cmp.Equal(got, []string{output, input}) {
				t.Errorf("recorded %q, want %q and %q", got, output, input)
			}
			if got := l.store.events(l.id); len(got) == 0 {
				t.Error("the audit log does not tell that it began")
			}
		})
	}
}

// Nothing in clear passes, from either end, at any time of the session.
func TestNothingInClear(t *testing.T) {
	const refused = "demands encryption"
	for name, tt := range map[string]struct {
		record bool
		play   func(*locked)
		want   string // of the end; "" for a session that lives on
	}{
		"an agent without a handshake": {true, func(l *locked) { l.agent.say("secret") }, refused},
		"an agent that asks for no key": {true, func(l *locked) {
			l.ask("")
			l.agent.say("secret")
		}, refused},
		"an agent that asks for another key": {false, func(l *locked) { l.ask("alias/mine") }, refused},
		"an agent that does not wait for the key": {true, func(l *locked) {
			l.ask("alias/k")
			l.agent.say("secret")
		}, refused},
		"an agent that goes on without the key": {false, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			l.answer(nil)
			l.wantType(l.agent, wire.PayloadHandshakeResponse)
			l.agent.send(wire.PayloadHandshakeComplete, `{}`)
			l.agent.say("secret")
		}, refused},
		"an agent that completes before it is answered": {false, func(l *locked) {
			l.ask("alias/k")
			l.agent.send(wire.PayloadHandshakeComplete, `{}`)
		}, refused},
		"an agent that shows before it completes": {true, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			l.answer(l.context())
			l.wantType(l.agent, wire.PayloadHandshakeResponse)
			l.shows("secret")
		}, refused},
		"an agent that stops encrypting": {true, func(l *locked) {
			l.shake()
			l.agent.say("secret, and long enough to be a nonce and a tag")
		}, "cannot follow it"},
		"an agent that stops encrypting errors": {true, func(l *locked) {
			l.shake()
			l.agent.send(wire.PayloadStdErr, "secret, and long enough to be a nonce and a tag")
		}, "cannot follow it"},
		"an agent that stops encrypting, unrecorded": {false, func(l *locked) {
			l.shake()
			l.agent.say("secret")
		}, refused},
		"an agent that shakes twice": {true, func(l *locked) {
			l.shake()
			l.ask("alias/k")
		}, refused},
		"an agent that sends back what was typed": {true, func(l *locked) {
			l.shake()
			l.agent.send(wire.PayloadOutput, string(l.key.Seal(false, []byte("secret"))))
		}, "cannot follow it"},
		"an agent of another kind": {true, func(l *locked) {
			l.agent.send(wire.PayloadHandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port"}},
				{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/k","Challenge":"random"}}]}`)
		}, "another kind of session"},
		"an agent that asks for two keys": {false, func(l *locked) {
			l.agent.send(wire.PayloadHandshakeRequest, `{"RequestedClientActions":[
				{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/mine","Challenge":"random"}},
				{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/k","Challenge":"random"}}]}`)
		}, refused},
		"an agent whose handshake cannot be read": {false, func(l *locked) { l.agent.send(wire.PayloadHandshakeRequest, `{`) }, refused},
		"an agent that shows by another type": {true, func(l *locked) {
			l.shake()
			l.agent.send(wire.PayloadParameter, "secret")
			l.shows("fine")
			l.wantOpened(l.client, "fine")
		}, ""},
		"a client that types too early": {true, func(l *locked) {
			l.client.say("secret")
			l.shake()
			l.types("fine")
			l.wantOpened(l.agent, "fine")
		}, ""},
		"a client that stops encrypting": {true, func(l *locked) {
			l.shake()
			l.client.say("secret, and long enough to be a nonce and a tag")
		}, "cannot follow it"},
		"a client that stops encrypting, unrecorded": {false, func(l *locked) {
			l.shake()
			l.client.say("secret")
		}, refused},
		"a client with a key of another context": {true, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			l.answer(wire.DataKeyContext("alice-2", testNode, "random"))
		}, "cannot follow it"},
		"a client with a key of another challenge": {true, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			l.answer(wire.DataKeyContext(l.id, testNode, "earlier"))
		}, "cannot follow it"},
		"a client with two keys": {false, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			action := `{"ActionType":"KMSEncryption","ActionStatus":1,"ActionResult":{"KMSCipherTextKey":"` + base64.StdEncoding.EncodeToString([]byte("x")) + `"}}`
			l.client.send(wire.PayloadHandshakeResponse, `{"ProcessedClientActions":[`+action+`,`+action+`]}`)
		}, refused},
		"a client without an answer": {false, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			l.client.send(wire.PayloadHandshakeResponse, `{"ProcessedClientActions":[]}`)
		}, refused},
		"a client whose answer cannot be read": {false, func(l *locked) {
			l.ask("alias/k")
			l.wantType(l.client, wire.PayloadHandshakeRequest)
			l.client.send(wire.PayloadHandshakeResponse, `{`)
		}, refused},
		"a client that answers again": {true, func(l *locked) {
			l.shake()
			l.answer(wire.DataKeyContext("alice-2", testNode, "random"))
			l.types("fine")
			l.wantOpened(l.agent, "fine")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLocked(t, tt.record)
			tt.play(l)
			if tt.want != "" {
				l.client.wantGoodbye(tt.want)
				l.wantState(l.id, StateFailed)
			}
			for _, p := range []*peer{l.agent, l.client} {
				p.mu.Lock()
				for _, f := range p.frames {
					if bytes.Contains(f, []byte("secret")) {
						t.Errorf("%q passed", f[wire.PrefixLength:])
					}
				}
				p.mu.Unlock()
				l.opened(p)
			}
			if got := l.rec.text() + l.rec.typed(); strings.Contains(got, "secret") {
				t.Errorf("recorded %q", got)
			}
		})
	}
}

// What cannot be recorded is not shown, be it encrypted.
func TestEncryptedOutputThatIsNotRecorded(t *testing.T) {
	l := newLocked(t, true)
	l.shake()
	l.rec.breakWith(errDisk)
	l.shows("secret")
	l.client.wantGoodbye("cannot be recorded")
	if got := l.opened(l.client); got != "" {
		t.Errorf("the client was shown %q", got)
	}
	l.wantState(l.id, StateFailed)
}

// The agent's second answer is not the client's: what a client sends again under the same
// number, and what it answers again, reaches the agent as nothing.
func TestSecondAnswerIsEmptied(t *testing.T) {
	l := newLocked(t, true)
	l.shake()
	l.answer(l.context())
	eventually(t, "the message", l.client.settled)
	l.agent.mu.Lock()
	defer l.agent.mu.Unlock()
	if last := l.agent.payloads[len(l.agent.payloads)-1]; last != wire.PayloadNone {
		t.Errorf("got payload type %d, want none", last)
	}
}

// Commands report their status encrypted; a node cannot show something else in its place.
func TestEncryptedStatus(t *testing.T) {
	command := func(r *StartRequest) { r.Session.SessionType = "NonInteractiveCommands" }
	l := newLocked(t, true, command)
	l.shake()
	l.agent.send(wire.PayloadExitCode, string(l.key.Seal(true, []byte("EXIT_CODE: 7"))))
	l.wantType(l.client, wire.PayloadExitCode)
	l.agent.send(wire.PayloadExitCode, string(l.key.Seal(true, []byte("not a status"))))
	l.wantType(l.client, wire.PayloadNone)
}

// The server's own lines come encrypted where it has the key, and not at all where not.
func TestOwnLinesInEncryptedSessions(t *testing.T) {
	l := newLocked(t, true)
	l.shake()
	l.g.Tell(l.id, "hello")
	l.wantOpened(l.client, "\r\n[sallyport] hello\r\n")
	if got := l.rec.text(); got != "\r\n[sallyport] hello\r\n" {
		t.Errorf("recorded %q", got)
	}
	silent := newLocked(t, false)
	silent.shake()
	silent.g.Tell(silent.id, "hello")
	silent.shows("x")
	silent.wantOpened(silent.client, "x")
}

// The key that asks for more time is found in what is typed, and does not reach the node.
func TestMoreTimeKeyInEncryptedSession(t *testing.T) {
	l := newLocked(t, true)
	l.shake()
	s := l.g.session(l.id)
	s.armed.Store(true)
	l.types(string(rune(MoreTimeKey)))
	l.types("x")
	l.wantOpened(l.agent, "x")
	if s.armed.Load() {
		t.Error("the key was not taken")
	}
}

// An encrypted session that is to be recorded does not begin where the gateway has no keys.
func TestEncryptedWithoutKeys(t *testing.T) {
	w := newWorld(t)
	w.agent(testNode)
	_, err := w.g.Start(t.Context(), StartRequest{
		Session: Session{ID: NewID("alice"), NodeID: testNode}, Options: Options{Record: true, Encrypted: true},
	})
	if !errors.Is(err, ErrRecording) {
		t.Errorf("got %v, want %v", err, ErrRecording)
	}
}

func FuzzEncryptedHandshake(f *testing.F) {
	f.Add([]byte(`{"RequestedClientActions":[{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/k","Challenge":"x"}}]}`), []byte(answerWith(map[string]string{"a": "b"})))
	f.Add([]byte(`{}`), []byte(answerWith(nil)))
	f.Fuzz(func(t *testing.T, request, response []byte) {
		s := &live{opts: Options{Encrypted: true, KMSKeyID: "alias/k"}, row: Session{SessionType: "Standard_Stream"}}
		s.encrypted = newEncrypted(s.opts)
		asked := s.askedForKey(request) == nil
		if state, _ := s.encrypted.at(); (state == handshakeAsked) != asked {
			t.Errorf("asked is %v in state %v", asked, state)
		}
		pass, _ := s.gaveKey(response)
		if state, _ := s.encrypted.at(); !asked && (pass || state != handshakeNone) || state > handshakeAgreed {
			t.Errorf("passed %v, in state %v", pass, state)
		}
	})
}

// A handshake does not make a session wait for a key service that does not answer.
func TestDataKeyTimeout(t *testing.T) {
	if dataKeyTimeout >= 15*time.Second {
		t.Errorf("got %v, want less than agents wait for a handshake", dataKeyTimeout)
	}
}
