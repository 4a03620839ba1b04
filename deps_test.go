package sallyport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// A ban says that packages under From must not depend on Import, and why.
type ban struct {
	from, imports, reason string
}

var bans = []ban{
	{"cmd/sallyport-agent", "modernc.org/sqlite", "the agent runs on every machine and must stay small"},
	{"cmd/sallyport-agent", "github.com/jackc/pgx", "the agent runs on every machine and must stay small"},
	{"cmd/sallyport-agent", "github.com/nats-io", "the agent speaks to the server over one websocket only"},
	{"cmd/sallyport-agent", "sallyport.dev/server", "server and agent meet in wire, never in each other's code"},
	{"cmd/sallyport-agent", "sallyport.dev/store", "the agent keeps no database"},
	{"cmd/sallyport", "modernc.org/sqlite", "the client asks the server, never the database"},
	{"cmd/sallyport", "github.com/jackc/pgx", "the client asks the server, never the database"},
	{"cmd/sallyport", "github.com/nats-io", "the client asks the server, never the bus"},
	{"cmd/sallyport", "sallyport.dev/server", "the client knows the wire, not the server's code"},
	{"cmd/sallyport", "sallyport.dev/agent", "the client knows the wire, not the agent's code"},
	{"agent", "sallyport.dev/server", "server and agent meet in wire, never in each other's code"},
	{"server", "sallyport.dev/agent", "server and agent meet in wire, never in each other's code"},
	{"server", "sallyport.dev/client", "the server must not depend on one of its clients"},
	{"client", "sallyport.dev/server", "the client knows the wire, not the server's code"},
	{"session", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"session", "sallyport.dev/cluster", "domain packages declare the routing they need; cluster satisfies it"},
	{"session", "sallyport.dev/server", "sessions know nothing of the API"},
	{"command", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"command", "sallyport.dev/cluster", "domain packages declare the routing they need; cluster satisfies it"},
	{"command", "sallyport.dev/server", "commands know nothing of the API"},
	{"access", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"identity", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"audit", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"node", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"wire", "sallyport.dev/", "wire is a pure codec at the bottom"},
	{"wire", "net/http", "wire is a pure codec; it opens no socket"},
	{"policy", "sallyport.dev/", "policy decides from its arguments alone"},
	{"policy", "net/http", "policy decides from its arguments alone"},
	{"policy", "os", "policy does no I/O"},
	{"document", "net/http", "document does no network I/O"},
	{"recording", "net/http", "recording does no network I/O"},
	{"transfer", "sallyport.dev/", "transfer reads bytes and tells what they mean"},
	{"session", "sallyport.dev/frontdoor", "sessions know nothing of SSH"},
	{"server", "sallyport.dev/frontdoor", "the API knows nothing of SSH connections"},
}

type listed struct {
	ImportPath string
	Doc        string
	Deps       []string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) map[string]listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Doc,Deps,Imports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatalf("listing packages: %v", err)
	}
	all := map[string]listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// The house has floors: imports go downwards only (docs/architecture.md).
func TestDependencies(t *testing.T) {
	all := packages(t)
	for _, b := range bans {
		from := "sallyport.dev/" + b.from
		p, ok := all[from]
		if !ok {
			t.Errorf("ban names %s, which does not exist", from)
			continue
		}
		// What the standard library pulls in by itself is not our import.
		paths := p.Deps
		if !strings.Contains(b.imports, ".") {
			paths = p.Imports
		}
		for _, dep := range paths {
			if dep == b.imports || strings.HasPrefix(dep, strings.TrimSuffix(b.imports, "/")+"/") {
				t.Errorf("%s depends on %s: %s", from, dep, b.reason)
			}
		}
	}
}

// Every package says what it is for.
func TestPackageDocs(t *testing.T) {
	for path, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", path)
		}
	}
}
