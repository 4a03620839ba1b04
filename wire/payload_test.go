package wire

import (
	"encoding/json"
	"encoding/xml"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sallyport.dev/internal/vectors"
)

// shapes says which Go type each kind of payload has.
func shape(f *vectors.Frame) any {
	switch PayloadType(f.PayloadType) {
	case PayloadSize:
		return new(TerminalSize)
	case PayloadHandshakeRequest:
		return new(HandshakeRequest)
	case PayloadHandshakeResponse:
		return new(HandshakeResponse)
	case PayloadHandshakeComplete:
		return new(HandshakeComplete)
	}
	switch f.Type {
	case TypeAcknowledge:
		return new(Acknowledge)
	case TypeAgentSessionState:
		return new(SessionState)
	case TypeChannelClosed:
		return new(ChannelClosed)
	case TypeInteractiveShell, TypeAgentJob:
		return new(ControlTask)
	case TypeAgentTaskComplete:
		return new(TaskComplete)
	case TypeAgentTaskAcknowledge:
		return new(TaskAcknowledge)
	case TypeAgentJobAck:
		return new(JobAck)
	case TypeAgentJobReply:
		return new(JobReply)
	case TypeAgentJobReplyAck:
		return new(JobReplyAck)
	}
	return nil
}

// Every JSON payload of the transcripts fits its type and comes back the same: to
// the byte from AWS's programs, whose field order ours follows, and in meaning from
// the made-up server.
func TestPayloadsOfTranscripts(t *testing.T) {
	seen := map[string]int{}
	for _, tr := range vectors.LoadAll(t, vectorDir) {
		for _, l := range tr.Lines {
			if l.Hex == "" {
				continue
			}
			v := shape(l.Frame)
			if v == nil {
				continue
			}
			seen[reflect.TypeOf(v).Elem().Name()]++
			checkRoundTrip(t, tr.Name, l, l.Frame.Payload(), v, l.From != "server")
			checkContent(t, tr.Name, l, v)
		}
	}
	for _, name := range []string{
		"TerminalSize", "HandshakeRequest", "HandshakeResponse", "HandshakeComplete", "Acknowledge",
		"SessionState", "ChannelClosed", "ControlTask", "TaskComplete", "TaskAcknowledge",
		"JobAck", "JobReply", "JobReplyAck",
	} {
		if seen[name] == 0 {
			t.Errorf("%s: no transcript holds one", name)
		}
	}
}

// checkContent looks at the JSON inside the JSON.
func checkContent(t *testing.T, name string, l vectors.Line, v any) {
	t.Helper()
	switch outer := v.(type) {
	case *ControlTask:
		if outer.JobID != "" {
			checkRoundTrip(t, name, l, []byte(outer.Content), new(Command), false)
		} else {
			checkRoundTrip(t, name, l, []byte(outer.Content), new(StartSession), false)
		}
	case *JobReply:
		checkRoundTrip(t, name, l, []byte(outer.Content), new(JobOutcome), true)
	case *HandshakeRequest:
		for _, action := range outer.RequestedClientActions {
			checkRoundTrip(t, name, l, action.ActionParameters, new(SessionTypeParameters), true)
		}
	}
}

func checkRoundTrip(t *testing.T, name string, l vectors.Line, text []byte, v any, exact bool) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Errorf("%s line %d: %v", name, l.N, err)
		return
	}
	got, err := json.Marshal(v)
	if err != nil {
		t.Errorf("%s line %d: %v", name, l.N, err)
		return
	}
	want := string(text)
	if !exact {
		want, got = sorted(t, text), []byte(sorted(t, got))
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s line %d (-want +got):\n%s", name, l.N, diff)
	}
}

// sorted returns JSON with its keys in order and empty values of ours left out.
func sorted(t *testing.T, b []byte) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if v["Output"] == "" { // ChannelClosed leaves an empty text out
		delete(v, "Output")
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The first message on every channel, as the official programs send it.
func TestOpeningsOfTranscripts(t *testing.T) {
	n := 0
	for _, tr := range vectors.LoadAll(t, vectorDir) {
		for _, l := range tr.Lines {
			if l.Event != "ws-text" {
				continue
			}
			n++
			var o Opening
			if err := json.Unmarshal([]byte(l.Text), &o); err != nil {
				t.Fatalf("%s line %d: %v", tr.Name, l.N, err)
			}
			if o.MessageSchemaVersion != "1.0" || o.RequestID == "" || o.TokenValue == "" {
				t.Errorf("%s line %d: got %+v", tr.Name, l.N, o)
			}
			fromClient, fromAgent, control := o.ClientVersion != "", o.ClientInstanceID != "", o.AgentVersion != ""
			if fromClient != (l.From == "plugin") || fromAgent != (l.From == "agent" && l.Chan == "data") || control != (l.Chan == "control") {
				t.Errorf("%s line %d: cannot tell whose it is: %+v", tr.Name, l.N, o)
			}
		}
	}
	if n != 49 {
		t.Errorf("got %d openings, want 49", n)
	}
}

// Requests of the official agent fit our types with nothing left over.
func TestAgentRequestsOfTranscripts(t *testing.T) {
	requests := map[string]func() any{
		"AmazonSSM.RegisterManagedInstance":         func() any { return new(RegisterManagedInstance) },
		"AmazonSSM.RequestManagedInstanceRoleToken": func() any { return new(RequestManagedInstanceRoleToken) },
		"AmazonSSM.UpdateManagedInstancePublicKey":  func() any { return new(UpdateManagedInstancePublicKey) },
		"AmazonSSM.UpdateInstanceInformation":       func() any { return new(UpdateInstanceInformation) },
	}
	seen := map[string]int{}
	for _, tr := range vectors.LoadAll(t, vectorDir) {
		for _, l := range tr.Between("agent", "server") {
			for _, h := range l.Headers {
				if make := requests[h[1]]; h[0] == "X-Amz-Target" && make != nil {
					seen[h[1]]++
					checkComplete(t, tr.Name, l, make())
				}
			}
		}
	}
	if len(seen) != len(requests) {
		t.Errorf("got %v, want each of the requests", seen)
	}
}

// checkComplete reads l's body and checks that every member found its field.
func checkComplete(t *testing.T, name string, l vectors.Line, v any) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal([]byte(l.Body), &want); err != nil {
		t.Fatalf("%s line %d: %v", name, l.N, err)
	}
	if err := json.Unmarshal([]byte(l.Body), v); err != nil {
		t.Errorf("%s line %d: %v", name, l.N, err)
	}
	b, _ := json.Marshal(v)
	var got map[string]any
	_ = json.Unmarshal(b, &got)
	for key, value := range want {
		if value != "" && !reflect.DeepEqual(got[key], value) {
			t.Errorf("%s line %d: %s: got %v, want %v", name, l.N, key, got[key], value)
		}
	}
}

func TestCreateChannelResult(t *testing.T) {
	b, err := xml.Marshal(CreateChannelResult{MessageSchemaVersion: "1.0", TokenValue: "a<b"})
	if err != nil {
		t.Fatal(err)
	}
	want := `<CreateChannelResponse><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue>a&lt;b</TokenValue></CreateChannelResponse>`
	if string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	var got CreateChannelResult
	if err := xml.Unmarshal(b, &got); err != nil || got.TokenValue != "a<b" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Extensions are absent from what AWS's programs get when they are not used.
func TestExtensionsAreAbsentByDefault(t *testing.T) {
	for _, v := range []any{ChannelClosed{}, TaskComplete{}, StartSession{}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		_ = json.Unmarshal(b, &m)
		for _, key := range []string{"ExitStatus", "DataChannelToken"} {
			if _, ok := m[key]; ok {
				t.Errorf("%T: has %s", v, key)
			}
		}
	}
	status := 0
	b, _ := json.Marshal(ChannelClosed{ExitStatus: &status})
	var c ChannelClosed
	if err := json.Unmarshal(b, &c); err != nil || c.ExitStatus == nil || *c.ExitStatus != 0 {
		t.Errorf("exit status 0 got lost in %s", b)
	}
}

func TestJobID(t *testing.T) {
	if got, want := JobID("3494cc35-0e12-464e-840b-edfc6d10d9a6", "mi-0c6b0d7a12f0720b1"), "aws.ssm.3494cc35-0e12-464e-840b-edfc6d10d9a6.mi-0c6b0d7a12f0720b1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
