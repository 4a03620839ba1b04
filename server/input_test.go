package server

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// agentOf makes a node one of the named agent.
func (r *restricted) agentOf(id, name string) {
	r.t.Helper()
	r.must(r.store.UpdateNode(r.t.Context(), id, func(n *node.Node) error { n.AgentName = name; return nil }))
}

// Commands get input where the document is the one of commands that their caller
// chooses, and the agent is ours. Nothing else of the request reaches the node.
func TestInput(t *testing.T) {
	r := newRestricted(t)
	r.document("Report", `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","properties":{"linux":{"commands":"psql","runAsElevated":true}}}`)
	r.document("Greet", `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","parameters":{"name":{"type":"String"}},"properties":{"linux":{"commands":"echo {{ name }}"}}}`)
	const command = `"DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{"command":["cat 'a b'"]}`
	granted := &wire.Exec{Command: "cat 'a b'", Words: true}
	for _, test := range []struct {
		name, agent, body string
		want              *wire.Exec
	}{
		{"asked for", ownAgent, command + `,"Input":true`, granted},
		{"by the document's ARN", ownAgent, `"DocumentName":"arn:aws:ssm:us-east-1::document/AWS-StartNonInteractiveCommand","Parameters":{"command":["cat 'a b'"]},"Input":true`, granted},
		{"not asked for", ownAgent, command, nil},
		{"refused", ownAgent, command + `,"Input":false`, nil},
		{"in other letters", ownAgent, command + `,"input":true`, nil},
		{"AWS's agent", "amazon-ssm-agent", command + `,"Input":true`, nil},
		{"an agent that has not said what it is", "", command + `,"Input":true`, nil},
		{"an agent of another name", "sallyport-agent2", command + `,"Input":true`, nil},

		{"a shell", ownAgent, `"Input":true`, nil},
		{"a shell by name", ownAgent, `"DocumentName":"SSM-SessionManagerRunShell","Input":true`, nil},
		{"a command on a terminal", ownAgent, `"DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["cat"]},"Input":true`, nil},
		{"a forward", ownAgent, `"DocumentName":"AWS-StartPortForwardingSession","Parameters":{"portNumber":["80"]},"Input":true`, nil},
		{"root's command, of its author", ownAgent, `"DocumentName":"Report","Input":true`, nil},
		{"a command of its author, with a parameter", ownAgent, `"DocumentName":"Greet","Parameters":{"name":["x"]},"Input":true`, nil},

		{"an Exec beside it", ownAgent, command + `,"Input":true,"Exec":{"Command":"id","Subsystem":"sftp","ForwardAgent":true,"Environment":{"LD_PRELOAD":"x"},"Terminal":{"Term":"xterm"}}`, granted},
		{"members of an Exec", ownAgent, command + `,"Input":true,"Command":"id","Words":false,"Subsystem":"sftp","ForwardAgent":true,"Environment":{"A":"b"},"Terminal":{}`, granted},
		{"an Exec without it", ownAgent, command + `,"Exec":{"Command":"id"}`, nil},
		{"options of the session", ownAgent, command + `,"client_returns":true,"ClientReturns":true,"Record":false,"record":false`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.agentOf(channelNode, test.agent)
			got := r.startSession(r.admin, `{"Target":"NODE",`+test.body+`}`)
			if got.status != http.StatusOK {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			if diff := cmp.Diff(test.want, r.told().Exec); diff != "" {
				t.Errorf("the node was told: %s", diff)
			}
			var answer map[string]any
			r.must(json.Unmarshal([]byte(got.body), &answer))
			if said := answer["Input"] == true; said != (test.want != nil) {
				t.Errorf("got answer %v, want Input %v", answer, test.want != nil)
			}
		})
	}
	for _, input := range []string{`"true"`, `1`, `{"Command":"id"}`, `[true]`} {
		if got := r.startSession(r.admin, `{"Target":"NODE",`+command+`,"Input":`+input+`}`); got.code() != "SerializationException" {
			t.Errorf("Input %s: got %d %s, want SerializationException", input, got.status, got.code())
		}
	}
	r.agentOf(channelNode, ownAgent)
	if got := r.startSession(r.admin, `{"Target":"NODE","DocumentName":"Sallyport-FileTransfer","Input":true}`); got.code() != "InvalidDocument" {
		t.Errorf("file transfer: got %d %s, want InvalidDocument", got.status, got.code())
	}
	carol := r.user("carol", nil, forwardsOnly)
	if got := r.startSession(carol, `{"Target":"NODE",`+command+`,"Input":true}`); got.code() != "AccessDeniedException" {
		t.Errorf("who may not run commands: got %d %s, want AccessDeniedException", got.status, got.code())
	}
}

// A session with input is nobody else's to take up.
func TestInputOfAnother(t *testing.T) {
	r := newRestricted(t)
	r.agentOf(channelNode, ownAgent)
	own := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:ResumeSession","ssm:TerminateSession"],"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"},
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}]}`
	alice, mallory := r.user("alice", nil, own), r.user("mallory", nil, own)
	started := decodeInto[sessionOutput](t, r.startSession(alice, `{"Target":"NODE","DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{"command":["cat"]},"Input":true}`))
	for _, operation := range []string{"ResumeSession", "TerminateSession"} {
		in := map[string]any{"SessionId": started.SessionID}
		if got := r.json(mallory, "AmazonSSM."+operation, in); got.code() != "AccessDeniedException" {
			t.Errorf("%s by another: got %d %s, want AccessDeniedException", operation, got.status, got.body)
		}
	}
	if got := r.json(alice, "AmazonSSM.ResumeSession", map[string]any{"SessionId": started.SessionID}); got.status != http.StatusOK {
		t.Errorf("ResumeSession by the owner: got %d %s", got.status, got.body)
	}
}
