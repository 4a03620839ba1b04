package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"sallyport.dev/policy"
)

// runPolicy runs "policy ARGS" with an input and returns what it wrote and its
// status.
func runPolicy(t *testing.T, input string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }, version: "test"}
	root := p.newRoot()
	root.SetIn(strings.NewReader(input))
	root.SetArgs(append([]string{"policy"}, args...))
	var cmd *cobra.Command
	cmd, err := root.ExecuteC()
	if err != nil {
		status = p.fail(cmd, err)
	}
	return out.String(), errs.String(), status
}

func TestPolicyEvalCases(t *testing.T) {
	cases, err := os.ReadFile("../policy/testdata/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := runPolicy(t, string(cases), "eval")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, stderr %s", status, stderr)
	}
	in := strings.Split(strings.TrimSpace(string(cases)), "\n")
	out := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(in) != 400 || len(out) != 400 {
		t.Fatalf("got %d lines in and %d out, want 400 each", len(in), len(out))
	}
	for i := range in {
		var want struct {
			ID     int
			Expect string
		}
		var got struct {
			ID       int
			Decision string
			Reasons  []struct{ Text string }
		}
		if err := json.Unmarshal([]byte(in[i]), &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out[i]), &got); err != nil {
			t.Fatalf("line %d: %v: %s", i+1, err, out[i])
		}
		if got.ID != want.ID || got.Decision != want.Expect {
			t.Errorf("line %d: got id %d %s, want id %d %s", i+1, got.ID, got.Decision, want.ID, want.Expect)
		}
		if len(got.Reasons) == 0 || got.Reasons[0].Text == "" {
			t.Errorf("line %d: no reason: %s", i+1, out[i])
		}
	}
}

const evalGood = `{"id":%s,"policies":[{"name":"p","policy":{"Statement":{"Effect":"Allow","Action":"ssm:*","Resource":"*"}}}],"request":{"action":"ssm:StartSession","resource":"*","context":{"aws:MultiFactorAuthAge":5,"aws:username":"a"}}}`

// TestPolicyEvalBadLines: a bad line is reported with its number and does not keep
// the others from being answered.
func TestPolicyEvalBadLines(t *testing.T) {
	good := func(id string) string { return fmt.Sprintf(evalGood, id) }
	tests := []struct{ name, line, want string }{
		{"no JSON", `hello`, "invalid character"},
		{"cut off", good("1")[:50], "unexpected EOF"},
		{"two values", good("1") + good("2"), "more than one JSON value"},
		{"no policies", `{"id":1,"request":{"action":"a:b","resource":"*"}}`, `missing element "policies"`},
		{"no request", `{"id":1,"policies":[]}`, `missing element "request"`},
		{"no action", `{"id":1,"policies":[],"request":{"resource":"*"}}`, `missing element "request.action"`},
		{"unknown element", `{"id":1,"policies":[],"boundaries":[],"request":{"action":"a:b","resource":"*"}}`, `unknown field "boundaries"`},
		{"unknown kind", strings.Replace(good("1"), `"name":"p"`, `"name":"p","kind":"role"`, 1), `unknown kind "role"`},
		{"bad policy", strings.Replace(good("1"), `"Effect"`, `"effect"`, 1), `policy "p": line 1, column 15: statement 1: unknown element "effect"; did you mean "Effect"?`},
		{"bad value", strings.Replace(good("1"), `:5`, `:{}`, 1), "a value must be a string"},
		{"duplicate element in a policy", strings.Replace(good("1"), `"Effect"`, `"Effect":"Deny","Effect"`, 1), `duplicate element "Effect"`},
		{"too long", strings.Repeat("x", maxEvalLine+1), "longer than 4194304 bytes"},
		{"NUL bytes", "\x00\x00", "invalid character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, end := range []string{"\n" + good(`"last"`) + "\n", ""} {
				stdout, stderr, status := runPolicy(t, good(`"first"`)+"\n\n"+tt.line+end, "eval")
				if status != 1 {
					t.Errorf("got status %d, want 1", status)
				}
				if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "sallyport: standard input, line 3: ") || !strings.Contains(stderr, tt.want) {
					t.Errorf("got stderr %q, want one line on line 3 with %q", stderr, tt.want)
				}
				wantLines := 1 + strings.Count(end, "last")
				if got := strings.Count(stdout, `"decision":"Allowed"`); got != wantLines || strings.Count(stdout, "\n") != wantLines {
					t.Errorf("got %d decisions, want %d: %s", got, wantLines, stdout)
				}
			}
		})
	}
}

func TestPolicyEvalReasons(t *testing.T) {
	line := `{"id":"x","policies":[{"name":"team","policy":{"Version":"2012-10-17","Statement":[{"Sid":"Nodes","Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"payments"}}}]}},` +
		`{"name":"edge","kind":"boundary","policy":{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}}],"request":{"action":"ssm:StartSession","resource":"*","context":{"ssm:resourceTag/Team":"search"}}}`
	stdout, _, _ := runPolicy(t, line, "eval")
	var got struct {
		ID, Decision string
		Reasons      []map[string]any
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != "x" || got.Decision != "ImplicitlyDenied" || len(got.Reasons) != 2 {
		t.Fatalf("got %s", stdout)
	}
	if want := "no identity-based policy allows the ssm:StartSession action"; got.Reasons[0]["text"] != want {
		t.Errorf("got first reason %v, want %q", got.Reasons[0], want)
	}
	r := got.Reasons[1]
	if r["sid"] != "Nodes" || r["source"] != "team" || r["matched"] != false || r["hint"] != `the resource's tag "Team" would have to be "payments"` {
		t.Errorf("got second reason %v", r)
	}
}

func writePolicy(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPolicyLint(t *testing.T) {
	clean := writePolicy(t, "clean.json", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:StartSession","Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"a"}}}}`)
	comma := writePolicy(t, "comma.json", "{\n  \"Version\": \"2012-10-17\"\n  \"Statement\": []\n}\n")
	wide := writePolicy(t, "wide.json", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	missing := filepath.Join(t.TempDir(), "missing.json")
	tests := []struct {
		name           string
		args           []string
		stdout, stderr string // parts; empty for nothing at all
		status         int
	}{
		{"clean", []string{clean}, "", "", 0},
		{"error", []string{clean, comma}, comma + `:2:26: error: missing comma before "Statement" (line 3, column 3) [syntax]`, "", 1},
		{"warnings alone", []string{wide}, wide + ":1:64: warning: every action is allowed on every resource [allows-everything]", "", 0},
		{"tags", []string{"--tags", "Name,Environment", clean}, `no node bears the tag "Team" [unborne-tag]`, "", 0},
		{"tags that are borne", []string{"--tags", "Name,Team", clean}, "", "", 0},
		{"unreadable file", []string{missing, wide}, "allows-everything", "missing.json: no such file", 1},
		{"folder", []string{t.TempDir()}, "", "is a directory", 1},
		{"no file", nil, "", "want FILE...", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, status := runPolicy(t, "", append([]string{"lint"}, tt.args...)...)
			if status != tt.status {
				t.Errorf("got status %d, want %d", status, tt.status)
			}
			for _, o := range []struct{ name, got, want string }{{"stdout", stdout, tt.stdout}, {"stderr", stderr, tt.stderr}} {
				if !strings.Contains(o.got, o.want) || o.want == "" && o.got != "" {
					t.Errorf("%s: got %q, want %q", o.name, o.got, o.want)
				}
			}
		})
	}
}

func TestPolicyLintJSON(t *testing.T) {
	stdout, _, status := runPolicy(t, `{"Statement":1}`, "lint", "--json", "-")
	var got []map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	want := []map[string]any{{
		"file": "-", "line": 1.0, "column": 14.0, "severity": "error", "rule": "syntax",
		"message": "Statement must be an object or an array of objects, not a number",
	}}
	if diff := cmp.Diff(want, got); diff != "" || status != 1 {
		t.Errorf("status %d, findings (-want +got):\n%s", status, diff)
	}
	clean := `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`
	if stdout, _, status := runPolicy(t, clean, "lint", "--json", "-"); stdout != "[]\n" || status != 0 {
		t.Errorf("clean: got %q and status %d, want [] and 0", stdout, status)
	}
	long := strings.Repeat(" ", policy.MaxSize+1) + clean
	if stdout, _, status := runPolicy(t, long, "lint", "-"); status != 1 || !strings.Contains(stdout, "longer than") {
		t.Errorf("too long: got %q and status %d", stdout, status)
	}
}
