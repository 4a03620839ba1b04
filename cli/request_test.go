package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/client"
)

func wantText(t *testing.T, what, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s: got %q, want %q", what, got, pattern)
	}
}

// Where nobody can be asked each missing field is a line, and nothing is asked for.
func TestRequestWithoutTerminal(t *testing.T) {
	s := newAccessServer(t, nodesFlow)
	status, stdout, stderr := s.run("request", "database", "--target", "db")
	if status != statusUsage || stdout != "" {
		t.Errorf("got status %d, %q, want 2 and nothing", status, stdout)
	}
	wantText(t, "reason", stderr, `(?m)^sallyport: reason is missing: give --reason TEXT$`)
	wantText(t, "ticket", stderr, `(?m)^sallyport: ticket is missing: give --set ticket=VALUE$`)
	_, _, stderr = s.run("request", "database", "--target", "x", "--duration", "soon", "--set", "areas=all", "--set", "count=many")
	for _, want := range []string{`--duration: "soon"`, `--set areas: "all"`, `--set count: "many"`, `--target "x"`, `reason is missing`, `ticket is missing`} {
		wantText(t, "all that is wrong", stderr, `(?m)^sallyport: `+want)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no target":        {[]string{"--reason", "look", "--set", "ticket=OPS-1"}, `target is missing: give --target NAME, one of db, logs, or all`},
		"unknown target":   {[]string{"--target", "x"}, `--target "x": flow database has db, logs`},
		"pattern":          {[]string{"--target", "db", "--set", "ticket=12"}, `--set ticket: "12": want a ticket such as OPS-12`},
		"not allowed":      {[]string{"--target", "db", "--set", "areas=all"}, `--set areas: "all" is not allowed: want reads, writes`},
		"no number":        {[]string{"--target", "db", "--set", "count=many"}, `--set count: "many": want a whole number`},
		"no field":         {[]string{"--target", "db", "--set", "color=red"}, `flow database has no such field; it has reason, ticket, areas, count, duration`},
		"no value":         {[]string{"--target", "db", "--set", "ticket"}, `--set "ticket": want FIELD=VALUE`},
		"several":          {[]string{"--target", "db", "--set", "ticket=OPS-1", "--set", "ticket=OPS-2"}, `--set ticket: it has one value, and 2 are given`},
		"how long":         {[]string{"--target", "db", "--duration", "soon"}, `--duration: "soon": want how long, such as 30m, 1h or 2d`},
		"escape codes":     {[]string{"--target", "db", "--reason", "\x1b[2J"}, `--reason: .*it holds a control character`},
		"another flow":     {[]string{"backend"}, ``},
		"reason two times": {[]string{"--target", "db", "--reason", "x", "--set", "reason=y"}, `--set reason: it is given by its own flag, too`},
	} {
		status, _, stderr := s.run(append([]string{"request", "database"}, test.args...)...)
		if status != statusUsage {
			t.Errorf("%s: got status %d, want 2: %s", name, status, stderr)
		}
		wantText(t, name, stderr, test.want)
	}
	if asked := s.asked("RequestAccess"); len(asked) > 0 {
		t.Errorf("got %q, want nothing asked for", asked)
	}
}

func TestRequestSends(t *testing.T) {
	s := newAccessServer(t, nodesFlow)
	status, stdout, stderr := s.run("request", "database", "--target", "db", "--node", "i-060ee0879f3ec4eb7", "--reason", "migrate",
		"--duration", "90m", "--set", "ticket=OPS-12", "--set", "areas=reads", "--set", "areas=writes")
	if status != statusDone || stdout != "oi-000000abc000\n" {
		t.Fatalf("got status %d, %q, %s", status, stdout, stderr)
	}
	wantText(t, "what is next", stderr, `waits for groups frontend, backend \(alice, bob\)`)
	var got client.RequestAccessInput
	if err := json.Unmarshal([]byte(s.asked("RequestAccess")[0]), &got); err != nil {
		t.Fatal(err)
	}
	want := client.RequestAccessInput{Flow: "database", Targets: []string{"db"}, NodeIDs: []string{"i-060ee0879f3ec4eb7"}, Reason: "migrate",
		Seconds: 5400, Values: map[string][]string{"ticket": {"OPS-12"}, "areas": {"reads", "writes"}}, Channel: "cli"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRequestDryRun(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	status, stdout, stderr := s.run("request", "--reason", "look at it", "--dry-run")
	if status != statusDone || len(s.requests) != 0 {
		t.Errorf("got status %d, %d requests: %s", status, len(s.requests), stderr)
	}
	wantText(t, "who decides", stdout, `(?m)^  decides     1 of groups frontend, backend: alice, bob$`)
}

// At a terminal a person is asked for what is missing, until it is right.
func TestRequestAsks(t *testing.T) {
	s := newAccessServer(t, nodesFlow)
	c := s.onTerminal("request")
	c.want(`\(flow database\)`)
	c.want(`For what\?`)
	c.typed("logs\r")
	c.want(`Reason:`)
	c.typed("\n")
	c.want(`it is needed`)
	c.typed("audit\n")
	c.want(`Ticket:`)
	c.typed("12\n")
	c.want(`want a ticket such as OPS-12`)
	c.typed("OPS-12\n")
	c.want(`Areas\?`)
	c.typed("\r")
	c.want(`Areas\?(?s).*that is all`)
	c.typed("that\r")
	c.want(`Count:`)
	c.typed("\n")
	c.want(`Duration:`)
	c.typed("1h\n")
	c.want(`waits for`)
	c.ends(statusDone)
	var got client.RequestAccessInput
	json.Unmarshal([]byte(s.asked("RequestAccess")[0]), &got)
	want := client.RequestAccessInput{Flow: "database", Targets: []string{"logs"}, Reason: "audit", Seconds: 3600,
		Values: map[string][]string{"ticket": {"OPS-12"}, "areas": {"reads"}}, Channel: "cli"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Among several flows a person chooses.
func TestRequestChooses(t *testing.T) {
	s := newAccessServer(t, nodesFlow, frontendFlow)
	c := s.onTerminal("request", "--reason", "the build is broken", "--duration", "30m")
	c.want(`Which access\?`)
	c.typed("front\r")
	c.want(`waits for`)
	c.ends(statusDone)
}

// Whoever decides sees which grant a request for more time is for.
func TestMoreTimeShown(t *testing.T) {
	req := &client.AccessRequest{Values: map[string][]string{valueExtends: {"oi-6604da26d35b"}}}
	wantText(t, "more time", requestText(req), `(?m)^  more time   oi-6604da26d35b$`)
}

// Whoever leaves the questions has asked for nothing.
func TestRequestLeft(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	c := s.onTerminal("request")
	c.want(`Reason:`)
	c.typed("\x04")
	c.want(`nothing was asked for`)
	c.ends(statusInterrupted)
	if len(s.requests) != 0 {
		t.Errorf("got %d requests, want none", len(s.requests))
	}
}

func TestRequestWaits(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	c := s.onTerminal("request", "--wait", "--reason", "fix it", "--duration", "60m", "frontend")
	c.want(`oi-000000abc000 asks for role FrontEndSSHAccess for 1h; groups frontend, backend \(alice, bob\) may decide`)
	c.want(`waiting for groups frontend, backend \(alice, bob\); (1h|59m).* left; Ctrl-C stops waiting`)
	s.approveNext(true)
	c.want(`bob approved: because␛\[2J`)
	c.want(`is approved by bob and holds until`)
	c.ends(statusDone)

	c = s.onTerminal("request", "--wait", "--reason", "fix it", "--duration", "30m", "frontend")
	c.want(`waiting for`)
	s.approveNext(false)
	c.want(`was denied by bob: because␛\[2J`)
	c.ends(statusRefused)
}

// Ctrl-C stops the waiting, and leaves the request as it is.
func TestRequestInterrupted(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	c := s.onTerminal("request", "--wait", "--reason", "fix it", "--duration", "30m", "frontend")
	c.want(`waiting for`)
	syscall.Kill(os.Getpid(), syscall.SIGINT) // the test's terminal is not its controlling one
	c.want(`oi-000000abc000 goes on waiting for a decision`)
	c.want(`sallyport cancel oi-000000abc000 takes it back`)
	c.ends(statusInterrupted)
	if s.requests[0].State != statePending {
		t.Errorf("got %s, want it pending", s.requests[0].State)
	}
}

// What is decided on is what was shown.
func TestApprove(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	s.run("request", "--reason", "fix it\u202e")
	s.run("request", "--reason", "look at it")
	status, _, stderr := s.run("approve", "oi-000000abc000")
	if status != statusUsage {
		t.Errorf("got status %d without --yes, want 2: %s", status, stderr)
	}
	if status, _, stderr := s.run("approve", "00000", "--yes"); status != statusUsage || !strings.Contains(stderr, "oi-00000 fits several requests: oi-000000abc000, oi-000000abc001") {
		t.Errorf("got status %d: %s", status, stderr)
	}
	status, _, stderr = s.run("approve", "oi-000000abc000", "--yes", "--hash", strings.Repeat("cd", 32))
	if status != statusRefused || len(s.asked("ApproveRequest")) > 0 {
		t.Errorf("got status %d, %q; want another request's hash refused: %s", status, s.asked("ApproveRequest"), stderr)
	}
	c := s.onTerminal("approve", "oi-000000abc000")
	c.want(`reason      `)
	c.want(`hash        (ab){32}`)
	c.want(`Approve it\? \[y/N\]`)
	c.typed("n\n")
	c.want(`nothing was decided`)
	c.ends(statusRefused)
	c = s.onTerminal("approve", "000000abc000", "--comment", "ok")
	c.want(`Approve it\?`)
	c.typed("y\n")
	c.want(`is approved by bob`)
	c.ends(statusDone)
	if got := s.asked("ApproveRequest"); len(got) != 1 || !strings.Contains(got[0], strings.Repeat("ab", 32)) {
		t.Errorf("got %q, want the hash that was shown", got)
	}
	if status, _, stderr := s.run("approve", "--yes"); status != statusUsage || !strings.Contains(stderr, "name the request, or give its --hash") {
		t.Errorf("got status %d: %s", status, stderr)
	}
	if status, _, stderr := s.run("deny", "--hash", strings.Repeat("ab", 32)); status != statusUsage || !strings.Contains(stderr, "give --yes") {
		t.Errorf("got status %d: %s", status, stderr)
	}
	if status, _, stderr := s.run("deny", "oi-000000abc001", "--yes", "--comment", "no"); status != statusDone || !strings.Contains(stderr, "was denied by bob: no") {
		t.Errorf("got status %d: %s", status, stderr)
	}
	if status, _, stderr := s.run("approve", "oi-000000abc001", "--yes"); status != statusRefused || !strings.Contains(stderr, "there is nothing to decide") {
		t.Errorf("got status %d: %s", status, stderr)
	}
}

// Who comes back to a request that waits reads again who decides.
func TestOpenRequestNamesDeciders(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	s.run("request", "--reason", "fix it")
	api, err := client.Connect(t.Context(), client.Options{Endpoint: s.url, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := new(program).openRequest(t.Context(), api, wanted{}, []client.AccessFlow{frontendFlow})
	if err != nil || req == nil {
		t.Fatalf("got %v, %v", req, err)
	}
	wantText(t, "who decides", waitLine(req, time.Now()), `alice, bob`)
}

// A denial without a comment names who denied once.
func TestDeniedBecause(t *testing.T) {
	req := &client.AccessRequest{RequestID: "oi-000000abc000", State: "Denied", Because: "denied by bob", EndedBy: "arn:aws:iam::111111111111:user/bob"}
	wantText(t, "no comment", requestText(req), `(?m)because +denied by bob$`)
	req.Because = "no"
	wantText(t, "a comment", requestText(req), `(?m)because +no \(by arn:aws:iam::111111111111:user/bob\)$`)
}

func TestSteps(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	s.run("request", "--reason", "fix it")
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"extend"}, statusRefused, `you hold no access that was asked for`},
		{[]string{"show"}, statusDone, ``},
		{[]string{"approve", "oi-000000abc000", "--yes"}, statusDone, `is approved`},
		{[]string{"extend", "--duration", "30m"}, statusDone, `holds until`},
		{[]string{"revoke", "oi-000000abc000", "--yes"}, statusUsage, `--reason is missing`},
		{[]string{"delegate", "oi-000000abc000"}, statusUsage, `--to is missing`},
		{[]string{"review", "oi-000000abc000", "--outcome", "fine"}, statusUsage, `--outcome "fine": want justified or unjustified`},
		{[]string{"show", "nonsense"}, statusUsage, `want a request's id`},
		{[]string{"show", "oi-ffffffffffff"}, statusRefused, `There is no request`},
		{[]string{"release"}, statusUsage, `give --yes`},
		{[]string{"release", "--yes"}, statusDone, `has ended: released`},
		{[]string{"cancel"}, statusRefused, `you hold no access`},
		{[]string{"show"}, statusRefused, `you hold no access`},
		{[]string{"requests", "--state", "Broken"}, statusUsage, `--state "Broken": want Pending, Approved`},
	} {
		status, _, stderr := s.run(test.args...)
		if status != test.status {
			t.Errorf("%q: got status %d, want %d: %s", test.args, status, test.status, stderr)
		}
		wantText(t, strings.Join(test.args, " "), stderr, test.want)
	}
	status, stdout, _ := s.run("requests", "--all", "--json")
	var all []map[string]any
	if err := json.Unmarshal([]byte(stdout), &all); status != 0 || err != nil || len(all) != 1 || all[0]["state"] != "Released" {
		t.Errorf("got status %d, %s", status, stdout)
	}
}

// What somebody asked for is taken back once they have agreed, as what they hold is given back.
func TestCancel(t *testing.T) {
	s := newAccessServer(t, frontendFlow)
	s.run("request", "--reason", "fix it")
	status, _, stderr := s.run("cancel")
	wantText(t, "nobody to ask", stderr, `Take it back\? .*give --yes`)
	if state := s.requests[0].State; status != statusUsage || state != statePending {
		t.Errorf("got status %d, and the request is %s", status, state)
	}
	status, _, stderr = s.run("cancel", "--yes")
	wantText(t, "agreed", stderr, `has ended: cancelled`)
	if state := s.requests[0].State; status != statusDone || state != "Cancelled" {
		t.Errorf("got status %d, and the request is %s", status, state)
	}
}

// Nothing of a request acts on a terminal, or looks like another line.
func TestHostileRequest(t *testing.T) {
	evil := "x\x1b]0;own\x07\n  decides    nobody\u202e"
	req := &client.AccessRequest{
		RequestID: "oi-1\x1b[2J", State: "Pending\x1b[2J", Flow: evil, Label: evil, Person: evil, Principal: evil, Reason: evil, Hash: evil,
		Values: map[string][]string{evil: {evil}}, Targets: []client.AccessTarget{{Name: evil, Gives: evil, Label: evil}},
		Nodes: []client.AccessNode{{NodeID: evil, Name: evil}}, Channel: evil, Because: evil, EndedBy: evil, Warnings: []string{evil},
		Stages:     []client.AccessStage{{Name: evil, Deciders: evil, People: []string{evil}, Comment: evil}},
		Decisions:  []client.AccessDecision{{By: evil, Comment: evil, Channel: evil, Struck: evil}},
		Events:     []client.AccessEvent{{Kind: evil, Actor: evil, Channel: evil, Comment: evil}},
		Extensions: []client.AccessExtension{{Reason: evil, RequestID: evil}},
		Review:     &client.AccessReview{By: evil, Outcome: evil, Comment: evil},
	}
	flow := client.AccessFlow{Name: evil, Label: evil, Fields: []client.AccessField{{Name: evil, Required: true, Allowed: []string{evil}}}, Targets: req.Targets}
	texts := []string{requestText(req), historyText(req), waitLine(req, time.Now()), waitingWords(req), outcome(req), askCommand(flow, client.Node{NodeID: someNode})}
	for _, state := range []string{stateApproved, stateActive, "Denied", "Revoked"} {
		req.State = state
		texts = append(texts, outcome(req), requestText(req))
	}
	for _, text := range texts {
		if strings.ContainsAny(text, "\x1b\x07\u202e") || strings.Contains(text, "\n  decides    nobody") {
			t.Errorf("got %q", text)
		}
	}
	if strings.Count(askCommand(flow, client.Node{NodeID: someNode}), "\n") > 0 {
		t.Error("a command has several lines")
	}
}

func TestParseLength(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "1h": time.Hour, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "45s": 45 * time.Second,
		"": 0, "0s": 0, "-1h": 0, "soon": 0, "0d": 0, "9999d": 0, "500ms": 0,
	} {
		got, err := parseLength(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for d, want := range map[time.Duration]string{30 * time.Minute: "30m", time.Hour: "1h", 90 * time.Minute: "1h30m", 48 * time.Hour: "2d", 59*time.Minute + 3*time.Second: "59m3s"} {
		if got := lengthText(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestIsBatch(t *testing.T) {
	for line, want := range map[string]bool{
		"ssh frontend-1": false, "ssh -o BatchMode=yes frontend-1": true, "ssh -oBatchMode=yes x": true, "ssh -oBatchmode=yes x": true,
		"ssh -o BatchMode=no x": false, "ssh x echo BatchMode=maybe": false,
	} {
		if got := isBatch(strings.Fields(line)); got != want {
			t.Errorf("%s: got %v, want %v", line, got, want)
		}
	}
}
