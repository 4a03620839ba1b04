package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func openSSHCommand(p *program, name string) *cobra.Command {
	root := p.newRoot()
	cmd, _, err := root.Find([]string{name})
	if err != nil {
		panic(err)
	}
	return cmd
}

// Two dashes are sallyport's, one dash is ssh's, and behind the node everything is.
func TestParseOpenSSH(t *testing.T) {
	for typed, want := range map[string]string{
		"node":                                   " | node",
		"node uptime -p":                         " | node uptime -p",
		"-p 2222 node":                           "-p 2222 | node",
		"-p2222 node":                            "-p2222 | node",
		"-Nf -L 1:b:2 node":                      "-Nf -L 1:b:2 | node",
		"-NL 1:b:2 node":                         "-NL 1:b:2 | node",
		"-l deploy node rsync --server -e.x . /": "-l deploy | node rsync --server -e.x . /",
		"--profile alice -v node --profile bob":  "-v | node --profile bob",
		"--profile=alice node":                   " | node",
		"--sshd node":                            " | node",
		"-- -oProxyCommand=x":                    " | -oProxyCommand=x",
		"-o StrictHostKeyChecking=no a@node":     "-o StrictHostKeyChecking=no | a@node",
	} {
		p := &program{getenv: func(string) string { return "" }}
		line, err := parseOpenSSH(openSSHCommand(p, "ssh"), sshValued, strings.Fields(typed))
		if err != nil {
			t.Errorf("%s: %v", typed, err)
			continue
		}
		if got := strings.Join(line.options, " ") + " | " + strings.Join(line.rest, " "); got != want {
			t.Errorf("%s: got %q, want %q", typed, got, want)
		}
		if want := strings.Contains(typed, "alice"); (p.flags.profile == "alice") != want {
			t.Errorf("%s: got profile %q", typed, p.flags.profile)
		}
		if want := strings.Contains(typed, "--sshd"); line.sshd != want {
			t.Errorf("%s: got sshd %v", typed, line.sshd)
		}
	}
	for _, typed := range []string{"", "-v", "--", "--no-such node", "--profile"} {
		p := &program{getenv: func(string) string { return "" }}
		if line, err := parseOpenSSH(openSSHCommand(p, "ssh"), sshValued, strings.Fields(typed)); err == nil {
			t.Errorf("%q: got %+v, want an error", typed, line)
		}
	}
}

func TestCutRemote(t *testing.T) {
	for operand, want := range map[string]string{
		"node:/tmp/x": "node /tmp/x", "a@node:": "a@node ", "./node:x": "", "/a:b": "", "file": "", ":x": "", "node:a:b": "node a:b",
	} {
		got := ""
		if node, path, remote := cutRemote(operand); remote {
			got = node + " " + path
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", operand, got, want)
		}
	}
}

// What a person types of a user, and what a server says of a node, must not become an
// option or a command of ssh's.
func TestSSHDestinationRefuses(t *testing.T) {
	p, _ := newTestProgram(t)
	for _, text := range []string{"-oProxyCommand=x@" + someNode, "a b@" + someNode, "a\x1b@" + someNode, "$(id)@" + someNode, "`id`@" + someNode, "a;b@" + someNode} {
		if to, err := p.sshDestination(t.Context(), sshdWay{}, text, ""); err == nil {
			t.Errorf("%q: got %q, want an error", text, to)
		}
	}
	to, err := p.sshDestination(t.Context(), sshdWay{}, "deploy@"+someNode, "")
	if err != nil || to != "deploy@"+someNode {
		t.Errorf("got %q, %v", to, err)
	}
}

func TestProxyCommandQuotes(t *testing.T) {
	p := &program{getenv: func(string) string { return "" }}
	p.flags.profile = "it's 100%; rm -rf /"
	got, err := p.ownCommand("proxy", "%h", "%p")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(got, `--profile='it'\''s 100%%; rm -rf /' proxy %h %p`) {
		t.Errorf("got %s", got)
	}
}

func TestSSHWayOptions(t *testing.T) {
	way := sshdWay{"sallyport proxy %h %p"}
	if got, err := way.options(); err != nil || !slices.Equal(got, []string{"-o", "ProxyCommand=sallyport proxy %h %p"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if got := way.destination("", client.Node{NodeID: someNode}); got != someNode {
		t.Errorf("got %q", got)
	}
}

func TestDoorWay(t *testing.T) {
	way := doorWay{&sshConfigLines{files: sshFiles{"/home/a b/%d"}, host: "gw.example.com", port: "2222", user: "alice"}}
	node := client.Node{NodeID: someNode}
	if got := way.destination("", node); got != "alice@"+someNode+"@gw.example.com" {
		t.Errorf("got %q", got)
	}
	if got := way.destination("deploy", node); got != "alice+deploy@"+someNode+"@gw.example.com" {
		t.Errorf("got %q", got)
	}
	got, err := way.options()
	if text := strings.Join(got, " "); err != nil || !strings.Contains(text, `IdentityFile="/home/a b/%%d/id_ed25519"`) || !strings.Contains(text, "Port=2222") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCopyOperand(t *testing.T) {
	for destination, want := range map[string]string{
		someNode:                                 someNode + ":/tmp/x:y",
		"alice@" + someNode + "@gw.example.com":  "alice@" + someNode + "@gw.example.com:/tmp/x:y",
		"alice@" + someNode + "@2001:db8::1":     "alice@" + someNode + "@[2001:db8::1]:/tmp/x:y",
		"alice+web@" + someNode + "@203.0.113.5": "alice+web@" + someNode + "@203.0.113.5:/tmp/x:y",
	} {
		if got := copyOperand(destination, "/tmp/x:y"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
