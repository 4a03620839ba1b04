//go:build linux

package sallyporttest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"sallyport.dev/cli"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/sallyporttest"
)

// asPlugin makes this test's program do what "aws ssm start-session" does with our
// program as its plugin: its arguments are the node, the document and the port.
const asPlugin = "SALLYPORT_TEST_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) != "" {
		os.Exit(startAsPlugin(os.Args[1], os.Args[2], os.Args[3]))
	}
	if os.Getenv(asCLI) != "" {
		os.Exit(cli.Main(append([]string{"sallyport"}, os.Args[1:]...)))
	}
	os.Exit(m.Run())
}

func startAsPlugin(node, document, port string) int {
	ctx, endpoint := context.Background(), os.Getenv("AWS_ENDPOINT_URL")
	api, err := client.Connect(ctx, client.Options{Region: sallyporttest.Region, Endpoint: endpoint, UserAgent: "test"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	stream, err := api.StartSession(ctx, &ssm.StartSessionInput{
		Target: aws.String(node), DocumentName: aws.String(document), Parameters: map[string][]string{"portNumber": {port}},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	response, err := json.Marshal(stream)
	if err != nil {
		panic(err)
	}
	const variable = "AWS_SSM_START_SESSION_RESPONSE"
	os.Setenv(variable, string(response))
	return cli.Main([]string{"session-manager-plugin", variable, sallyporttest.Region, "StartSession", "", fmt.Sprintf(`{"Target":%q}`, node), endpoint})
}

func pluginCommand(s *sallyporttest.System, key sallyporttest.Key, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(s.Env(key), asPlugin+"=1")
	return cmd
}

// What the plugin says about a forward is what AWS's says; Ctrl-C ends it with status 0.
func TestPluginForward(t *testing.T) {
	s, key := forwardSystem(t)
	cmd := pluginCommand(s, key, forwardNode, toPort, target(t, echo))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer limit.Stop()
	var said strings.Builder
	lines := bufio.NewScanner(stdout)
	until := func(text string) {
		for lines.Scan() {
			fmt.Fprintln(&said, lines.Text())
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
	}
	until("Waiting for connections")
	_, rest, _ := strings.Cut(said.String(), "\nPort ")
	port, rest, _ := strings.Cut(rest, " opened for sessionId ")
	id, _, _ := strings.Cut(rest, ".")
	for i := range 2 {
		if err := exchange(dialLocal(t, net.JoinHostPort("localhost", port)), i, 100_000); err != nil {
			t.Error(err)
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	until("no such text")
	if err := cmd.Wait(); err != nil {
		t.Errorf("plugin: %v", err)
	}
	want := fmt.Sprintf("\nStarting session with SessionId: %[1]s\nPort %[2]s opened for sessionId %[1]s.\nWaiting for connections...\n\n"+
		"Connection accepted for session [%[1]s]\nTerminate signal received, exiting.\n\n\nExiting session with sessionId: %[1]s.\n\n", id, port)
	if got := said.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The one connection of an SSH session has standard input and output for itself, byte
// for byte, and both ends.
func TestPluginSingle(t *testing.T) {
	s, key := forwardSystem(t)
	sent := append([]byte("\n"), random(3, 2_000_000)...)
	port := target(t, func(c *net.TCPConn) {
		got, err := io.ReadAll(c) // to the end of the input
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("target: got %d bytes, %v, want %d", len(got), err, len(sent))
		}
		c.Write(got)
	})
	cmd := pluginCommand(s, key, forwardNode, toSSH, port)
	cmd.Stdin = bytes.NewReader(sent)
	cmd.Stderr = os.Stderr
	got, err := cmd.Output()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("standard output: got %d bytes, %v, want %d", len(got), err, len(sent))
	}
	cmd = pluginCommand(s, key, forwardNode, toSSH, strconv.Itoa(freePort(t)))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	got, _ = cmd.Output()
	if len(got) > 0 || !strings.Contains(stderr.String(), "connection refused") {
		t.Errorf("closed port: got %q on standard output and %q on standard error", got, stderr.String())
	}
}

// ssh and scp through a ProxyCommand, with the node's own sshd.
func TestPluginSSH(t *testing.T) {
	d := newSSHD(t)
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	s.Node(forwardNode, identity.Tags{"Name": "frontend-1"})
	d.write("authorized_keys", d.keygen("me")+"\n", 0o600)
	d.start("AuthorizedKeysFile "+d.path("authorized_keys"), "Subsystem sftp internal-sftp")
	ssh := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(needs.Program(t, program), append([]string{
			"-F", "none", "-i", d.path("me"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "User=" + d.user,
			"-o", fmt.Sprintf("ProxyCommand=%s %%h %s %d", os.Args[0], toSSH, d.port),
		}, args...)...)
		cmd.Env = append(s.Env(key), asPlugin+"=1")
		return cmd
	}
	out, err := ssh("ssh", forwardNode, "echo out; echo err >&2; exit 7").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || string(out) != "out\nerr\n" {
		t.Errorf("ssh: got %q, %v, want status 7", out, err)
	}
	want := random(5, 10_000_000)
	for _, way := range [][2]string{{d.path("up"), forwardNode + ":" + d.path("there")}, {forwardNode + ":" + d.path("there"), d.path("back")}} {
		if _, err := os.Stat(d.path("up")); err != nil {
			d.write("up", string(want), 0o600)
		}
		if out, err := ssh("scp", "-q", way[0], way[1]).CombinedOutput(); err != nil {
			t.Fatalf("scp %v: %v\n%s", way, err, out)
		}
	}
	got, err := os.ReadFile(filepath.Join(d.dir, "back"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("copied there and back: got %d bytes, %v, want %d", len(got), err, len(want))
	}
}
