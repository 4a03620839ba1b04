package flow

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// The worked examples do what their cases say. "sallyport flow test examples/flows" says
// the same.
func TestExamples(t *testing.T) {
	folder := filepath.Join("..", "examples", "flows")
	files := map[string][]byte{}
	for _, pattern := range []string{"*" + FileSuffix, "*" + CodeSuffix} {
		for _, name := range matching(t, folder, pattern) {
			files[filepath.Base(name)] = read(t, name)
		}
	}
	set, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Flows) != 5 {
		t.Errorf("got %d flows, want 5", len(set.Flows))
	}
	for _, w := range Lint(set) {
		t.Errorf("warning: flow %s: %s", w.Flow, w.Text)
	}
	for _, name := range matching(t, folder, "*"+TestSuffix) {
		cases, err := ParseCases(filepath.Base(name), read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range cases.Run(context.Background(), set) {
			t.Run(r.File+"/"+r.Name, func(t *testing.T) {
				for _, f := range r.Failures {
					t.Errorf("%s:%d: %s: got %s, want %s", r.File, f.Line, f.What, f.Got, f.Want)
				}
			})
		}
	}
}

func matching(t *testing.T, folder, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("got no files %s: %v", pattern, err)
	}
	return names
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
