package shell

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"sallyport.dev/internal/needs"
)

// bash marks its commands and their status where that is asked for, and shows the same as
// without.
func TestShellIntegration(t *testing.T) {
	bash := needs.Program(t, "bash")
	shown := map[bool]string{}
	for _, on := range []bool{false, true} {
		p, err := Options{Program: bash, Integration: on}.Login(self(t), Size{Cols: 80, Rows: 24})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, err := p.Write([]byte("bind 'set enable-bracketed-paste off'; PS1='> '\necho one; (exit 3)\necho status $?\nexit\n")); err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(readerFunc(p.Read))
		if err != nil {
			t.Fatal(err)
		}
		shown[on] = string(out)
	}
	if strings.Contains(shown[false], "]133;") {
		t.Errorf("marks without being asked for: %q", shown[false])
	}
	for _, want := range []string{"\x1b]133;A\a> \x1b]133;B\a", "\x1b]133;C\aone\r\n\x1b]133;D;3\a", "\x1b]133;C\astatus 3\r\n\x1b]133;D;0\a"} {
		if !strings.Contains(shown[true], want) {
			t.Errorf("%q is missing in %q", want, shown[true])
		}
	}
	if run := (Options{Integration: true}).marked(program{path: filepath.Join("/", "bin", "zsh")}); run.env != nil {
		t.Errorf("another shell is given %q", run.env)
	}
}
