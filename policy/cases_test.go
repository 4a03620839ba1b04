package policy

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"
)

// testCase is a line of testdata/cases.jsonl.
type testCase struct {
	ID       int `json:"id"`
	Policies []struct {
		Name   string          `json:"name"`
		Policy json.RawMessage `json:"policy"`
	} `json:"policies"`
	Request Request `json:"request"`
	Expect  string  `json:"expect"`
}

func readCases(tb testing.TB) []testCase {
	tb.Helper()
	f, err := os.Open("testdata/cases.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var cases []testCase
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var c testCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			tb.Fatalf("line %d: %v", len(cases)+1, err)
		}
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return cases
}

func (c *testCase) sources(tb testing.TB) []Source {
	tb.Helper()
	var sources []Source
	for _, p := range c.Policies {
		doc, err := Parse(p.Policy)
		if err != nil {
			tb.Fatalf("case %d, policy %s: %v", c.ID, p.Name, err)
		}
		sources = append(sources, Source{Kind: Identity, Name: p.Name, Document: doc})
	}
	return sources
}

func TestCases(t *testing.T) {
	cases := readCases(t)
	if len(cases) != 400 {
		t.Fatalf("got %d cases, want 400", len(cases))
	}
	for _, c := range cases {
		sources := c.sources(t)
		if got := NewSet(sources).Evaluate(&c.Request).Effect.String(); got != c.Expect {
			t.Errorf("case %d: Evaluate: got %s, want %s", c.ID, got, c.Expect)
		}
		if got := newSet(sources, 0).Evaluate(&c.Request).Effect.String(); got != c.Expect {
			t.Errorf("case %d: Evaluate with index: got %s, want %s", c.ID, got, c.Expect)
		}
		if got := Explain(sources, &c.Request).Effect.String(); got != c.Expect {
			t.Errorf("case %d: Explain: got %s, want %s", c.ID, got, c.Expect)
		}
	}
}
