package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/client"
	"sallyport.dev/playback"
)

const cast = `{"version":2,"width":80,"height":24}
[0.0,"o","a"]
[1.0,"i","typed"]
[60.0,"o","b"]
[61.0,"o","c"]
`

func testTape(t *testing.T, cast string) *playback.Tape {
	t.Helper()
	tape, err := playback.NewTape(strings.NewReader(cast))
	if err != nil {
		t.Fatal(err)
	}
	return tape
}

func TestPlayer(t *testing.T) {
	const marked = `{"version":2,"width":20,"height":3}
[0.0,"o","a"]
[1.0,"m","first"]
[2.0,"o","b"]
[60.0,"o","c"]
[61.0,"m","second"]
[62.0,"o","d"]
[70.0,"r","30x5"]
`
	right := []key{keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight, keyRight}
	tests := []struct {
		name string
		from time.Duration
		keys []key
		want string // on the screen, at the end
		at   time.Duration
	}{
		{"from behind the end", time.Hour, nil, "abcd", 70 * time.Second},
		{"quit", 0, []key{keyPause, keyQuit}, "a", 0},
		{"pause and step", 0, []key{keyPause, keyStep, keyQuit}, "ab", 2 * time.Second},
		{"ahead", 0, []key{keyPause, keyRight, keyQuit}, "ab", 5 * time.Second},
		{"ahead, far", 0, append(append([]key{keyPause}, right...), keyQuit), "abcd", 65 * time.Second},
		{"back", 0, []key{keyPause, keyRight, keyLeft, keyQuit}, "a", 0},
		{"back from near the end", 69 * time.Second, []key{keyPause, keyLeft, keyQuit}, "abcd", 64 * time.Second},
		{"behind the end nothing waits", time.Hour, []key{keyLeft}, "abcd", 70 * time.Second},
		{"the next mark", 0, []key{keyPause, keyNext, keyQuit}, "a", time.Second},
		{"the next but one", 0, []key{keyPause, keyNext, keyNext, keyQuit}, "abc", 61 * time.Second},
		{"behind the last mark", 65 * time.Second, []key{keyPause, keyNext, keyQuit}, "abcd", 65 * time.Second},
		{"the previous mark", 65 * time.Second, []key{keyPause, keyPrevious, keyPrevious, keyQuit}, "a", time.Second},
		{"before the first", 0, []key{keyPause, keyPrevious, keyQuit}, "a", 0},
		{"find", 0, []key{keyPause, keyFind, 'b', 'C', keyEnter, keyQuit}, "abc", 60 * time.Second},
		{"find what is shown already", 0, []key{keyPause, keyFind, 'a', keyEnter, keyQuit}, "a", 0},
		{"find, and think better of it", 0, []key{keyPause, keyFind, 'q', keyEscape, keyQuit}, "a", 0},
		{"find, mistyped", 0, []key{keyPause, keyFind, 'x', keyErase, 'b', keyEnter, keyQuit}, "ab", 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pl := newPlayer(testTape(t, marked))
			keys := make(chan key, len(tt.keys))
			for _, k := range tt.keys {
				keys <- k
			}
			pl.keys, pl.speed = keys, 1.0/16
			if tt.keys == nil {
				pl.keys = nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := pl.run(ctx, tt.from); err != nil {
				t.Fatal(err)
			}
			if got := pl.screen.Text(0); got != tt.want {
				t.Errorf("shown: got %q, want %q", got, tt.want)
			}
			if got := pl.at.Truncate(time.Second); got != tt.at {
				t.Errorf("at: got %v, want %v", got, tt.at)
			}
		})
	}
}

// Time passes by the speed, and pauses are cut.
func TestPlayerTime(t *testing.T) {
	pl := newPlayer(testTape(t, cast))
	pl.speed, pl.maxIdle = 1000, time.Second
	if err := pl.run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got := pl.screen.Text(0); got != "abc" {
		t.Errorf("got %q", got)
	}
}

func TestPlayerStatus(t *testing.T) {
	pl := newPlayer(testTape(t, "{\"version\":2,\"width\":80,\"height\":24}\n[1,\"m\",\"do\\u001b[2Jit\"]\n[3700,\"o\",\"a\"]\n"))
	pl.paused = true
	if err := pl.rewind(); err != nil {
		t.Fatal(err)
	}
	want := " paused  0:02 / 1:01:40  x1  1/1 do\u241b[2Jit  space pauses, q quits"
	if got := pl.status(2 * time.Second); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKeysOf(t *testing.T) {
	tests := []struct {
		in   string
		want []key
	}{
		{"q", []key{'q'}},
		{"\x1b[C\x1bOD", []key{keyRight, keyLeft}},
		{"\x1b", []key{keyEscape}},
		{"\x1b[1;5C\x1b[3~x", []key{'x'}}, // with Ctrl, Delete: not ours
		{"CD", []key{'C', 'D'}},
		{"ż\n\x7f\b", []key{'ż', keyEnter, keyErase, keyErase}},
		{"\x1b[200", nil},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, keysOf(tt.in)); diff != "" {
			t.Errorf("keysOf(%q) (-want +got):\n%s", tt.in, diff)
		}
	}
}

// Into a pipe or a file a recording is written as text, the part that was asked for, and
// nothing of it acts on the terminal behind.
func TestWriteText(t *testing.T) {
	const evil = `{"version":2,"width":80,"height":24}
[0.0,"o","$ one\r\n\u001b]52;c;cm0=\u0007"]
[1.0,"o","\u001b[31mred\u001b[0m\u001b[6n\u0005\r\n$ "]
[5.0,"o","two\r\n"]
[9.0,"o","\u001b[?1049hscreen\u001b[?1049l\u009b6nend\u202e"]
`
	tests := []struct {
		name     string
		from, to time.Duration
		want     string
	}{
		{"all", 0, 0, "$ one\nred\n$ two\n[full-screen program]\nend\n"},
		{"from: the line that stands there is whole", 5 * time.Second, 0, "$ two\n[full-screen program]\nend\n"},
		{"until", 0, 2 * time.Second, "$ one\nred\n$\n"},
		{"from and until", 2 * time.Second, 6 * time.Second, "$ two\n"},
		{"behind the end", time.Minute, 0, ""},
		{"until before from", 6 * time.Second, 2 * time.Second, ""},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		if err := writeText(&out, strings.NewReader(evil), tt.from, tt.to); err != nil || out.String() != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, out.String(), err, tt.want)
		}
	}
}

func TestParseOffset(t *testing.T) {
	for in, want := range map[string]time.Duration{"": 0, "90s": 90 * time.Second, "2m": 2 * time.Minute, "1:30": 90 * time.Second, "1:00:01": time.Hour + time.Second, "45": 45 * time.Second} {
		if got, err := parseOffset("--at", in); err != nil || got != want {
			t.Errorf("parseOffset(%q): got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "-5s", "1:-2", "99999999999999", "1:99", "1:60:00", "1:5", "1:00:00:00", ":30"} {
		if _, err := parseOffset("--at", in); err == nil {
			t.Errorf("parseOffset(%q): no error", in)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		in   string
		want time.Time
	}{
		{"2h", now.Add(-2 * time.Hour)},
		{"3d", now.AddDate(0, 0, -3)},
		{"2026-11-20T09:00:00Z", now.Add(-3 * time.Hour)},
	}
	for _, tt := range tests {
		if got, err := parseTime(tt.in, now); err != nil || !got.Equal(tt.want) {
			t.Errorf("parseTime(%q): got %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
	var status *statusError
	if _, err := parseTime("-2h", now); !errors.As(err, &status) || status.status != statusUsage {
		t.Errorf("parseTime(-2h): got %v, want a usage error", err)
	}
}

func TestShellLine(t *testing.T) {
	tests := []struct {
		words []string
		want  string
	}{
		{[]string{"dmesg | tail"}, "dmesg | tail"},
		{[]string{"echo", "a  b"}, "echo 'a  b'"},
		{[]string{"echo", "it's", ""}, `echo 'it'\''s' ''`},
		{[]string{"rm", "$(reboot)", "`x`", ";", "a\nb"}, "rm '$(reboot)' '`x`' ';' 'a\nb'"},
		{[]string{"ls", "-l", "/var/log/x.log"}, "ls -l /var/log/x.log"},
	}
	for _, tt := range tests {
		if got := shellLine(tt.words); got != tt.want {
			t.Errorf("shellLine(%q): got %q, want %q", tt.words, got, tt.want)
		}
	}
}

// What an agent puts around its reasons is not shown to people.
func TestWords(t *testing.T) {
	tests := []struct{ output, want string }{
		{"terminated by bob", "terminated by bob"},
		{"\n----------ERROR-------\nno such shell", "no such shell"},
		{"Setting up failed\r\n\r\n----------ERROR-------\r\nno such shell\r\n", "Setting up failed\nno such shell"},
		{"a line of ---------- is let alone", "a line of ---------- is let alone"},
	}
	for _, tt := range tests {
		if got := words(tt.output); got != tt.want {
			t.Errorf("words(%q): got %q, want %q", tt.output, got, tt.want)
		}
	}
}

// Every policy is shown once for each resource that decided, and a refusal once.
func TestExplanation(t *testing.T) {
	statement := func(source, sid string, n int) client.ExplainedStatement {
		return client.ExplainedStatement{Source: source, Kind: "identity-based policy", Sid: sid, Statement: n, Effect: "Allow",
			Checks: []client.ExplainedCheck{{Element: "Resource", Policy: []string{"x"}, Request: []string{"y"}}}}
	}
	denied := client.ExplainedResource{Resource: "node", Decision: "ImplicitlyDenied", Message: "no",
		Statements: []client.ExplainedStatement{statement("a", "One", 1), statement("b", "Two", 1), statement("a", "Three", 2)}}
	same, let := denied, client.ExplainedResource{Resource: "document", Decision: "Allowed", Sources: []string{"a"}}
	same.Resource = "other"
	got := explanation(&client.ExplainAccessOutput{Principal: "p", Action: "ssm:StartSession", NodeID: "i-1", Decision: "ImplicitlyDenied", Message: "no",
		Resources: []client.ExplainedResource{denied, let, same}})
	const want = `p may not ssm:StartSession on i-1 (ImplicitlyDenied)
  no

node: ImplicitlyDenied
  a (identity-based policy)
    statement 1 "One" (Allow) does not apply
      Resource: the policy says "x", the request has "y"
    statement 2 "Three" (Allow) does not apply
      Resource: the policy says "x", the request has "y"
  b (identity-based policy)
    statement 1 "Two" (Allow) does not apply
      Resource: the policy says "x", the request has "y"

document: Allowed

other: ImplicitlyDenied
  every policy says the same as above
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhyArguments(t *testing.T) {
	tests := []struct{ args, want string }{
		{"sallyport:QueryAudit", " sallyport:QueryAudit "},
		{"QueryAudit", " sallyport:QueryAudit "},
		{"connect backend-1", " ssm:StartSession backend-1"},
		{"alice QueryAudit", "alice sallyport:QueryAudit "},
		{"alice connect backend-1", "alice ssm:StartSession backend-1"},
		{"alice startsession backend-1", "alice ssm:startsession backend-1"},
		{"StartSesion backend-1", `"StartSesion" is no action; did you mean StartSession?`},
		{"alice ssm:StartSesion backend-1", `"ssm:StartSesion" is no action; did you mean ssm:StartSession?`},
		{"alice s3:GetObject backend-1", "alice s3:GetObject backend-1"}, // not ours to know
	}
	for _, tt := range tests {
		principal, action, node, err := whyArguments(strings.Fields(tt.args))
		got := principal + " " + action + " " + node
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("why %s: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

// The hint behind a refusal is a command that works, and nothing a server's words could
// smuggle into a shell.
func TestWhyCommand(t *testing.T) {
	const refused = "User: arn:aws:iam::1:user/a is not authorized to perform: "
	tests := []struct{ message, want string }{
		{refused + "sallyport:QueryAudit on resource: * because", "sallyport why sallyport:QueryAudit"},
		{refused + "ssm:StartSession on resource: arn:aws:ec2:us-east-1:1:instance/i-05b7516a19f826be9 because", "sallyport why StartSession i-05b7516a19f826be9"},
		{refused + "ssm:TerminateSession on resource: arn:aws:ssm:us-east-1:1:session/a because", "sallyport why TerminateSession --resource arn:aws:ssm:us-east-1:1:session/a"},
		{refused + "ssm:TerminateSession on resource: arn:$(reboot) because", "sallyport why TerminateSession --resource 'arn:$(reboot)'"},
		{refused + "sallyport:ExplainAccess on resource: *", ""},
		{"no", ""},
	}
	for _, tt := range tests {
		if got := whyCommand(tt.message); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.message, got, tt.want)
		}
	}
}

func TestPicker(t *testing.T) {
	lines := []string{"alpha", "beta", "gamma"}
	tests := []struct {
		name  string
		typed []string
		want  int // -1 for nothing
	}{
		{"the first", []string{"\r"}, 0},
		{"down", []string{"\x1b[B", "\x1b[B", "\r"}, 2},
		{"not beyond the end", []string{"\x1b[B", "\x1b[B", "\x1b[B", "\x1b[A", "\r"}, 1},
		{"narrowed", []string{"g", "a", "\r"}, 2},
		{"narrowed and widened", []string{"z", "\x7f", "b", "\r"}, 1},
		{"no match, then left", []string{"z", "\r", "\x1b"}, -1},
		{"left", []string{"\x03"}, -1},
		{"pasted", []string{"bet\r"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &picker{title: "Which?", lines: lines, width: 80}
			l.narrow("")
			got, err := l.run(&typist{keys: tt.typed}, &bytes.Buffer{})
			if err != nil {
				got = -1
			}
			if got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// typist types one key at each read.
type typist struct{ keys []string }

func (k *typist) Read(p []byte) (int, error) {
	if len(k.keys) == 0 {
		return 0, errors.New("nothing more is typed")
	}
	n := copy(p, k.keys[0])
	k.keys = k.keys[1:]
	return n, nil
}

func TestBestMatches(t *testing.T) {
	nodes := []client.Node{
		{NodeID: "i-01", Name: "web"}, {NodeID: "i-02", Name: "web-2"}, {NodeID: "mi-03", Name: "other", Tags: map[string]string{"Name": "tagged"}},
	}
	tests := []struct{ term, want string }{
		{"web", "i-01"}, {"web-", "i-02"}, {"we", "i-01 i-02"}, {"i-02", "i-02"}, {"i-", "i-01 i-02"}, {"tagged", "mi-03"}, {"eb", ""},
	}
	for _, tt := range tests {
		var got []string
		for _, n := range bestMatches(nodes, tt.term) {
			got = append(got, n.NodeID)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, want %s", tt.term, got, tt.want)
		}
	}
}

func TestNamed(t *testing.T) {
	for name, want := range map[string]bool{
		"sallyport": true, "/usr/bin/sallyport": true, "session-manager-plugin": true,
		`C:\Program Files\session-manager-plugin.exe`: true, "sallyportd": false, "": false,
	} {
		if got := Named(name); got != want {
			t.Errorf("Named(%q): got %t, want %t", name, got, want)
		}
	}
}
