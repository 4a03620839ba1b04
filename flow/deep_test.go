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
