package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"sallyport.dev/client"
)

// A node that a person may only forward through is not hidden among those closed to them.
func TestNodesByWhatOneMayStart(t *testing.T) {
	yes, no := true, false
	nodes := []client.Node{
		{NodeID: "mi-closed", MayConnect: &no},
		{NodeID: "mi-forwards", MayConnect: &no, MayStart: true},
		{NodeID: "mi-aws"},
		{NodeID: "mi-open", MayConnect: &yes, MayStart: true},
	}
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs}
	if err := p.printNodes(slices.SortedFunc(slices.Values(nodes), compareNodes), false); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); f[0] != "NAME" {
			got = append(got, f[1]+" "+f[2])
		}
	}
	if want := []string{"mi-aws ?", "mi-open yes", "mi-forwards other"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := "1 more that you may not connect to"; !strings.Contains(errs.String(), want) {
		t.Errorf("got %q, want %q", errs.String(), want)
	}
}
