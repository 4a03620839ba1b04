package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseForward(t *testing.T) {
	tests := map[string]forwardSpec{
		"80":                      {network: "tcp", bind: "127.0.0.1", local: "80", port: "80"},
		"8080:80":                 {network: "tcp", bind: "127.0.0.1", local: "8080", port: "80"},
		"db:5432":                 {network: "tcp", bind: "127.0.0.1", local: "5432", host: "db", port: "5432"},
		"localhost:5432":          {network: "tcp", bind: "127.0.0.1", local: "5432", port: "5432"},
		"0:db.internal:5432":      {network: "tcp", bind: "127.0.0.1", local: "0", host: "db.internal", port: "5432"},
		"127.0.0.2:1:db:2":        {network: "tcp", bind: "127.0.0.2", local: "1", host: "db", port: "2"},
		"localhost:1:2":           {network: "tcp", bind: "127.0.0.1", local: "1", port: "2"},
		"*:1:db:2":                {network: "tcp", bind: "", local: "1", host: "db", port: "2"},
		"[::1]:1:[2001:db8::1]:2": {network: "tcp", bind: "::1", local: "1", host: "2001:db8::1", port: "2"},
		"[2001:db8::1]:2":         {network: "tcp", bind: "127.0.0.1", local: "2", host: "2001:db8::1", port: "2"},
		"/run/me/db.sock:db:5432": {network: "unix", local: "/run/me/db.sock", host: "db", port: "5432"},
		"./db.sock:5432":          {network: "unix", local: "./db.sock", port: "5432"},
		"2375:/run/docker.sock":   {network: "tcp", bind: "127.0.0.1", local: "2375", socket: "/run/docker.sock"},
		"./d.sock:/run/d.sock":    {network: "unix", local: "./d.sock", socket: "/run/d.sock"},
		"127.0.0.1:1:/run/d.sock": {network: "tcp", bind: "127.0.0.1", local: "1", socket: "/run/d.sock"},
	}
	for text, want := range tests {
		got, err := parseForward(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(forwardSpec{})); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", text, diff)
		}
	}
}

func TestParseForwardRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "port",
		":":                                    "port",
		"db":                                   `: port "db"`,
		"65536":                                `: port "65536"`,
		"::1:80":                               "brackets",
		"db:0":                                 `port "0"`,
		"db:65536":                             `port "65536"`,
		"99999:db:1":                           `local port "99999"`,
		"1:2:3:4:5":                            "want PORT",
		"example.com:1:db:2":                   "address to listen on",
		"db:x:1":                               "want PORT",
		"[::1:80":                              "bracket",
		"[db]:80":                              "want PORT",
		"[::1]80":                              "want PORT",
		"-oProxyCommand=x:80":                  "host",
		"a b:80":                               "host",
		"db\x1b[2J:80":                         "host",
		"/run/docker.sock":                     "want PORT",
		"db:/run/docker.sock":                  "a socket of the node",
		"1:db:/run/docker.sock":                "a socket of the node",
		"1:/run/../etc/d.sock":                 "plain absolute path",
		"1:/run/\x1b.sock":                     "plain absolute path",
		"/" + strings.Repeat("x", 200) + ":80": "path of a socket",
	} {
		if _, err := parseForward(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error about %q", text, err, want)
		}
	}
}

// Loopback is the only address that other machines cannot reach.
func TestExposedForwards(t *testing.T) {
	for text, want := range map[string]bool{
		"80": false, "127.0.0.9:1:db:2": false, "[::1]:1:db:2": false, "/run/x.sock:80": false,
		"*:1:db:2": true, "0.0.0.0:1:db:2": true, "[::]:1:db:2": true, "192.0.2.1:1:db:2": true,
	} {
		s, err := parseForward(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.exposed(); got != want {
			t.Errorf("%s: got exposed %v, want %v", text, got, want)
		}
	}
}

func TestParseSOCKS(t *testing.T) {
	for text, want := range map[string]string{
		"1080": "127.0.0.1:1080", "0": "127.0.0.1:0", "[::1]:1080": "[::1]:1080", "*:1080": ":1080", "localhost:1": "127.0.0.1:1",
	} {
		s, err := parseSOCKS(text)
		if err != nil || s.address() != want {
			t.Errorf("%s: got %s, %v, want %s", text, s.address(), err, want)
		}
	}
	for _, text := range []string{"", "x", "1:2:3", "example.com:1080", "70000", "/run/x.sock"} {
		if s, err := parseSOCKS(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, s)
		}
	}
}

func FuzzParseForward(f *testing.F) {
	for _, s := range []string{"80", "[::1]:1:db:2", "/x:80", "1:/run/x", "*:0:[::]:1", "]["} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseForward(text)
		if err != nil {
			return
		}
		if s.socket == "" && (s.port == "" || s.host != "" && !remoteHost.MatchString(s.host)) {
			t.Errorf("%q: got %+v", text, s)
		}
		if s.network == "unix" != isPath(s.local) {
			t.Errorf("%q: got %+v", text, s)
		}
	})
}
