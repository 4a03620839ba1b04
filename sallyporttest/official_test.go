//go:build linux

package sallyporttest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/creack/pty"

	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/sallyporttest"
)

// AWS's own programs are no part of this repository. These variables name builds of
// them; amazon-ssm-agent's other programs lie beside it.
const (
	pluginVariable = "SALLYPORT_AWS_PLUGIN"
	agentVariable  = "SALLYPORT_AWS_AGENT"
)

func official(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("%s names no program", variable)
	}
	return path
}

const (
	officialNode = "i-060ee0879f3ec4eb7"
	typed        = "echo sum-is-$((6*7)); stty size\nexit\n"
)

func TestOfficialPluginWithOurAgent(t *testing.T) {
	plugin := official(t, pluginVariable)
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	s.Node(officialNode, nil)
	wantSum(t, officialShell(t, s, key, plugin), "24 80")
}

func TestOfficialAgent(t *testing.T) {
	agent := official(t, agentVariable)
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	startOfficialAgent(t, s, agent)
	t.Run("with our client", func(t *testing.T) {
		wantSum(t, s.Shell(key, officialNode, typed), "")
	})
	t.Run("with the official plugin", func(t *testing.T) {
		wantSum(t, officialShell(t, s, key, official(t, pluginVariable)), "24 80")
	})
	// AWS's agent knows no input of commands: ours is not to ask for it in vain.
	t.Run("a command that would have input", func(t *testing.T) {
		api := s.API(key)
		stream, err := api.Start(t.Context(), client.StartInput{
			Target: officialNode, Document: inputDocument, Input: true,
			Parameters: map[string][]string{"command": {"sh -c 'cat; echo out; exit 7'"}, "separateOutputStream": {"true"}},
		})
		if err != nil || stream.Input {
			t.Fatalf("got %+v, %v, want a session without input", stream, err)
		}
		var out bytes.Buffer
		end, err := client.RunShell(t.Context(), client.ChannelConfig{Stream: stream, Dial: client.Dialer(api.TLS(), "sallyporttest")},
			client.ShellConfig{Terminal: &client.Terminal{Stdout: &out, Stderr: io.Discard}})
		if err != nil || end.ExitStatus == nil || *end.ExitStatus != 7 || out.String() != "out\n" {
			t.Errorf("got %+v, %v, output %q, want out and status 7", end, err, out.String())
		}
	})
	// The preferences have run-as off: what the node is told has it on.
	t.Run("as a login of the caller's choice", func(t *testing.T) {
		if shown := s.ShellAs(key, officialNode, "daemon", "echo iam-$(id -un)\nexit\n"); !strings.Contains(shown, "iam-daemon") {
			t.Errorf("the session showed %q, want that it is daemon's", shown)
		}
	})
	// Root takes policy here, and AWS's agent refuses it whatever policy says.
	t.Run("as root", func(t *testing.T) {
		if shown := s.ShellAs(key, officialNode, "root", "echo iam-$(id -un)\nexit\n"); strings.Contains(shown, "iam-root") {
			t.Errorf("the session showed %q, want no session of root's", shown)
		}
	})
}

func wantSum(t *testing.T, screen, size string) {
	t.Helper()
	if !strings.Contains(screen, "sum-is-42") || !strings.Contains(screen, size) {
		t.Errorf("the session showed %q, want a sum and %q", screen, size)
	}
}

// officialShell runs the plugin in a terminal of 80 columns and 24 rows as the aws
// command does, types what is to be typed, and returns what the terminal showed.
func officialShell(t *testing.T, s *sallyporttest.System, key sallyporttest.Key, plugin string) string {
	t.Helper()
	input := &ssm.StartSessionInput{Target: aws.String(officialNode)}
	stream, err := s.API(key).StartSession(t.Context(), input)
	if err != nil {
		t.Fatal(err)
	}
	session, err := json.Marshal(map[string]string{
		"SessionId": stream.SessionID, "StreamUrl": stream.URL, "TokenValue": stream.Token,
	})
	if err != nil {
		t.Fatal(err)
	}
	target := fmt.Sprintf(`{"Target":%q}`, officialNode)
	cmd := exec.CommandContext(t.Context(), plugin, string(session), sallyporttest.Region, "StartSession", "", target, s.PlainURL())
	cmd.Env = s.Env(key)
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	shown := typeAtPrompt(t, terminal, typed)
	if err := cmd.Wait(); err != nil {
		t.Errorf("plugin: %v", err)
	}
	return shown
}

// typeAtPrompt types into a terminal when a shell's prompt has appeared, and returns
// what it showed until its program ended.
func typeAtPrompt(t *testing.T, terminal *os.File, text string) string {
	t.Helper()
	var shown bytes.Buffer
	limit := time.AfterFunc(time.Minute, func() { terminal.Close() })
	defer limit.Stop()
	for buffer := make([]byte, 4096); ; {
		n, err := terminal.Read(buffer)
		shown.Write(buffer[:n])
		if text != "" && (bytes.HasSuffix(shown.Bytes(), []byte("$ ")) || bytes.HasSuffix(shown.Bytes(), []byte("# "))) {
			if _, err := io.WriteString(terminal, text); err != nil {
				t.Fatal(err)
			}
			text = ""
		}
		// This is how a pseudo terminal says that its program has gone.
		if errors.Is(err, syscall.EIO) {
			return shown.String()
		}
		if err != nil {
			t.Fatalf("reading the terminal: %v; it showed %q", err, shown.String())
		}
	}
}

// startOfficialAgent registers AWS's agent as a node and runs it until the test ends.
func startOfficialAgent(t *testing.T, s *sallyporttest.System, agent string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("AWS's agent runs as root only")
	}
	state := t.TempDir()
	url := map[string]string{"Endpoint": s.TLSURL()}
	config, err := json.Marshal(map[string]any{
		"Mds": url, "Ssm": url, "Mgs": url, "Kms": url,
		"Agent":    map[string]string{"Region": sallyporttest.Region},
		"Identity": map[string]any{"ConsumptionOrder": []string{"OnPrem"}},
		"Profile":  map[string]bool{"ShareCreds": false},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "amazon-ssm-agent.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	isolated := func(args ...string) *exec.Cmd {
		cmd := exec.Command("testdata/isolated.sh", append([]string{state, filepath.Dir(agent), "amazon-ssm-agent"}, args...)...)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+s.CAFile())
		return cmd
	}
	id, code, err := s.CreateActivation(t.Context(), "official", identity.Tags{"Name": "official"}, []string{officialNode})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := isolated("-register", "-code", code, "-id", id, "-region", sallyporttest.Region, "-y").CombinedOutput(); err != nil {
		t.Fatalf("registering: %v\n%s", err, out)
	}
	run := isolated()
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		run.Process.Kill() // unshare, and with it all that it isolates
		run.Wait()
	})
	s.Eventually(func() bool { return s.Connected(t.Context(), officialNode) }, "AWS's agent connects")
}
