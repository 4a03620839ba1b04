package frontdoor_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/internal/needs"
	"sallyport.dev/sallyporttest"
)

func TestOpenSSHCommands(t *testing.T) {
	w := newWorld(t)
	w.person("alice", sallyporttest.Everything)
	cfg := w.config("alice", "SendEnv LC_TEST SECRET_TEST LD_TEST")

	t.Run("exit status", func(t *testing.T) {
		r := w.ssh(cfg, "frontend-1@gateway", "echo out; echo err >&2; exit 7")
		if diff := cmp.Diff(result{"out\n", "err\n", 7}, r, cmp.AllowUnexported(result{})); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("names the person", func(t *testing.T) { w.want(w.ssh(cfg, "alice@frontend-1@gateway", "echo hi"), "hi\n") })
	t.Run("node by id", func(t *testing.T) { w.want(w.ssh(cfg, frontend+"@gateway", "echo hi"), "hi\n") })
	t.Run("node by the beginning of its name", func(t *testing.T) { w.want(w.ssh(cfg, "back@gateway", "echo hi"), "hi\n") })
	t.Run("signal", func(t *testing.T) {
		if r := w.ssh(cfg, "frontend-1@gateway", "kill -TERM $$"); r.status != 255 {
			t.Errorf("got %+v, want status 255", r)
		}
	})
	t.Run("command lines arrive as they are", func(t *testing.T) {
		w.want(w.ssh(cfg, "frontend-1@gateway", "printf '%s|' '{{.Names}}' '$(id)' '\"q\"' 'ü' \"a  b\"\necho second"), "{{.Names}}|$(id)|\"q\"|ü|a  b|second\n")
		w.want(w.ssh(cfg, "frontend-1@gateway", "echo long # "+strings.Repeat("x", 60_000)), "long\n")
		if r := w.ssh(cfg, "frontend-1@gateway", "echo long # "+strings.Repeat("x", 70_000)); r.status != 254 || !strings.Contains(r.stderr, "65535 are allowed") {
			t.Errorf("got status %d, %q", r.status, r.stderr)
		}
	})
	t.Run("standard input", func(t *testing.T) {
		big := strings.Repeat("0123456789abcdef", 300_000)
		r := w.run(strings.NewReader(big), "ssh", "-F", cfg, "frontend-1@gateway", "sha256sum")
		w.want(r, sum(big)+"  -\n")
	})
	t.Run("a reader that leaves", func(t *testing.T) {
		r := w.run(nil, "sh", "-c", "ssh -F "+cfg+" frontend-1@gateway yes | head -1")
		w.want(r, "y\n")
	})
	t.Run("shell from a pipe", func(t *testing.T) {
		r := w.run(strings.NewReader("echo one\nexit 3\n"), "ssh", "-F", cfg, "-T", "frontend-1@gateway")
		if r.stdout != "one\n" || r.status != 3 {
			t.Errorf("got %+v, want one and status 3", r)
		}
	})
	t.Run("a command such as VS Code's", func(t *testing.T) {
		r := w.run(strings.NewReader("uname\nexit 0\n"), "ssh", "-F", cfg, "-T", "-D", freePort(t), "frontend-1@gateway", "bash")
		w.want(r, "Linux\n")
	})
	t.Run("terminal", func(t *testing.T) {
		r := w.ssh(cfg, "-tt", "frontend-1@gateway", "test -t 0 && echo $TERM; exit 4")
		if r.stdout != "xterm\r\n" || r.status != 4 {
			t.Errorf("got %+v, want xterm and status 4", r)
		}
	})
	t.Run("environment by the list", func(t *testing.T) {
		w.want(w.ssh(cfg, "frontend-1@gateway", "echo $LC_TEST,$SECRET_TEST,$LD_TEST"), "from-client,,\n")
	})
	t.Run("through the gateway", func(t *testing.T) {
		w.want(w.ssh(cfg, "-l", "_", "frontend-1."+suffix, "echo hi"), "hi\n")
		w.want(w.ssh(cfg, "-l", "alice", "frontend-1."+suffix, "echo hi"), "hi\n")
	})
	w.settled()
	for _, s := range w.sessions() {
		if !strings.HasPrefix(s.EndReason, "exit") || s.ExitStatus == nil || s.Recording == "" {
			t.Errorf("session %s of %s: ended by %q, status %v, recording %q", s.ID, s.Document, s.EndReason, s.ExitStatus, s.Recording)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func sum(s string) string {
	d := sha256.Sum256([]byte(s))
	return hex.EncodeToString(d[:])
}

// randomFile writes a file whose contents do not compress and returns them.
func randomFile(t *testing.T, path string, size int) string {
	t.Helper()
	b := make([]byte, size)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(b)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOpenSSHFiles(t *testing.T) {
	w := newWorld(t)
	w.person("alice", sallyporttest.Everything)
	cfg := w.config("alice")
	from, far := t.TempDir(), t.TempDir()
	const size = 3<<20 + 17
	data := randomFile(t, filepath.Join(from, "big"), size)
	same := func(t *testing.T, path string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, []byte(data)) {
			t.Errorf("%s: %d bytes, %v; want %d", path, len(b), err, size)
		}
	}
	for _, c := range []struct {
		name string
		args []string
		file string
	}{
		{"scp there", []string{"scp", "-F", cfg, from + "/big", "frontend-1@gateway:" + far + "/a"}, far + "/a"},
		{"scp back", []string{"scp", "-F", cfg, "frontend-1@gateway:" + far + "/a", from + "/a"}, from + "/a"},
		{"scp -O there", []string{"scp", "-O", "-F", cfg, from + "/big", "frontend-1@gateway:" + far + "/b"}, far + "/b"},
		{"scp -O back", []string{"scp", "-O", "-F", cfg, "frontend-1@gateway:" + far + "/a", from + "/b"}, from + "/b"},
		{"rsync there", []string{"rsync", "-a", "-e", "ssh -F " + cfg, from + "/big", "frontend-1@gateway:" + far + "/c"}, far + "/c"},
		{"rsync back", []string{"rsync", "-a", "-e", "ssh -F " + cfg, "frontend-1@gateway:" + far + "/a", from + "/c"}, from + "/c"},
		{"sftp there", []string{"sftp", "-F", cfg, "-b", "-", "frontend-1@gateway"}, far + "/d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs.Program(t, c.args[0])
			r := w.run(strings.NewReader("put "+from+"/big "+far+"/d\n"), c.args[0], c.args[1:]...)
			if r.status != 0 {
				t.Fatalf("got %+v", r)
			}
			same(t, c.file)
		})
	}
	w.settled()
	type file struct{ op, path, bytes, sha string }
	var got []file
	for _, r := range w.records(audit.EventTransfer) {
		if r.Action == "upload" || r.Action == "download" {
			got = append(got, file{r.Action, r.Details["path"], r.Details["bytes"], r.Details["sha256"]})
		}
	}
	want := []file{
		{"upload", far + "/a", "3145745", sum(data)},
		{"download", far + "/a", "3145745", sum(data)},
		{"upload", "big", "3145745", sum(data)},
		{"download", "a", "3145745", sum(data)},
		{"upload", far + "/d", "3145745", sum(data)},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(file{})); diff != "" {
		t.Error(diff)
	}
}

// Many channels share one connection.
func TestOpenSSHControlMaster(t *testing.T) {
	w := newWorld(t)
	w.person("alice", sallyporttest.Everything)
	cfg := w.config("alice", "ControlPath "+w.file("cm-%C"), "ControlMaster auto", "ControlPersist 30")
	for range 5 {
		began := time.Now()
		w.want(w.ssh(cfg, "frontend-1@gateway", "echo hi"), "hi\n")
		t.Logf("%v", time.Since(began))
	}
	if r := w.ssh(cfg, "-O", "exit", "frontend-1@gateway"); r.status != 0 {
		t.Errorf("leaving: %+v", r)
	}
	w.settled()
}
