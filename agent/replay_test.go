package agent

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os/user"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/vectors"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

const vectorsDir = "../wire/testdata/vectors"

// TestReplay plays the server's and, relayed, the official client's side of recorded
// sessions to the agent and compares what comes back with what the official agent
// sent: the joined payload per type, the states, the acknowledgements, the end.
func TestReplay(t *testing.T) {
	for _, name := range []string{
		"03-shell", "04-shell-terminate-api", "05-shell-client-resume", "05b-shell-client-resume-pending-output",
		"06-shell-agent-reattach", "06b-shell-agent-reattach-pending-output", "13-interactive-command",
		"14-noninteractive-command", "14b-noninteractive-command-combined", "15-bad-parameter-separator", "15c-bad-document-properties",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := vectors.Load(t, vectorsDir, name)
			for _, id := range tr.Info.Sessions {
				replay(t, tr, id)
			}
		})
	}
}

// recording is what the official agent sent in one session.
type recorded struct {
	output   map[wire.PayloadType]string // joined, by payload type
	screen   string                      // joined, all of them
	acks     []int64
	states   []string
	complete *wire.TaskComplete
}

func (r *recorded) add(t *testing.T, b []byte) {
	t.Helper()
	m, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	switch m.Type {
	case wire.TypeOutputStreamData:
		if m.PayloadType == wire.PayloadHandshakeRequest || m.PayloadType == wire.PayloadHandshakeComplete {
			return // versions and times differ; their place is checked by the peer
		}
		r.output[m.PayloadType] += string(m.Payload)
		r.screen += string(m.Payload)
	case wire.TypeAcknowledge:
		var a wire.Acknowledge
		json.Unmarshal(m.Payload, &a)
		r.acks = append(r.acks, a.SequenceNumber)
	case wire.TypeAgentSessionState:
		var s wire.SessionState
		json.Unmarshal(m.Payload, &s)
		r.states = append(r.states, s.SessionState)
	case wire.TypeAgentTaskComplete:
		r.complete = new(wire.TaskComplete)
		json.Unmarshal(m.Payload, r.complete)
	}
}

func replay(t *testing.T, tr *vectors.Transcript, id string) {
	g := newGateway(t)
	cfg := g.config()
	run(t, cfg)
	c := g.control()
	want := &recorded{output: map[wire.PayloadType]string{}}
	var p *peer
	seen := map[int64]bool{}
	for _, l := range tr.Lines {
		if l.Background || l.Chan == "data" && l.Session != id {
			continue
		}
		switch {
		case l.From == "agent" && l.Event == "ws-binary":
			want.add(t, tr.Message(&l))
		case l.From == "server" && l.To == "agent" && l.Event == "ws-drop":
			p.cut()
		case l.From == "server" && l.To == "agent" && l.Event == "ws-binary" && l.Chan == "control":
			switch l.Frame.Type {
			case wire.TypeAgentTaskAcknowledge: // control acknowledges what it gets
				continue
			case wire.TypeChannelClosed:
				p.until("the official agent's output", func() bool { return p.joined == want.screen })
			}
			c.conn.Write(websocket.Binary, tr.Message(&l))
		case l.From == "server" && l.To == "agent" && l.Event == "ws-binary":
			if p == nil {
				p = g.attach(id)
			}
			play(t, p, tr.Message(&l), want, seen)
		}
	}
	got := c.completed(id)
	if want.complete == nil {
		t.Fatal("the transcript has no end")
	}
	if got.FinalTaskStatus != want.complete.FinalTaskStatus || (got.Output == "") != (want.complete.Output == "") {
		t.Errorf("got end %s %q, want %s %q", got.FinalTaskStatus, got.Output, want.complete.FinalTaskStatus, want.complete.Output)
	}
	if p == nil {
		return
	}
	<-p.ended
	p.mu.Lock()
	defer p.mu.Unlock()
	// The official agent ran as ssm-user, ours as whoever runs the tests.
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for pt, text := range want.output {
		want.output[pt] = strings.ReplaceAll(text, "ssm-user", me.Username)
	}
	if diff := cmp.Diff(want.output, p.byType); diff != "" {
		t.Errorf("output (-official +ours):\n%s", diff)
	}
	if diff := cmp.Diff(want.states, p.states); diff != "" {
		t.Errorf("states (-official +ours):\n%s", diff)
	}
	for _, seq := range want.acks {
		if want.complete.FinalTaskStatus != statusSuccess {
			break // a session that fails ends at once, whatever is on its way
		}
		if !slices.Contains(p.acked, seq) {
			t.Errorf("input %d was not acknowledged", seq)
		}
	}
}

// play sends one recorded message of the client, once what the official agent had sent
// by then has come.
func play(t *testing.T, p *peer, b []byte, want *recorded, seen map[int64]bool) {
	t.Helper()
	m, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	switch m.Type {
	case wire.TypeAcknowledge:
		return // the peer acknowledges what it gets, in the agent's own chunks
	case wire.TypeInputStreamData:
		if seen[m.SequenceNumber] {
			return
		}
		seen[m.SequenceNumber] = true
		if m.PayloadType == wire.PayloadHandshakeResponse {
			p.until("handshake request", func() bool { return slices.Contains(p.payloads, wire.PayloadHandshakeRequest) })
		} else {
			p.until("the official agent's output", func() bool { return p.joined == want.screen })
		}
		if string(m.Payload) == "\x03" {
			running(t, "sleep", "60")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inputSeq = max(p.inputSeq, m.SequenceNumber+1)
	p.unacked[m.SequenceNumber] = m
	p.conn.Write(websocket.Binary, bytes.Clone(b))
}

// TestReplayJob sends recorded commands, whose documents are of the older kind: they run,
// and the report comes until it is acknowledged.
func TestReplayJob(t *testing.T) {
	for name, want := range map[string]wire.JobPlugin{
		"17-run-command-success": {Status: "Success", Code: 0},
		"17b-run-command-exit-3": {Status: "Failed", Code: 3},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			run(t, g.config())
			c := g.control()
			tr := vectors.Load(t, vectorsDir, name)
			var recorded wire.JobOutcome
			for _, l := range tr.Lines {
				switch {
				case l.Frame == nil:
				case l.Frame.Type == wire.TypeAgentJob:
					c.conn.Write(websocket.Binary, tr.Message(&l))
				case l.Frame.Type == wire.TypeAgentJobReply:
					if o := outcomeIn(t, l.Frame.Payload()); o.RuntimeStatus != nil {
						recorded = o
					}
				}
			}
			var ack wire.JobAck
			json.Unmarshal(receive(t, c.jobs, "agent_job_ack").Payload, &ack)
			if ack.StatusCode != wire.JobSuccessful || ack.ErrorMessage != "Successful" || !strings.HasPrefix(ack.JobID, "aws.ssm.") {
				t.Errorf("got ack %+v", ack)
			}
			got := finalReply(t, c)
			step, theirs := got.RuntimeStatus["aws:runShellScript"], recorded.RuntimeStatus["aws:runShellScript"]
			if got.DocumentStatus != want.Status || step.Status != want.Status || step.Code != want.Code {
				t.Errorf("got %+v, want %+v", step, want)
			}
			if want.Code == 0 && (step.StandardError != theirs.StandardError || !strings.HasPrefix(step.StandardOutput, "to-stdout\n")) {
				t.Errorf("got outputs %q and %q, AWS's agent gave %q and %q", step.StandardOutput, step.StandardError, theirs.StandardOutput, theirs.StandardError)
			}
		})
	}
}

// TestSignatures checks our spelling of requests against those of the official agent
// that sign the same headers: HMAC signatures are the same byte for byte.
func TestSignatures(t *testing.T) {
	hmacs, rsas := 0, 0
	for _, tr := range vectors.LoadAll(t, vectorsDir) {
		for _, l := range tr.Lines {
			if l.Sig == nil || l.From != "agent" || !l.Sig.Valid || strings.Contains(l.Sig.SignedHeaders, "content-length") {
				continue
			}
			r, body := recordedRequest(t, l)
			at, err := time.Parse(dateForm, l.Sig.Time)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(l.Sig.Kind, "rsa") {
				rsas++
				r.Header.Set("X-Amz-Date", l.Sig.Time)
				if got, _ := canonicalRequest(r, body); got != l.Sig.CanonicalRequest {
					t.Errorf("%s line %d: got %q, want %q", tr.Name, l.N, got, l.Sig.CanonicalRequest)
				}
				continue
			}
			hmacs++
			token := r.Header.Get("X-Amz-Security-Token")
			want := r.Header.Get("Authorization")
			r.Header.Del("Authorization")
			signHMAC(r, body, scope{at, l.Sig.Region, l.Sig.Service}, credentials{id: l.Sig.KeyID, secret: l.Sig.SecretAccessKey, token: token})
			if got := r.Header.Get("Authorization"); got != want {
				t.Errorf("%s line %d: got %s, want %s", tr.Name, l.N, got, want)
			}
		}
	}
	if hmacs == 0 || rsas == 0 {
		t.Errorf("checked %d HMAC and %d RSA signatures, want some", hmacs, rsas)
	}
	t.Logf("%d HMAC and %d RSA signatures", hmacs, rsas)
}

func recordedRequest(t *testing.T, l vectors.Line) (*http.Request, []byte) {
	t.Helper()
	method, rest, _ := strings.Cut(l.RequestLine, " ")
	target, _, _ := strings.Cut(rest, " ")
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{Method: method, URL: u, Header: http.Header{}}
	for _, h := range l.Headers {
		if h[0] == "Host" {
			u.Host = h[1]
		}
		r.Header.Set(h[0], h[1])
	}
	return r, []byte(l.Body)
}
