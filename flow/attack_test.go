package flow_test

import (
	"strings"
	"testing"

	"sallyport.dev/flow"
)

// Brackets that close nothing are no room for others: the parser goes on after mistakes.
func TestDeepAfterMistakes(t *testing.T) {
	text := "x = 1 " + strings.Repeat("]", 3000) + "\ny = " + strings.Repeat("[", 3000) + "\n"
	_, err := flow.Parse(map[string][]byte{"a.sallyport.hcl": []byte(text)})
	if err == nil || !strings.Contains(err.Error(), "too deep") {
		t.Errorf("got error %v", err)
	}
}

// A login that commands do not keep to is not what it looks like.
func TestLintOfLoginAndCommands(t *testing.T) {
	set, err := flow.Parse(map[string][]byte{"a.sallyport.hcl": []byte(`
flow "a" {
  ask { groups = ["web"] }
  target "nodes" "web" {
    names    = ["web-*"]
    login    = "ops"
    commands = true
  }
  stage "team" {
    of { groups = ["web"] }
  }
}
`)})
	if err != nil {
		t.Fatal(err)
	}
	warnings := flow.Lint(set)
	if len(warnings) != 1 || !strings.Contains(warnings[0].Text, "commands run as the agent's own user") {
		t.Errorf("got %+v", warnings)
	}
}
