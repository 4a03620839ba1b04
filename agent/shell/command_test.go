package shell

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		`echo hi`:                   {"echo", "hi"},
		"  a\t b\n c ":              {"a", "b", "c"},
		`sh -c 'echo "$x"; exit 7'`: {"sh", "-c", `echo "$x"; exit 7`},
		`a "b c" d\ e`:              {"a", "b c", "d e"},
		`"a\"b\\c\d"`:               {`a"b\c\d`},
		`'a'"b"c`:                   {"abc"},
		`a '' ""`:                   {"a", "", ""},
		"a\\\nb":                    {"ab"},
		"$(x) `y` *":                {"$(x)", "`y`", "*"}, // nothing is expanded
	} {
		got, err := split(line)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", line, err, diff)
		}
	}
	for _, line := range []string{"", "  ", `"a`, `'a`, `a\`} {
		if got, err := split(line); err == nil {
			t.Errorf("%q: got %q, want an error", line, got)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(`sh -c 'echo "$x"' a\ b`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := split(line)
		if err == nil && len(words) == 0 || len(strings.Join(words, "")) > len(line) {
			t.Errorf("got %q, %v", words, err)
		}
	})
}

func FuzzParsePasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash")
	f.Fuzz(func(t *testing.T, line string) {
		if u, ok := parsePasswd(line); ok && (u.Name == "" || u.Home == "" || u.Shell == "") {
			t.Errorf("got %+v", u)
		}
	})
}

func TestCommand(t *testing.T) {
	u := User{Name: "tester", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: t.TempDir(), Shell: "/bin/sh"}
	p, err := Options{}.Command(u, `sh -c 'echo out; echo err >&2; cat; test -t 0 || exit 4'`, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, _ := io.ReadAll(readFrom(p.Read))
	errs, _ := io.ReadAll(readFrom(p.ReadError))
	<-p.Exited()
	if string(out) != "out\n" || string(errs) != "err\n" || p.Status() != 4 {
		t.Errorf("got %q, %q, status %d, want out, err, 4", out, errs, p.Status())
	}
	if p, err := (Options{}).Command(u, "no-such-program x", false); err == nil {
		p.Close()
		t.Error("starting a program that does not exist succeeded")
	}
}

type readFrom func([]byte) (int, error)

func (f readFrom) Read(b []byte) (int, error) { return f(b) }
