package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// Restricting a person to a document: one test per trick to get around it, each through
// the API as anybody may call it.

// forwardsOnly allows forwards to other hosts through FrontEnd nodes, and nothing else,
// in one statement conditioned on the node's tag.
const forwardsOnly = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":[
	"arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*:*:managed-instance/*",
	"arn:aws:ssm:*::document/AWS-StartPortForwardingSessionToRemoteHost"],
	"Condition":{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"},"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"true"}}}]}`

const remoteHost = "AWS-StartPortForwardingSessionToRemoteHost"

// restricted is a system with a FrontEnd node, whose control channel the test holds, a
// BackEnd node, and documents that are not for everyone.
type restricted struct {
	*relayed
	admin   identity.Credentials
	control *websocket.Conn
}

func newRestricted(t *testing.T, changes ...func(*Config)) *restricted {
	r := &restricted{relayed: newRelayed(t, changes...)}
	r.node(channelNode, identity.Tags{"Department": "FrontEnd"})
	r.node(otherNode, identity.Tags{"Department": "BackEnd"})
	_, r.control = r.connect(channelNode)
	r.connect(otherNode)
	r.admin = r.user("admin", nil, allowAll)
	r.document("My-Shell", `{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`)
	return r
}

func (r *restricted) document(name, content string) {
	r.t.Helper()
	if got := r.json(r.admin, "AmazonSSM.CreateDocument", map[string]any{"Name": name, "DocumentType": "Session", "Content": content}); got.status != http.StatusOK {
		r.t.Fatalf("CreateDocument %s: %d %s", name, got.status, got.body)
	}
}

// told returns what the node was told of the session that was started last.
func (r *restricted) told() wire.StartSession {
	r.t.Helper()
	var task wire.ControlTask
	r.must(json.Unmarshal(r.read(r.control, wire.TypeInteractiveShell).Payload, &task))
	var start wire.StartSession
	r.must(json.Unmarshal([]byte(task.Content), &start))
	return start
}

// startSession sends a request as it stands.
func (r *restricted) startSession(c identity.Credentials, body string) answer {
	r.t.Helper()
	body = strings.NewReplacer("NODE", channelNode, "OTHER", otherNode, "FORWARD", remoteHost).Replace(body)
	return r.json(c, "AmazonSSM.StartSession", body)
}

func TestForwardsOnly(t *testing.T) {
	r := newRestricted(t)
	carol := r.user("carol", identity.Tags{runAsTag: "carol"}, forwardsOnly)
	const denied, validation, parameters, invalid = "AccessDeniedException", "ValidationException", "InvalidParameters", "InvalidDocument"
	for _, test := range []struct{ name, body, code string }{
		{"what is allowed", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db.internal"],"portNumber":["5432"]}}`, ""},
		{"by the document's ARN", `{"Target":"NODE","DocumentName":"arn:aws:ssm:us-east-1::document/FORWARD","Parameters":{"host":["db.internal"]}}`, ""},
		{"on another node", `{"Target":"OTHER","DocumentName":"FORWARD","Parameters":{"host":["db.internal"]}}`, denied},
		{"on a node that is none", `{"Target":"i-0123456789abcdef0","DocumentName":"FORWARD"}`, denied},

		{"no document", `{"Target":"NODE"}`, denied},
		{"null for a document", `{"Target":"NODE","DocumentName":null}`, denied},
		{"an empty name", `{"Target":"NODE","DocumentName":""}`, validation},
		{"a blank name", `{"Target":"NODE","DocumentName":"   "}`, validation},
		{"the default document by name", `{"Target":"NODE","DocumentName":"SSM-SessionManagerRunShell"}`, denied},
		{"the default document by ARN", `{"Target":"NODE","DocumentName":"arn:aws:ssm:us-east-1:111111111111:document/SSM-SessionManagerRunShell"}`, denied},
		{"another shell document", `{"Target":"NODE","DocumentName":"My-Shell"}`, denied},
		{"a document that is none", `{"Target":"NODE","DocumentName":"Not-There"}`, denied},
		{"a command", `{"Target":"NODE","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["bash"]}}`, denied},
		{"a command without terminal", `{"Target":"NODE","DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{"command":["id"]}}`, denied},
		{"the node's SSH server", `{"Target":"NODE","DocumentName":"AWS-StartSSHSession"}`, denied},
		{"file transfer", `{"Target":"NODE","DocumentName":"Sallyport-FileTransfer"}`, denied},
		{"a socket of the node", `{"Target":"NODE","DocumentName":"Sallyport-StartPortForwardingSessionToNodeSocket","Parameters":{"unixSocket":["/run/docker.sock"]}}`, denied},
		{"a document for commands", `{"Target":"NODE","DocumentName":"AWS-RunShellScript","Parameters":{"commands":["id"]}}`, denied},

		{"an ARN of another region", `{"Target":"NODE","DocumentName":"arn:aws:ssm:eu-west-1::document/FORWARD"}`, invalid},
		{"an ARN of another account", `{"Target":"NODE","DocumentName":"arn:aws:ssm:us-east-1:222222222222:document/FORWARD"}`, invalid},
		{"an ARN in an ARN", `{"Target":"NODE","DocumentName":"arn:aws:ssm:us-east-1::document/FORWARD:document/My-Shell"}`, invalid},
		{"an ARN with a path", `{"Target":"NODE","DocumentName":"arn:aws:ssm:us-east-1::document/FORWARD/../My-Shell"}`, invalid},
		{"a path", `{"Target":"NODE","DocumentName":"FORWARD/../My-Shell"}`, denied},
		{"a version", `{"Target":"NODE","DocumentName":"FORWARD:1"}`, denied},
		{"the latest version", `{"Target":"NODE","DocumentName":"FORWARD:$LATEST"}`, validation},
		{"a version beside the name", `{"Target":"NODE","DocumentName":"FORWARD","DocumentVersion":"9","Parameters":{"host":["db"]}}`, ""}, // no such member: ignored
		{"capitals", `{"Target":"NODE","DocumentName":"aws-startportforwardingsessiontoremotehost"}`, denied},
		{"a space", `{"Target":"NODE","DocumentName":"FORWARD "}`, validation},
		{"a line end", `{"Target":"NODE","DocumentName":"FORWARD\n"}`, validation},
		{"NUL", `{"Target":"NODE","DocumentName":"FORWARD\u0000"}`, validation},
		{"a letter that looks alike", `{"Target":"NODE","DocumentName":"АWS-StartPortForwardingSessionToRemoteHost"}`, validation},
		{"the name twice, the shell last", `{"Target":"NODE","DocumentName":"FORWARD","DocumentName":"My-Shell"}`, denied},
		{"the name in another case, the shell last", `{"Target":"NODE","DocumentName":"FORWARD","documentName":"My-Shell","Parameters":{"host":["db"]}}`, ""}, // no such member
		{"a list of names", `{"Target":"NODE","DocumentName":["FORWARD","My-Shell"]}`, "SerializationException"},
		{"a list of targets", `{"Target":["NODE","OTHER"],"DocumentName":"FORWARD"}`, "SerializationException"},

		{"a command as the port", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"],"portNumber":["80; id"]}}`, parameters},
		{"a substitution as the port", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"],"portNumber":["$(id)"]}}`, parameters},
		{"two ports", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"],"portNumber":["80","22"]}}`, parameters},
		{"a port with zeros", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"],"portNumber":["0080"]}}`, parameters},
		{"a port with a line end", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"],"portNumber":["80\n"]}}`, parameters},
		{"two hosts", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db","other"]}}`, parameters},
		{"hosts in one", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db,other"]}}`, parameters},
		{"no host at all", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":[]}}`, parameters},
		{"an empty host", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":[""]}}`, validation},
		{"a quote in the host", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db\",\"type\":\"x"]}}`, parameters},
		{"a command as the host", "{\"Target\":\"NODE\",\"DocumentName\":\"FORWARD\",\"Parameters\":{\"host\":[\"`id`\"]}}", parameters},
		{"a line separator in the host", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db\u2028x"]}}`, parameters},
		{"a placeholder as the host", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["{{ portNumber }}"]}}`, parameters},
		{"the parameter store as the host", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["{{ssm:x}}"]}}`, parameters},
		{"an address as a number", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["2852039166"]}}`, parameters},
		{"an undeclared parameter", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"command":["id"]}}`, parameters},
		{"a parameter in other letters", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"Host":["db"]}}`, parameters},
		{"a property as a parameter", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"type":["x"]}}`, parameters},
		{"a parameter that is no list", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":"db"}}`, "SerializationException"},
		{"parameters in a parameter", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":[["db"]]}}`, "SerializationException"},

		{"a program smuggled in", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"]},"Exec":{"Command":"id"},"DocumentContent":{"sessionType":"Standard_Stream"}}`, ""},
		{"root smuggled in", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"]},"RunAs":"root","RunAsUser":"root","RunAsRoot":true}`, ""},
		{"an order as the login", `{"Target":"NODE","DocumentName":"FORWARD","Parameters":{"host":["db"]},"RunAs":"root;id"}`, validation},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := r.startSession(carol, test.body)
			if got.code() != test.code || got.status == http.StatusOK != (test.code == "") {
				t.Fatalf("got %d %s %q, want %q", got.status, got.code(), got.message(), test.code)
			}
			if test.code == "" {
				r.isForward(t, r.told())
			}
		})
	}
}

// isForward fails the test unless the node was told to forward to a host, as nobody.
func (r *restricted) isForward(t *testing.T, start wire.StartSession) {
	t.Helper()
	if start.DocumentName != remoteHost || !strings.Contains(string(start.DocumentContent), `"sessionType":"Port"`) {
		t.Errorf("got document %s: %s", start.DocumentName, start.DocumentContent)
	}
	if start.Exec != nil || start.RunAsUser != "" || start.RunAsRoot {
		t.Errorf("got a program %+v, login %q, root %v; want none of them", start.Exec, start.RunAsUser, start.RunAsRoot)
	}
}

// The ways around StartSession lead nowhere either.
func TestForwardsOnlyElsewhere(t *testing.T) {
	r := newRestricted(t)
	carol := r.user("carol", nil, forwardsOnly)
	shell := decodeInto[sessionOutput](t, r.startSession(r.admin, `{"Target":"NODE"}`))
	r.told()
	for name, got := range map[string]answer{
		"resuming another's session":     r.json(carol, "AmazonSSM.ResumeSession", map[string]any{"SessionId": shell.SessionID}),
		"ending another's session":       r.json(carol, "AmazonSSM.TerminateSession", map[string]any{"SessionId": shell.SessionID}),
		"running a command":              r.json(carol, "AmazonSSM.SendCommand", map[string]any{"InstanceIds": []string{channelNode}, "DocumentName": "AWS-RunShellScript", "Parameters": map[string][]string{"commands": {"id"}}}),
		"a new version of the document":  r.json(carol, "AmazonSSM.UpdateDocument", map[string]any{"Name": remoteHost, "Content": `{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`}),
		"a document of that name":        r.json(carol, "AmazonSSM.CreateDocument", map[string]any{"Name": remoteHost, "Content": `{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`}),
		"tagging the other node":         r.json(carol, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": otherNode, "Tags": []map[string]string{{"Key": "Department", "Value": "FrontEnd"}}}),
		"registering a node of that tag": r.json(carol, "AmazonSSM.CreateActivation", map[string]any{"IamRole": "x"}),
		"a tag of one's own":             r.query(carol, "iam", "TagUser", "UserName", "carol", "Tags.member.1.Key", runAsTag, "Tags.member.1.Value", "root"),
		"a policy of one's own":          r.query(carol, "iam", "PutUserPolicy", "UserName", "carol", "PolicyName", "all", "PolicyDocument", allowAll),
	} {
		if got.status == http.StatusOK {
			t.Errorf("%s: got %d %s, want a refusal", name, got.status, got.body)
		}
	}
	for name, in := range map[string]StartInput{
		"a shell":                 {Target: channelNode, Document: "SSM-SessionManagerRunShell"},
		"the default":             {Target: channelNode},
		"a command":               {Target: channelNode, Document: "AWS-StartNonInteractiveCommand", Parameters: map[string][]string{"command": {"id"}}, Exec: &wire.Exec{Command: "id"}},
		"file transfer":           {Target: channelNode, Document: "Sallyport-FileTransfer", Exec: &wire.Exec{Subsystem: "sftp"}},
		"the other node":          {Target: otherNode, Document: remoteHost},
		"a port of the node":      {Target: channelNode, Document: "AWS-StartPortForwardingSession"},
		"a context that is false": {Target: channelNode, Context: map[string][]string{"ssm:SessionDocumentAccessCheck": {"true"}, "ssm:resourceTag/Department": {"FrontEnd"}}},
	} {
		_, err := r.server.StartSession(t.Context(), r.principal("carol"), r.origin(), in)
		if denied := (*access.DeniedError)(nil); !errors.As(err, &denied) {
			t.Errorf("front door, %s: got %v, want a refusal", name, err)
		}
	}
	_, err := r.server.StartSession(t.Context(), r.principal("carol"), r.origin(), StartInput{
		Target: channelNode, Document: remoteHost, Parameters: map[string][]string{"host": {"db"}}, Exec: &wire.Exec{Command: "id"}})
	if err == nil {
		t.Error("front door, a program beside a forward: got a session")
	}
}

func (r *restricted) principal(user string) identity.Principal {
	r.t.Helper()
	u, err := r.store.User(context.Background(), user)
	r.must(err)
	return r.server.resolver.UserPrincipal(u)
}

func (r *restricted) origin() access.Origin {
	return access.Origin{RequestID: "r", SourceIP: "192.0.2.1", UserAgent: "OpenSSH", Time: r.clock()}
}

// One command, with a parameter that fits a pattern: nothing that is put into it makes
// it another command, and its newest version does not count before it is the default.
func TestOneCommandOnly(t *testing.T) {
	r := newRestricted(t)
	r.document("Deploy", `{"schemaVersion":"1.0","sessionType":"InteractiveCommands",
		"parameters":{"version":{"type":"String","allowedPattern":"^[0-9]+[.][0-9]+$"},"note":{"type":"String","default":"none","allowedValues":["none","fast"]}},
		"properties":{"linux":{"commands":"deploy {{ version }} {{ note }}"}}}`)
	if got := r.json(r.admin, "AmazonSSM.UpdateDocument", map[string]any{"Name": "Deploy", "Content": `{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`}); got.status != http.StatusOK {
		t.Fatalf("UpdateDocument: %s", got.body)
	}
	dave := r.user("dave", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":[
		"arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*:*:document/Deploy"],"Condition":{"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"true"}}}]}`)
	for _, test := range []struct{ value, code string }{
		{`"version":["1.2"]`, ""},
		{`"version":["1.2"],"note":["fast"]`, ""},
		{``, "InvalidParameters"},
		{`"version":["1.2; id"]`, "InvalidParameters"},
		{`"version":["1.2 && id"]`, "InvalidParameters"},
		{`"version":["1.2\nid"]`, "InvalidParameters"},
		{`"version":["1.2\n"]`, "InvalidParameters"},
		{`"version":["1.2\r"]`, "InvalidParameters"},
		{`"version":["id\n1.2"]`, "InvalidParameters"},
		{`"version":["$(id)"]`, "InvalidParameters"},
		{`"version":["$$(id)"]`, "InvalidParameters"},
		{"\"version\":[\"`id`\"]", "InvalidParameters"},
		{`"version":["1.2'\"; id #"]`, "InvalidParameters"},
		{`"version":["1.2\u2028id"]`, "InvalidParameters"},
		{`"version":["1.2\u0085id"]`, "InvalidParameters"},
		{`"version":["1.2\u0000id"]`, "InvalidParameters"},
		{`"version":["１.２"]`, "InvalidParameters"},
		{`"version":["{{ note }}"]`, "InvalidParameters"},
		{`"version":["1.2","; id"]`, "InvalidParameters"},
		{`"version":["1.2"],"note":["{{ version }}"]`, "InvalidParameters"},
		{`"version":["1.2"],"note":["fast; id"]`, "InvalidParameters"},
		{`"version":["1.2"],"note":["FAST"]`, "InvalidParameters"},
		{`"version":["1.2"],"commands":["id"]`, "InvalidParameters"},
		{`"version":["1.2"],"linux":["id"]`, "InvalidParameters"},
		{`"version":["1.2"],"version ":["id"]`, "InvalidParameters"},
	} {
		got := r.startSession(dave, `{"Target":"NODE","DocumentName":"Deploy","Parameters":{`+test.value+`}}`)
		if got.code() != test.code {
			t.Errorf("%s: got %d %s %q, want %q", test.value, got.status, got.code(), got.message(), test.code)
		}
		if got.status == http.StatusOK {
			if start := r.told(); !strings.Contains(string(start.DocumentContent), `"commands":"deploy {{ version }} {{ note }}"`) {
				t.Errorf("%s: the node was told %s", test.value, start.DocumentContent)
			}
		}
	}
	for _, document := range []string{"Deploy:2", "Deploy:$LATEST", "deploy", "DEPLOY", "My-Shell"} {
		if got := r.startSession(dave, `{"Target":"NODE","DocumentName":"`+document+`","Parameters":{"version":["1.2"]}}`); got.status == http.StatusOK {
			t.Errorf("%s: got a session", document)
		}
	}
}

// The front door's word is not taken for the command: the document's is run.
func TestExecRunsTheDocument(t *testing.T) {
	r := newRestricted(t)
	r.document("Deploy", `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"deploy"}}}`)
	params := map[string][]string{"command": {"uptime; id"}}
	for _, test := range []struct {
		name    string
		in      StartInput
		command string // that the node is told
		refused bool
	}{
		{"a command", StartInput{Document: "AWS-StartNonInteractiveCommand", Parameters: params, Exec: &wire.Exec{}}, "uptime; id", false},
		{"one document's command", StartInput{Document: "Deploy", Exec: &wire.Exec{Command: "id", Terminal: &wire.ExecTerminal{Term: "xterm"}}}, "deploy", false},
		{"a shell", StartInput{Document: "SSM-SessionManagerRunShell", Exec: &wire.Exec{Command: "id"}}, "", false},
		{"file transfer", StartInput{Document: "Sallyport-FileTransfer", Exec: &wire.Exec{Subsystem: "sftp", Command: "id"}}, "", false},
		{"file transfer without its subsystem", StartInput{Document: "Sallyport-FileTransfer", Exec: &wire.Exec{Command: "id"}}, "", true},
		{"file transfer by the API", StartInput{Document: "Sallyport-FileTransfer"}, "", true},
		{"file transfer in a shell", StartInput{Document: "SSM-SessionManagerRunShell", Exec: &wire.Exec{Subsystem: "sftp"}}, "", true},
		{"another subsystem", StartInput{Document: "Sallyport-FileTransfer", Exec: &wire.Exec{Subsystem: "netconf"}}, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.in.Target = channelNode
			started, err := r.server.StartSession(t.Context(), r.principal("admin"), r.origin(), test.in)
			if (err != nil) != test.refused {
				t.Fatalf("got %+v, %v", started, err)
			}
			if err != nil {
				return
			}
			start := r.told()
			if start.SessionID != started.SessionID || start.Exec == nil || start.Exec.Command != test.command {
				t.Errorf("the node was told %+v of %s, want the command %q of %s", start.Exec, start.SessionID, test.command, started.SessionID)
			}
		})
	}
}

// The limits of the API hold for the front door, too.
func TestStartSessionLimits(t *testing.T) {
	r := newRestricted(t)
	for _, in := range []StartInput{
		{},
		{Target: "é"},
		{Target: channelNode, Reason: strings.Repeat("x", 257)},
		{Target: channelNode, RunAs: "root; id"},
		{Target: channelNode, RunAs: "0"},
		{Target: channelNode, RunAs: "-"},
		{Target: channelNode, Document: "a\nb"},
	} {
		if _, err := r.server.StartSession(t.Context(), r.principal("admin"), r.origin(), in); err == nil {
			t.Errorf("%+v: got a session", in)
		} else if e := (*wire.Exception)(nil); !errors.As(err, &e) {
			t.Errorf("%+v: got %v, want an exception", in, err)
		}
	}
}

// A person whose session began while they were deleted has none.
func TestStartSessionOfTheDeleted(t *testing.T) {
	r := newRestricted(t)
	r.user("eve", nil, allowAll)
	eve := r.principal("eve")
	r.must(r.store.UpdateUser(context.Background(), "eve", func(u *identity.User) error { u.Disabled = true; return nil }))
	if _, err := r.server.StartSession(t.Context(), eve, r.origin(), StartInput{Target: channelNode}); err == nil {
		t.Fatal("got a session of a disabled user")
	}
	r.eventually("her session ends", func() bool {
		return strings.Contains(r.json(r.admin, "AmazonSSM.DescribeSessions", `{"State":"History"}`).body, "eve-")
	})
}
