package sallyporttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/sallyporttest"
)

// awsCLI runs the stock CLI with a key and returns its standard output.
func awsCLI(t *testing.T, s *sallyporttest.System, k sallyporttest.Key, args ...string) string {
	t.Helper()
	cmd := exec.Command(needs.Program(t, "aws"), append([]string{"--endpoint-url", s.PlainURL(), "ssm"}, args...)...)
	cmd.Env = slices.DeleteFunc(s.Env(k), func(kv string) bool { return strings.HasPrefix(kv, "AWS_PROFILE=") }) // it takes an empty one for a name
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("aws ssm %q: %v\n%s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// invocation asks the CLI for what a command came to, once it has ended.
func invocation(t *testing.T, s *sallyporttest.System, k sallyporttest.Key, command, node string) (i struct {
	Status, StatusDetails, PluginName           string
	ResponseCode                                int
	StandardOutputContent, StandardErrorContent string
}) {
	t.Helper()
	s.Eventually(func() bool {
		out := awsCLI(t, s, k, "get-command-invocation", "--command-id", command, "--instance-id", node, "--output", "json")
		if err := json.Unmarshal([]byte(out), &i); err != nil {
			t.Fatal(err)
		}
		return client.Ended(i.Status)
	}, "command %s ends", command)
	return i
}

// AWS's agent runs what the stock CLI sends, and stops what it cancels.
func TestOfficialAgentCommands(t *testing.T) {
	agent := official(t, agentVariable)
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	startOfficialAgent(t, s, agent)
	send := func(script string) string {
		parameters, _ := json.Marshal(map[string][]string{"commands": {script}})
		return awsCLI(t, s, key, "send-command", "--instance-ids", officialNode, "--document-name", "AWS-RunShellScript",
			"--parameters", string(parameters), "--query", "Command.CommandId", "--output", "text")
	}
	i := invocation(t, s, key, send("echo to-stdout; echo to-stderr >&2; exit 7"), officialNode)
	if i.Status != "Failed" || i.ResponseCode != 7 || i.StandardOutputContent != "to-stdout\n" || !strings.HasPrefix(i.StandardErrorContent, "to-stderr\n") {
		t.Errorf("got %+v", i)
	}
	i = invocation(t, s, key, send("id -un"), officialNode)
	if i.Status != "Success" || i.ResponseCode != 0 || i.StandardOutputContent != "root\n" || i.StandardErrorContent != "" {
		t.Errorf("got %+v", i)
	}
	long := send("echo begun; sleep 300")
	s.Eventually(func() bool {
		return strings.Contains(awsCLI(t, s, key, "list-commands", "--command-id", long, "--query", "Commands[0].Status"), "InProgress")
	}, "the command runs")
	time.Sleep(time.Second) // AWS's agent does not cancel what is only about to begin
	awsCLI(t, s, key, "cancel-command", "--command-id", long)
	if i := invocation(t, s, key, long, officialNode); i.StatusDetails != "Cancelled" {
		t.Errorf("cancelled: got %+v", i)
	}
}

// send sends a script to the nodes that a tag selects.
func send(t *testing.T, api *client.API, script, tag, value string, change func(*ssm.SendCommandInput)) string {
	t.Helper()
	in := &ssm.SendCommandInput{
		DocumentName: aws.String("AWS-RunShellScript"), Parameters: map[string][]string{"commands": {script}},
		Targets:   []types.Target{{Key: aws.String("tag:" + tag), Values: []string{value}}},
		MaxErrors: aws.String("100%"),
	}
	if change != nil {
		change(in)
	}
	out, err := api.SSM.SendCommand(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.Command.CommandId)
}

// follow reads a command to its end, or until stop says so, and counts its nodes by
// their details.
func follow(t *testing.T, api *client.API, id string, stop func(map[string]int) bool) (counts map[string]int, nodes map[string]client.CommandNode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	nodes = map[string]client.CommandNode{}
	for in := (client.GetCommandInput{CommandID: id}); ; time.Sleep(50 * time.Millisecond) {
		out, err := api.GetCommand(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		in.Since = out.Revision
		counts = map[string]int{}
		for _, n := range out.Nodes {
			nodes[n.NodeID] = n
		}
		for _, n := range nodes {
			counts[n.StatusDetails]++
		}
		if !out.More && (client.Ended(out.Command.Status) || stop != nil && stop(counts)) {
			return counts, nodes
		}
	}
}

// A command over nodes at two members: the member that schedules it ends in the middle,
// and the other one carries on, with nothing run twice and nothing lost.
func TestCommandOutlivesItsMember(t *testing.T) {
	a, b := pair(t)
	key := a.User("admin", nil, sallyporttest.Everything)
	const first, second = "i-060ee0879f3ec4eb7", "i-05b7516a19f826be9"
	tags := identity.Tags{"Team": "x"}
	a.Node(first, tags, a.TLSURL(), b.TLSURL())
	b.Node(second, tags, b.TLSURL(), a.TLSURL())
	dir := t.TempDir()
	script := `echo "$0" >> ` + dir + `/ran; sleep 3; echo done`
	id := send(t, a.API(key), script, "Team", "x", func(in *ssm.SendCommandInput) { in.MaxConcurrency = aws.String("1") })
	follow(t, a.API(key), id, func(counts map[string]int) bool { return counts["InProgress"] == 1 })
	a.Stop()
	counts, nodes := follow(t, b.API(key), id, nil)
	if counts["Success"] != 2 || nodes[first].Steps[0].StandardOutput != "done\n" {
		t.Errorf("got %v, %+v", counts, nodes)
	}
	out, err := exec.Command("cat", dir+"/ran").Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 2 {
		t.Errorf("it ran: %s %v", out, err)
	}
}

// Who may use some nodes only runs on those, and on none by naming another.
func TestCommandAccess(t *testing.T) {
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	const mine, theirs = "i-060ee0879f3ec4eb7", "i-05b7516a19f826be9"
	s.Node(mine, identity.Tags{"Team": "payments", "Site": "x"})
	s.Node(theirs, identity.Tags{"Team": "search", "Site": "x"})
	alice := s.User("alice", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"arn:aws:ssm:*:*:document/AWS-RunShellScript"},
		{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"payments"}}}]}`)
	mallory := s.User("mallory", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"arn:aws:ec2:*:*:instance/*"}]}`)
	api := s.API(alice)
	_, err := api.SSM.SendCommand(t.Context(), &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"),
		InstanceIds: []string{mine, theirs}, Parameters: map[string][]string{"commands": {"true"}}})
	if err == nil || !strings.Contains(err.Error(), "instance/"+theirs) || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("naming another team's node: got %v", err)
	}
	_, err = api.SSM.SendCommand(t.Context(), &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"),
		Targets:    []types.Target{{Key: aws.String("tag:Team"), Values: []string{"search"}}},
		Parameters: map[string][]string{"commands": {"true"}}})
	if err == nil || !strings.Contains(err.Error(), "instance/"+theirs) {
		t.Errorf("selecting only another team's: got %v", err)
	}
	id := send(t, api, "echo ran", "Site", "x", nil)
	counts, nodes := follow(t, api, id, nil)
	if counts["Success"] != 1 || counts["AccessDenied"] != 1 || nodes[theirs].StatusDetails != "AccessDenied" {
		t.Errorf("selecting both: got %v", counts)
	}
	for what, in := range map[string]*ssm.SendCommandInput{
		"another document":      {DocumentName: aws.String("AWS-StartSSHSession"), InstanceIds: []string{mine}},
		"a document of another": {DocumentName: aws.String("arn:aws:ssm:us-east-1:999999999999:document/AWS-RunShellScript"), InstanceIds: []string{mine}},
	} {
		if _, err := api.SSM.SendCommand(t.Context(), in); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
	other := s.API(mallory)
	_, err = other.SSM.SendCommand(t.Context(), &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{mine}, Parameters: map[string][]string{"commands": {"id"}}})
	if err == nil || !strings.Contains(err.Error(), "document/AWS-RunShellScript") {
		t.Errorf("a document that is not allowed: got %v", err)
	}
	for what, call := range map[string]func() error{
		"read": func() error {
			_, err := other.GetCommand(t.Context(), client.GetCommandInput{CommandID: id})
			return err
		},
		"get": func() error {
			_, err := other.SSM.GetCommandInvocation(t.Context(), &ssm.GetCommandInvocationInput{CommandId: &id, InstanceId: aws.String(mine)})
			return err
		},
		"list": func() error {
			_, err := other.SSM.ListCommandInvocations(t.Context(), &ssm.ListCommandInvocationsInput{CommandId: &id})
			return err
		},
		"list all": func() error { _, err := other.SSM.ListCommands(t.Context(), &ssm.ListCommandsInput{}); return err },
		"cancel": func() error {
			_, err := other.SSM.CancelCommand(t.Context(), &ssm.CancelCommandInput{CommandId: &id})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s of somebody else's command: got %v, want a refusal", what, err)
		}
	}
}

// Parameters are checked as a whole on the server, whatever agents would let through.
func TestCommandParameters(t *testing.T) {
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	const id = "i-060ee0879f3ec4eb7"
	s.Node(id, identity.Tags{"Team": "x"})
	api := s.API(s.User("admin", nil, sallyporttest.Everything))
	content := `{"schemaVersion":"2.2","parameters":{"unit":{"type":"String","allowedPattern":"[a-z]+"},
		"note":{"type":"String","default":"","interpolationType":"ENV_VAR"}},
		"mainSteps":[{"action":"aws:runShellScript","name":"restart","inputs":{"runCommand":["echo unit {{ unit }}","echo \"note $SSM_note\""]}}]}`
	_, err := api.SSM.CreateDocument(t.Context(), &ssm.CreateDocumentInput{Name: aws.String("Restart"), Content: &content, DocumentType: types.DocumentTypeCommand})
	if err != nil {
		t.Fatal(err)
	}
	run := func(parameters map[string][]string) (string, error) {
		out, err := api.SSM.SendCommand(t.Context(), &ssm.SendCommandInput{DocumentName: aws.String("Restart"), InstanceIds: []string{id}, Parameters: parameters})
		if err != nil {
			return "", err
		}
		_, nodes := follow(t, api, aws.ToString(out.Command.CommandId), nil)
		return nodes[id].Steps[0].StandardOutput, nil
	}
	for _, value := range []string{"nginx; id", "nginx\nid", "$(id)", "`id`", "nginx' 'x", "", "NGINX"} {
		if out, err := run(map[string][]string{"unit": {value}}); err == nil || !strings.Contains(err.Error(), "InvalidParameters") {
			t.Errorf("%q: got %q, %v, want InvalidParameters", value, out, err)
		}
	}
	for name, parameters := range map[string]map[string][]string{
		"missing": nil, "unknown": {"unit": {"a"}, "x": {"y"}}, "twice": {"unit": {"a", "b"}},
	} {
		if _, err := run(parameters); err == nil || !strings.Contains(err.Error(), "InvalidParameters") {
			t.Errorf("%s: got %v, want InvalidParameters", name, err)
		}
	}
	out, err := run(map[string][]string{"unit": {"nginx"}, "note": {`"; id; $(id) '`}})
	if want := "unit nginx\nnote \"; id; $(id) '\n"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

func TestSendCommandRefuses(t *testing.T) {
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	const id = "i-060ee0879f3ec4eb7"
	s.Node(id, nil)
	api := s.API(s.User("admin", nil, sallyporttest.Everything))
	long := strings.Repeat("x", 65000)
	for _, tt := range []struct {
		name, code string
		in         ssm.SendCommandInput
	}{
		{"no nodes", "InvalidInstanceId", ssm.SendCommandInput{}},
		{"a node that is not there", "InvalidInstanceId", ssm.SendCommandInput{InstanceIds: []string{"i-00000000000000000"}}},
		{"a node twice", "DuplicateInstanceId", ssm.SendCommandInput{InstanceIds: []string{id, id}}},
		{"a document that is not there", "InvalidDocument", ssm.SendCommandInput{InstanceIds: []string{id}, DocumentName: aws.String("None")}},
		{"a session document", "InvalidDocument", ssm.SendCommandInput{InstanceIds: []string{id}, DocumentName: aws.String("AWS-StartSSHSession")}},
		{"a version that is not there", "InvalidDocumentVersion", ssm.SendCommandInput{InstanceIds: []string{id}, DocumentVersion: aws.String("7")}},
		{"another hash", "InvalidDocument", ssm.SendCommandInput{InstanceIds: []string{id}, DocumentHash: aws.String("00"), DocumentHashType: types.DocumentHashTypeSha256}},
		{"too little time", "ValidationException", ssm.SendCommandInput{InstanceIds: []string{id}, TimeoutSeconds: aws.Int32(5)}},
		{"a concurrency that is none", "ValidationException", ssm.SendCommandInput{InstanceIds: []string{id}, MaxConcurrency: aws.String("0")}},
		{"an S3 bucket", "InvalidOutputFolder", ssm.SendCommandInput{InstanceIds: []string{id}, OutputS3BucketName: aws.String("bucket")}},
		{"a target key that is not known", "ValidationException", ssm.SendCommandInput{Targets: []types.Target{{Key: aws.String("PingStatus"), Values: []string{"Online"}}}}},
		{"too much", "MaxDocumentSizeExceeded", ssm.SendCommandInput{InstanceIds: []string{id}, Parameters: map[string][]string{"commands": slices.Repeat([]string{long}, 5)}}},
	} {
		if tt.in.DocumentName == nil {
			tt.in.DocumentName = aws.String("AWS-RunShellScript")
		}
		if tt.in.Parameters == nil {
			tt.in.Parameters = map[string][]string{"commands": {"true"}}
		}
		if _, err := api.SSM.SendCommand(t.Context(), &tt.in); err == nil || !strings.Contains(err.Error(), tt.code) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.code)
		}
	}
	nobody := fmt.Sprintf("%08d-0000-4000-8000-000000000000", 0)
	if _, err := api.SSM.GetCommandInvocation(t.Context(), &ssm.GetCommandInvocationInput{CommandId: &nobody, InstanceId: aws.String(id)}); err == nil || !strings.Contains(err.Error(), "InvalidCommandId") {
		t.Errorf("a command that is not there: got %v", err)
	}
	out, err := api.SSM.SendCommand(t.Context(), &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"),
		Targets: []types.Target{{Key: aws.String("tag:No"), Values: []string{"such"}}}, Parameters: map[string][]string{"commands": {"true"}}})
	if err != nil || aws.ToString(out.Command.StatusDetails) != "NoInstancesInTag" {
		t.Errorf("targets that match nothing: got %+v, %v", out, err)
	}
}
