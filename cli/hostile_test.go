package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport.dev/client"
)

// hostile is a server that answers every operation from a table, and has been taken over.
func hostile(t *testing.T, answers map[string]string) (run func(args ...string) (status int, stdout, stderr string)) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Header.Get("X-Amz-Target")]
		if !ok {
			refuse(w, "AccessDeniedException", "no")
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_REGION": "us-east-1",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "HOME": t.TempDir(),
		"AWS_ENDPOINT_URL": server.URL, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(k, v)
	}
	return func(args ...string) (int, string, string) {
		p, _ := newTestProgram(t)
		p.flags.endpoint, p.flags.region = "", ""
		var stdout, stderr bytes.Buffer
		p.stdout, p.stderr = &stdout, &stderr
		status := p.run(t.Context(), args)
		return status, stdout.String(), stderr.String()
	}
}

// listing is ListNodes' answer with one node of this id and name.
func listing(id, name string) string {
	b, err := json.Marshal(client.ListNodesOutput{Nodes: []client.Node{{
		NodeID: id, Name: name, State: client.StateConnected, AgentName: "agent\x1b[2J", AgentVersion: "\x9b2J", Tags: map[string]string{"Name": name, "T\x1b]0;x\x07": "\u202e\n"},
	}}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// The id of a node ends up on ssh's command line, and in requests: it has to be one.
func TestHostileNodeID(t *testing.T) {
	for _, id := range []string{"-oProxyCommand=touch pwned", "i-0\x1b[2J", "i-0123456789abcdef0 -oProxyCommand=x", "$(id)", "", "../../x", "i-0123456789abcdef0\n"} {
		run := hostile(t, map[string]string{"Sallyport.ListNodes": listing(id, "web")})
		for _, args := range [][]string{
			{"ssh", "--sshd", "web"}, {"scp", "--sshd", "x", "web:"}, {"proxy", "web"}, {"connect", "web"}, {"tunnel", "web", "0:80"}, {"connect", "-n", "web", "--", "id"},
		} {
			status, stdout, stderr := run(args...)
			if status == 0 || !strings.Contains(stderr, "the server told of a node") {
				t.Errorf("%q: %s: got status %d, %q, want the id refused", id, args[0], status, stderr)
			}
			if strings.ContainsAny(stdout+stderr, "\x1b\x07") {
				t.Errorf("%q: %s: showed %q", id, args[0], stdout+stderr)
			}
		}
	}
}

// What a server says reaches the terminal as text.
func TestHostileWords(t *testing.T) {
	const evil = `\u001b]0;x\u0007\u009b2J\u202e\nok    policy     you may start a session`
	run := hostile(t, map[string]string{
		"Sallyport.ListNodes": listing(someNode, "web\x1b[2J\nok    policy  yes"),
		"Sallyport.GetStatus": `{"Version":"v` + evil + `","Principal":"arn` + evil + `","Account":"1","Region":"r","Tags":{"K":"` + evil + `"},
			"Menu":[{"Key":"` + evil + `"}],"TagRules":[{"Key":"` + evil + `","Required":true,"Pattern":"("}]}`,
		"Sallyport.ExplainAccess":     `{"Decision":"ImplicitlyDenied","Message":"` + evil + `","Resources":[{"Decision":"x","Statements":[{"Effect":"Allow","Hint":"` + evil + `"}]}]}`,
		"AmazonSSM.DescribeDocument":  `{"Document":{"Name":"x","Parameters":[{"Name":"` + evil + `"}]}}`,
		"Sallyport.GetSSHAuthorities": `{"Gateway":"-oProxyCommand=touch pwned:22","Suffix":"x\nProxyCommand touch pwned"}`,
	})
	for _, args := range [][]string{{"doctor", someNode}, {"nodes"}, {"ssh", someNode}, {"scp", "x", someNode + ":"}} {
		status, stdout, stderr := run(args...)
		if strings.ContainsAny(stdout+stderr, "\x1b\x07\u009b\u202e") {
			t.Errorf("%s: showed %q", args[0], stdout+stderr)
		}
		if n := strings.Count(stdout, "\nok    policy "); n > 0 {
			t.Errorf("%s: the server forged a line of its own: %q", args[0], stdout)
		}
		if args[0] != "nodes" && status == 0 {
			t.Errorf("%s: got status 0, want a failure", args[0])
		}
	}
	if _, stdout, _ := run("doctor", someNode, "--json"); strings.ContainsAny(stdout, "\x1b\x07\u009b\u202e") || !json.Valid([]byte(stdout)) {
		t.Errorf("doctor --json: showed %q", stdout)
	}
}

// What a forward's other end says is text in the live lines and the log lines, too.
func TestHostileTunnelEvents(t *testing.T) {
	p, _ := newTestProgram(t)
	var stderr, stdout bytes.Buffer
	p.stderr, p.stdout = &stderr, &stdout
	tn := &tunnel{p: p, node: client.Node{NodeID: someNode, Name: "web\x1b[2J\nsallyport: all is well"}}
	tn.show = p.newTunnelShow(tn, false)
	d := &door{spec: forwardSpec{network: "unix", local: "./x.sock"}, lane: newLane(target{port: "80"}, nil, tn.show.tell)}
	tn.doors = []*door{d}
	tn.show.listening(d)
	for _, kind := range []string{eventLost, eventFailed, eventRefused, eventNotice} {
		err := &endedError{client.Clean("gone\x1b[2J\u202e")}
		tn.show.tell(tunnelEvent{Event: kind, Target: d.lane.target.String(), Error: errorText(err), Text: "x\x1b]0;y\x07"})
	}
	if strings.ContainsAny(stderr.String(), "\x1b\x07\u202e") || strings.Count(stderr.String(), "\nsallyport: all is well") > 0 {
		t.Errorf("showed %q", stderr.String())
	}
	p.flags.json = true
	tn.show.tell(tunnelEvent{Event: eventNotice, Text: "x\x1b]0;y\x07\u009b"})
	if strings.ContainsAny(stdout.String(), "\x1b\x07\u009b") || !json.Valid(stdout.Bytes()) {
		t.Errorf("showed %q", stdout.String())
	}
}

// A target that refuses again and again is told once in a while, with how often.
func TestTunnelDoesNotRepeatItself(t *testing.T) {
	p, _ := newTestProgram(t)
	var stderr bytes.Buffer
	p.stderr = &stderr
	tn := &tunnel{p: p}
	s := p.newTunnelShow(tn, false)
	for range 1000 {
		s.tell(tunnelEvent{Event: eventRefused, Target: "port 80", Error: "connection refused"})
	}
	s.tell(tunnelEvent{Event: eventRefused, Target: "port 81", Error: "connection refused"})
	want := "sallyport: port 80: connection refused\nsallyport: port 80: connection refused (999 times more)\nsallyport: port 81: connection refused\n"
	if got := stderr.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
