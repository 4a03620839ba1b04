package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/client"
)

func step(status string, code int, stdout, stderr string) client.CommandStep {
	return client.CommandStep{Name: "run", Status: status, ExitStatus: code, StandardOutput: stdout, StandardError: stderr}
}

func TestRunView(t *testing.T) {
	well := client.CommandNode{NodeID: "mi-1", NodeName: "web", Status: "Success", StatusDetails: "Success", Steps: []client.CommandStep{step("Success", 0, "a\nb\n", "")}}
	for _, tt := range []struct {
		name           string
		nodes          []client.CommandNode
		stdout, stderr string
		status         int
	}{
		{"lines bear names", []client.CommandNode{well}, "web: a\nweb: b\n", "web: success\nsallyport: 1 node: 1 succeeded (command ID)\n", 0},
		{"errors and status", []client.CommandNode{{NodeID: "mi-1", Status: "Failed", StatusDetails: "Failed", Steps: []client.CommandStep{step("Failed", 3, "", "no\n")}}},
			"", "mi-1: no\nmi-1: failed, exit status 3\nsallyport: 1 node: 1 failed (command ID)\n", 1},
		{"nodes of one name", []client.CommandNode{well, {NodeID: "mi-2", NodeName: "web", Status: "TimedOut", StatusDetails: "DeliveryTimedOut"}},
			"web mi-1: a\nweb mi-1: b\n", "web mi-1: success\nweb mi-2: not reached in time\nsallyport: 2 nodes: 1 succeeded, 1 not reached (command ID)\n", 1},
		{"an end is told once", []client.CommandNode{well, well}, "web: a\nweb: b\n", "web: success\nsallyport: 1 node: 1 succeeded (command ID)\n", 0},
		{"what an agent says", []client.CommandNode{{NodeID: "mi-1", NodeName: "x\x1b[2J", Status: "Failed", StatusDetails: "Failed", Trace: "no\x1b[31m\nsuch"}},
			"", "x\u241b[2J: failed: no\u241b[31m\u240asuch\nsallyport: 1 node: 1 failed (command ID)\n", 1},
		{"none", nil, "", "sallyport: no node matches Team=x Stage=\u241b\n", 1},
		{"words that are not known", []client.CommandNode{{NodeID: "mi-1", Status: "Failed", StatusDetails: "Odd"}}, "",
			"mi-1: odd\nsallyport: 1 node: 1 Odd (command ID)\n", 1},
	} {
		var stdout, stderr bytes.Buffer
		v := (&program{stdout: &stdout, stderr: &stderr}).newRunView("ID", []string{"Team=x", "Stage=\x1b"})
		v.total = len(tt.nodes)
		for _, n := range tt.nodes {
			v.node(n)
		}
		err := v.finish(runEnd{}, false)
		status := 0
		if e := (*statusError)(nil); errors.As(err, &e) {
			status = e.status
		}
		if diff := cmp.Diff([]any{tt.stdout, tt.stderr, tt.status}, []any{stdout.String(), strings.ReplaceAll(stderr.String(), "\ufffd", "\u241b"), status}); diff != "" {
			t.Errorf("%s: got (+), want (-):\n%s", tt.name, diff)
		}
	}
}

// A node's output does nothing to the terminal that it is shown on.
func TestRunOutputIsHarmless(t *testing.T) {
	var b bytes.Buffer
	p := &program{stdout: &b, stderr: &b}
	v := p.newRunView("ID", nil)
	v.plain = false
	v.lines(&b, "web", "\x1b]0;title\x07red \x1b[31m\ttab\r\nnext\u202e\u009b")
	if got, want := b.String(), "web: \ufffd]0;title\ufffdred \ufffd[31m\ttab\nweb: next\ufffd\ufffd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunJSON(t *testing.T) {
	var b bytes.Buffer
	p := &program{stdout: &b, stderr: &b}
	p.flags.json = true
	v := p.newRunView("ID", nil)
	v.node(client.CommandNode{NodeID: "mi-1", NodeName: "web", Status: "Failed", StatusDetails: "Failed",
		Steps: []client.CommandStep{step("Success", 0, "a\n", ""), step("Failed", 3, "b\n", "e")}})
	if err := v.finish(runEnd{"Failed", "Failed"}, true); err == nil || err.(*statusError).status != statusInterrupted {
		t.Errorf("got %v, want the status of an interrupt", err)
	}
	var lines []map[string]any
	for d := json.NewDecoder(&b); d.More(); {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	want := []map[string]any{
		{"type": "node", "command_id": "ID", "node_id": "mi-1", "node_name": "web", "status": "Failed", "details": "Failed", "exit_status": 3.0,
			"stdout": "a\nb\n", "stderr": "e", "steps": []any{
				map[string]any{"name": "run", "status": "Success", "exit_status": 0.0, "stdout": "a\n", "stderr": ""},
				map[string]any{"name": "run", "status": "Failed", "exit_status": 3.0, "stdout": "b\n", "stderr": "e"}}},
		{"type": "summary", "command_id": "ID", "status": "Failed", "details": "Failed", "nodes": 1.0, "counts": map[string]any{"Failed": 1.0}},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestRunInput(t *testing.T) {
	usual := runFlags{timeout: time.Hour, delivery: time.Minute, concurrency: "50", errors: "100%"}
	with := func(change func(*runFlags)) runFlags {
		f := usual
		change(&f)
		return f
	}
	for _, tt := range []struct {
		name    string
		command []string
		flags   runFlags
		want    map[string][]string
		err     string
	}{
		{"a line", []string{"a | b"}, usual, map[string][]string{"commands": {"a | b"}, "executionTimeout": {"3600"}}, ""},
		{"words", []string{"echo", "a b", "it's"}, usual, map[string][]string{"commands": {`echo 'a b' 'it'\''s'`}, "executionTimeout": {"3600"}}, ""},
		{"a time", []string{"a"}, with(func(f *runFlags) { f.timeout = 90 * time.Second }), map[string][]string{"commands": {"a"}, "executionTimeout": {"90"}}, ""},
		{"more parameters", []string{"a"}, with(func(f *runFlags) { f.parameters = `{"workingDirectory":["/tmp"]}` }),
			map[string][]string{"commands": {"a"}, "executionTimeout": {"3600"}, "workingDirectory": {"/tmp"}}, ""},
		{"another document", nil, with(func(f *runFlags) { f.document, f.parameters = "D", `{"x":["y"]}` }), map[string][]string{"x": {"y"}}, ""},
		{"nothing", nil, usual, nil, "no command is given"},
		{"commands twice", []string{"a"}, with(func(f *runFlags) { f.parameters = `{"commands":["b"]}` }), nil, "given otherwise"},
		{"a document and a command", []string{"a"}, with(func(f *runFlags) { f.document = "D" }), nil, "says what runs"},
		{"a document and a time", nil, with(func(f *runFlags) { f.document, f.timeout = "D", time.Minute }), nil, "--timeout is a parameter"},
		{"no JSON", []string{"a"}, with(func(f *runFlags) { f.parameters = "x=y" }), nil, "want JSON"},
		{"no nodes at once", []string{"a"}, with(func(f *runFlags) { f.concurrency = "0%" }), nil, `--max-concurrency "0%": want a number of 1 or more`},
		{"more than all nodes", []string{"a"}, with(func(f *runFlags) { f.errors = "101%" }), nil, `--max-errors "101%": want a number of 0 or more`},
		{"no failures", []string{"a"}, with(func(f *runFlags) { f.concurrency, f.errors = "5%", "0" }),
			map[string][]string{"commands": {"a"}, "executionTimeout": {"3600"}}, ""},
		{"too little time", []string{"a"}, with(func(f *runFlags) { f.delivery = time.Second }), nil, "want 30s or more"},
	} {
		in, err := runInput(tt.command, tt.flags)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		default:
			if diff := cmp.Diff(tt.want, in.Parameters); diff != "" {
				t.Errorf("%s: %s", tt.name, diff)
			}
		}
	}
}

// AWS has no operation of ours: a command is watched through its own.
func TestRunOnAWS(t *testing.T) {
	looks := 0
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		status := map[bool]string{true: "Success", false: "InProgress"}[looks > 0]
		switch operation {
		case "ListCommands":
			w.Write([]byte(`{"Commands":[{"CommandId":"ID","Status":"` + status + `","StatusDetails":"` + status + `","TargetCount":2}]}`))
		case "ListCommandInvocations":
			looks++
			w.Write([]byte(`{"CommandInvocations":[
				{"InstanceId":"mi-1","InstanceName":"web","Status":"Success","StatusDetails":"Success","CommandPlugins":[{"Name":"aws:runShellScript","Status":"Success"}]},
				{"InstanceId":"mi-2","InstanceName":"db","Status":"` + status + `","StatusDetails":"` + status + `","CommandPlugins":[{"Name":"aws:runShellScript","Status":"` + status + `"}]}]}`))
		case "GetCommandInvocation":
			w.Write([]byte(`{"ResponseCode":0,"Status":"Success","StandardOutputContent":"all of it\n"}`))
		default:
			w.WriteHeader(http.StatusBadRequest)
			w.Write([]byte(`{"__type":"UnknownOperationException","message":"x"}`))
		}
	}))
	api, err := client.Connect(t.Context(), client.Options{Region: "us-east-1", Endpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	p := &program{stdout: &stdout, stderr: &stderr}
	w := &runWatch{p: p, api: api, id: "00000000-0000-4000-8000-000000000000", view: p.newRunView("ID", nil)}
	var end *runEnd
	for n := 0; end == nil && n < 5; n++ {
		if end, _, err = w.poll(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if end == nil || end.status != "Success" {
		t.Fatalf("got end %+v", end)
	}
	if err := w.view.finish(*end, false); err != nil {
		t.Error(err)
	}
	got := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	slices.Sort(got)
	if diff := cmp.Diff([]string{"db: all of it", "web: all of it"}, got); diff != "" {
		t.Error(diff)
	}
}
