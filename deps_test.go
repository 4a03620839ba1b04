package sallyport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
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
	{"cmd/sallyport-agent", "sallyport.dev/session", "server and agent meet in wire, never in each other's code"},
	{"cmd/sallyport-agent", "sallyport.dev/frontdoor", "nodes are reached through the gateway; they serve no SSH"},
	{"cmd/sallyport-agent", "sallyport.dev/identity", "the server decides who may do what"},
	{"cmd/sallyport-agent", "sallyport.dev/policy", "the server decides who may do what"},
	{"cmd/sallyport-agent", "sallyport.dev/client", "the agent runs on every machine and must stay small"},
	{"cmd/sallyport-agent", "github.com/prometheus", "the agent runs on every machine and must stay small"},
	{"cmd/sallyport-agent", "github.com/aws", "the agent runs on every machine and must stay small"},
	{"cmd/sallyport", "modernc.org/sqlite", "the client asks the server, never the database"},
	{"cmd/sallyport", "github.com/jackc/pgx", "the client asks the server, never the database"},
	{"cmd/sallyport", "github.com/nats-io", "the client asks the server, never the bus"},
	{"cmd/sallyport", "sallyport.dev/server", "the client knows the wire, not the server's code"},
	{"cmd/sallyport", "sallyport.dev/agent", "the client knows the wire, not the agent's code"},
	{"cmd/sallyport", "sallyport.dev/session", "the client knows the wire, not the server's code"},
	{"cmd/sallyport", "sallyport.dev/frontdoor", "the client's SSH is OpenSSH's"},
	{"cmd/sallyport", "sallyport.dev/identity", "the server decides who is who"},
	{"cmd/sallyport", "github.com/pkg/sftp", "the client's file transfer is OpenSSH's"},
	{"cmd/sallyport", "github.com/prometheus", "the client serves no figures"},
	{"cmd/sallyport", "sallyport.dev/internal/needs", "only tests need it"},
	{"cmd/sallyport-agent", "sallyport.dev/internal/needs", "only tests need it"},
	{"cmd/sallyportd", "sallyport.dev/internal/needs", "only tests need it"},
	{"cmd/sallyport", "sallyport.dev/internal/readalong", "only tests need it"},
	{"cmd/sallyport-agent", "sallyport.dev/internal/readalong", "only tests need it"},
	{"cmd/sallyportd", "sallyport.dev/internal/readalong", "only tests need it"},
	{"cmd/sallyport-agent", "go.opentelemetry.io", "the agent runs on every machine and must stay small; its log names the trace"},
	{"cmd/sallyport", "go.opentelemetry.io", "the server traces what it is asked"},
	{"agent", "sallyport.dev/server", "server and agent meet in wire, never in each other's code"},
	{"server", "sallyport.dev/agent", "server and agent meet in wire, never in each other's code"},
	{"server", "sallyport.dev/client", "the server must not depend on one of its clients"},
	{"client", "sallyport.dev/server", "the client knows the wire, not the server's code"},
	{"server", "sallyport.dev/store", "the API names the storage it needs; member puts it in"},
	{"session", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"session", "sallyport.dev/cluster", "domain packages declare the routing they need; cluster satisfies it"},
	{"session", "sallyport.dev/server", "sessions know nothing of the API"},
	{"command", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"command", "sallyport.dev/cluster", "domain packages declare the routing they need; cluster satisfies it"},
	{"command", "sallyport.dev/server", "commands know nothing of the API"},
	{"command", "sallyport.dev/session", "commands declare how jobs are sent; session does it"},
	{"frontdoor", "sallyport.dev/store", "the front door asks the API's server, as any client"},
	{"frontdoor", "sallyport.dev/cluster", "the front door's sessions find their way by session"},
	{"frontdoor", "sallyport.dev/agent", "server and agent meet in wire, never in each other's code"},
	{"access", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"approval", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"approval", "sallyport.dev/server", "documents are read and decided by without the API"},
	{"approval", "net/http", "documents decide by what is here; they ask nobody"},
	{"oncall", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"oncall", "sallyport.dev/server", "sources are asked without the API"},
	{"signin", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"signin", "sallyport.dev/server", "sign-ins know nothing of the API"},
	{"cmd/sallyport", "sallyport.dev/signin", "the client knows the endpoints, not the server's code"},
	{"cmd/sallyportd", "github.com/chromedp", "only tests drive browsers"},
	{"factor", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"factor", "sallyport.dev/server", "passwords and factors know nothing of the API"},
	{"factor", "sallyport.dev/signin", "factors are shown at sign-in and in STS; they know of neither"},
	{"signin/local", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"signin/local", "sallyport.dev/server", "pages know nothing of the API"},
	{"ssoportal", "sallyport.dev/store", "the portal asks sign-ins and the API's server"},
	{"ssoportal", "sallyport.dev/server", "the portal declares how roles are given; the API's server does it"},
	{"cmd/sallyport", "sallyport.dev/factor", "the server keeps factors"},
	{"grant", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"grant", "sallyport.dev/server", "requests know nothing of the API"},
	{"grant", "sallyport.dev/access", "access asks grants, and not the other way round"},
	{"identity", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"audit", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"node", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"wire", "sallyport.dev/", "wire is a pure codec at the bottom"},
	{"wire", "net/http", "wire is a pure codec; it opens no socket"},
	{"flow", "sallyport.dev/identity", "the client reads and tests flows; it must not know who is who"},
	{"flow", "sallyport.dev/grant", "flows say what is decided; grant carries it out"},
	{"policy", "sallyport.dev/", "policy decides from its arguments alone"},
	{"policy", "net/http", "policy decides from its arguments alone"},
	{"policy", "os", "policy does no I/O"},
	{"document", "sallyport.dev/", "document reads and fills documents, from its arguments alone"},
	{"document", "net/http", "document does no network I/O"},
	{"archive", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"archive", "sallyport.dev/server", "recordings are kept whoever asks for them"},
	{"archive", "github.com/aws", "the archive is given an open bucket; archive/bucket opens it"},
	{"archive/custody", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"archive/custody", "sallyport.dev/server", "recordings are kept and deleted without the API"},
	{"archive/custody", "github.com/aws", "custody is given an open bucket and a keyring"},
	{"cmd/sallyport", "sallyport.dev/archive", "the client asks the server, never the store"},
	{"cmd/sallyport-agent", "sallyport.dev/archive", "the gateway records, not the node"},
	{"recording", "net/http", "recording does no network I/O"},
	{"recording", "sallyport.dev/", "recordings are read and written without a server"},
	{"playback", "net/http", "recordings are shown without a server"},
	{"playback", "sallyport.dev/session", "recordings are shown without a server"},
	{"server", "sallyport.dev/playback", "what people see of recordings is made where they are"},
	{"transcript", "net/http", "transcripts are made of events alone"},
	{"transcript", "sallyport.dev/store", "transcripts are made of events alone"},
	{"transcript", "os", "transcript does no I/O"},
	{"index", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"index", "sallyport.dev/server", "what is indexed knows nothing of the API"},
	{"cmd/sallyport", "sallyport.dev/index", "the client asks the server, which searches"},
	{"cmd/sallyport-agent", "sallyport.dev/index", "the server indexes what it records"},
	{"internal/bulk", "sallyport.dev/", "client, agent and server share it: it knows none of them"},
	{"internal/mux", "sallyport.dev/", "client and agent share it: it knows neither"},
	{"agent/shell", "sallyport.dev/", "programs are run the same whoever asks"},
	{"transfer", "sallyport.dev/", "transfer reads bytes and tells what they mean"},
	{"notify", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"notify", "sallyport.dev/server", "notifications hang off the events; they know nothing of the API"},
	{"cmd/sallyport", "github.com/slack-go", "the client asks the server, never Slack"},
	{"cmd/sallyport-agent", "sallyport.dev/flow", "the server decides who may do what"},
	{"cmd/sallyport", "sallyport.dev/access", "the server decides who may do what"},
	{"cmd/sallyport", "sallyport.dev/approval", "the server decides on requests"},
	{"cmd/sallyport", "sallyport.dev/grant", "the server decides on requests"},
	{"cmd/sallyport", "sallyport.dev/notify", "the server tells people"},
	{"cmd/sallyport", "sallyport.dev/oncall", "the server asks who is on duty"},
	{"cmd/sallyport", "sallyport.dev/provision", "the server gives what is in AWS"},
	{"cmd/sallyport", "sallyport.dev/document", "of apply the client has the reading of folders alone (apply/files)"},
	{"access", "sallyport.dev/grant", "access declares how grants are asked about; grant satisfies it"},
	{"grant", "sallyport.dev/approval", "grant declares Rules; approval satisfies it"},
	{"grant", "sallyport.dev/notify", "notifications hang off the events and never hold a request up"},
	{"grant", "sallyport.dev/oncall", "grant declares OnCall; oncall satisfies it"},
	{"grant", "sallyport.dev/provision", "grant declares Giver; provision satisfies it"},
	{"grant", "github.com/aws", "grant declares Giver; provision satisfies it"},
	{"provision", "sallyport.dev/grant", "targets are given and taken whoever decided it"},
	{"provision", "sallyport.dev/store", "what was given is kept with the request"},
	{"provision", "sallyport.dev/server", "targets are given and taken without the API"},
	{"server", "sallyport.dev/provision", "grant gives and takes; member puts it together"},
	{"server", "sallyport.dev/oncall", "grant asks who is on duty; member puts it together"},
	{"server", "sallyport.dev/member", "member puts servers together, and not the other way round"},
	{"apply", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"apply", "sallyport.dev/server", "plans are made and drafts rehearsed without the API"},
	{"apply", "sallyport.dev/grant", "flows are files to apply; grant reads them"},
	{"apply/files", "sallyport.dev/", "client and server share it: it knows neither"},
	{"evidence", "sallyport.dev/identity", "files are verified offline, without the server's code"},
	{"evidence", "sallyport.dev/grant", "files are verified offline, without the server's code"},
	{"evidence", "net/http", "files are verified offline"},
	{"agent/keyscan", "sallyport.dev/", "keyscan reads files and tells what they let in"},
	{"session", "sallyport.dev/frontdoor", "sessions know nothing of SSH"},
	{"server", "sallyport.dev/frontdoor", "the API knows nothing of SSH connections"},
	{"kms", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"kms", "sallyport.dev/server", "keys know nothing of the API"},
	{"kms", "sallyport.dev/access", "who may use a key is decided by who asks"},
	{"session", "sallyport.dev/kms", "sessions declare where data keys come from; member puts it in"},
	{"awslog", "sallyport.dev/store", "domain packages declare the storage they need; store satisfies it"},
	{"awslog", "sallyport.dev/server", "sessions are written without the API"},
	{"awslog", "sallyport.dev/session", "sessions are written from their recordings"},
	{"session", "sallyport.dev/awslog", "sessions carry where they are written, for who records them"},
	{"cmd/sallyportd", "sallyport.dev/internal/awstest", "only tests need it"},
	{"cmd/sallyport", "sallyport.dev/kms", "the client asks the server for keys"},
	{"cmd/sallyport-agent", "sallyport.dev/kms", "the agent asks the server for keys"},
	{"internal/datakey", "sallyport.dev/", "client, agent and gateway share it: it knows none of them"},
}

// leaves import nothing of ours and do no I/O: what is banned from importing all of ours may
// import them.
var leaves = []string{"sallyport.dev/internal/escape"}

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
			if slices.Contains(leaves, dep) {
				continue
			}
			if dep == b.imports || strings.HasPrefix(dep, strings.TrimSuffix(b.imports, "/")+"/") {
				t.Errorf("%s depends on %s: %s", from, dep, b.reason)
			}
		}
	}
}

// A leaf imports nothing of ours, nor what opens files or sockets.
func TestLeaves(t *testing.T) {
	all := packages(t)
	for _, leaf := range leaves {
		p, ok := all[leaf]
		if !ok {
			t.Errorf("leaves name %s, which does not exist", leaf)
		}
		for _, dep := range p.Imports {
			if strings.HasPrefix(dep, "sallyport.dev/") || dep == "os" || strings.HasPrefix(dep, "net") {
				t.Errorf("%s imports %s: it is a leaf", leaf, dep)
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
