package index

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/transcript"
)

// What a regular expression needs, as the index is asked about it.
func TestClauses(t *testing.T) {
	tests := map[string]string{
		`nginx`:                       `[["NGINX"]]`,
		`(?i)nginx`:                   `[["NGINX"]]`,
		`systemctl +restart`:          `[["SYSTEMCTL"],["RESTART"]]`,
		`kubectl (get|delete) pod`:    `[["KUBECTL "],["DELETE","GET"],[" POD"]]`,
		`^rm -(rf|fr) /`:              `[["RM -"]]`,
		`(foo|foobar)baz`:             `[["FOO"],["BAZ"]]`,
		`(abc|x)`:                     `null`,
		`abc|def`:                     `[["ABC","DEF"]]`,
		`(abc)+(def)*(ghi)?(jkl){2,}`: `[["ABC"],["JKL"],["JKL"]]`,
		`a.b.c`:                       `null`,
		`\bword\b$`:                   `[["WORD"]]`,
		`.*`:                          `null`,
		`größe`:                       `[["GRÖßE"]]`,
		`[a-z]{3}`:                    `null`,
		`a(b)c`:                       `[["ABC"]]`,
		`ab`:                          `null`,
	}
	for expr, want := range tests {
		q, err := Regexp(expr)
		if err != nil {
			t.Fatal(err)
		}
		if len(q.Clauses()) == 0 {
			q.clauses = nil
		}
		if got, _ := json.Marshal(q.Clauses()); string(got) != want {
			t.Errorf("%s: got %s, want %s", expr, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	tests := []struct{ text, line, want string }{
		{"NGINX", "the nginx here", "nginx"},
		{"größe", "die GRÖßE ist", "GRÖßE"},
		{"k", "a \u212a b", "\u212a"}, // the Kelvin sign
		{"x", "日本語 x", "x"},
		{"nothing", "line", ""},
	}
	for _, tt := range tests {
		q, err := Text(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if at := q.Find(tt.line); at != nil {
			got = tt.line[at[0]:at[1]]
		}
		if got != tt.want {
			t.Errorf("%q in %q: got %q, want %q", tt.text, tt.line, got, tt.want)
		}
	}
}

func TestBlocks(t *testing.T) {
	var lines []transcript.Line
	for i := range 1000 {
		at := time.Duration(i%700) * 1234 * time.Millisecond // not always forward
		lines = append(lines, transcript.Line{At: at, Kind: []transcript.Kind{transcript.Shown, transcript.Typed, transcript.Note}[i%3], Text: strings.Repeat("é", 1+i%90)})
	}
	var got []transcript.Line
	for _, b := range Blocks(lines) {
		if len(b.Text) > blockText+transcript.MaxLine*utf8.UTFMax {
			t.Errorf("a block of %d bytes", len(b.Text))
		}
		more, err := b.lines()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, more...)
	}
	if diff := cmp.Diff(lines, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := (Block{Text: "a\nb", Times: []byte{'o', 2}}).lines(); err == nil {
		t.Error("a block without times for its lines: got no error")
	}
}

func TestLongLinesAreCutAroundTheMatch(t *testing.T) {
	line := strings.Repeat("ü", 1000) + "needle" + strings.Repeat("ö", 1000)
	q, _ := Text("Needle")
	at := q.Find(line)
	h := newHit(transcript.Line{Text: line}, at[0], at[1])
	if !h.Cut || h.Text[h.From:h.To] != "needle" || utf8.RuneCountInString(h.Text) != maxShown || !utf8.ValidString(h.Text) {
		t.Errorf("got %d characters, match %q", utf8.RuneCountInString(h.Text), h.Text[h.From:h.To])
	}
	all, _ := Regexp("ü.*ö")
	at = all.Find(line)
	if h = newHit(transcript.Line{Text: line}, at[0], at[1]); h.From != 0 || h.To != len(h.Text) {
		t.Errorf("a match longer than what is shown: got %d to %d of %d", h.From, h.To, len(h.Text))
	}
}

// FuzzRequired: what matches a regular expression holds what the index is asked for.
func FuzzRequired(f *testing.F) {
	for _, s := range [][2]string{{`a(bc|de)+f`, "abcf"}, {`(?i)straße|k+`, "STRAßE"}, {`(foo|foobar)baz{2}`, "foobarbazz"}, {`\x{212a}elvin`, "kelvin"}, {`(?i)ſtop`, "STOP"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, expr, line string) {
		q, err := Regexp(expr)
		if err != nil || !utf8.ValidString(line) || strings.ContainsAny(line, "\n\r") {
			return
		}
		if q.re.MatchString(line) && !q.clauses.hold(Fold(line)) {
			t.Errorf("%q matches %q, but the index is asked for %q", line, expr, q.clauses)
		}
		if len(q.clauses) > maxClauses {
			t.Errorf("%d clauses", len(q.clauses))
		}
	})
}
