package member

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
)

const folderFlow = `
flow "NAME" {
  ask { everyone = true }
  target "role" "r" { role = "R" }
  stage "s" {
    of { groups = ["g"] }
  }
  clocks { default = "30m" }
}`

func folderConfig(t *testing.T) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		Account: "111111111111", Region: "us-east-1", Member: "m", DataDir: t.TempDir(), ListenPlain: "127.0.0.1:0",
		Access: &Access{FlowsDir: dir}, Logger: slog.New(slog.DiscardHandler),
	}
	return c, dir
}

func writeFlow(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "a.sallyport.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A folder of flows is in force from the start, and follows what changes in it; files
// that are wrong leave the ones before in force.
func TestFlowsDir(t *testing.T) {
	c, dir := folderConfig(t)
	writeFlow(t, dir, strings.ReplaceAll(folderFlow, "NAME", "one"))
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	m, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(t.Context())
	has := func(name string) bool {
		set, err := m.Access().Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return set.Flows[name] != nil
	}
	if !has("one") {
		t.Fatal("the flow of the folder is not in force")
	}
	writeFlow(t, dir, `flow "broken" {`)
	time.Sleep(flowsEvery + flowsEvery/2)
	if !has("one") {
		t.Error("a broken file takes the flows out of force")
	}
	writeFlow(t, dir, strings.ReplaceAll(folderFlow, "NAME", "two"))
	for end := time.Now().Add(time.Minute); !has("two"); {
		if time.Now().After(end) {
			t.Fatal("a changed file was not read")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if has("one") {
		t.Error("a flow that is gone is still in force")
	}
}

// A folder that is wrong at start keeps the server from starting, and names the place.
func TestFlowsDirBroken(t *testing.T) {
	c, dir := folderConfig(t)
	writeFlow(t, dir, "\nflow \"x\" {\n  nonsense = 1\n}")
	err := c.Check()
	if err == nil || !strings.Contains(err.Error(), "access.flows_dir: ") || !strings.Contains(err.Error(), "a.sallyport.hcl:3: ") {
		t.Errorf("got %v", err)
	}
	c.Access.FlowsDir = filepath.Join(dir, "none")
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "access.flows_dir:") {
		t.Errorf("got %v", err)
	}
}

// Files that are in force already are read, but neither checked nor put in force again.
func TestFlowsDirUnchanged(t *testing.T) {
	_, dir := folderConfig(t)
	const text = `flow "broken" {`
	writeFlow(t, dir, text)
	last := flow.Digest(map[string][]byte{"a.sallyport.hcl": []byte(text)})
	if got, err := loadFlows(t.Context(), nil, dir, last); err != nil || got != last {
		t.Errorf("got %s, %v, want %s", got, err, last)
	}
}
