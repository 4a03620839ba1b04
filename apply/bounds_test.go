package apply_test

import (
	"strings"
	"testing"

	"sallyport.dev/apply"
)

// Files come from whoever may have a plan made of them, a CI job for strangers' proposals
// say: none of them may take the server's stack or memory.
func TestBombs(t *testing.T) {
	document := func(expression string) string { return "policy \"x\" {\n  document = " + expression + "\n}\n" }
	for name, bomb := range map[string]struct{ text, want string }{
		"lists":       {document(strings.Repeat("[", 3000)), "too deep"},
		"operators":   {document(strings.Repeat("!", 3000) + "true"), "too deep"},
		"after a lot": {"x = 1 " + strings.Repeat("]", 3000) + "\ny = " + strings.Repeat("[", 3000), "too deep"},
		"loops":       {document(`[for a in ["xxxxxxxx"] : [for b in ["${a}${a}${a}${a}"] : "${b}${b}${b}${b}"]]`), "No loops"},
		"template":    {document(`"%{ for a in ["x"] }${a}%{ endfor }"`), "No loops"},
		"encoding":    {document(strings.Repeat("jsonencode(", 60) + `"\\"` + strings.Repeat(")", 60)), "more than"},
		"files":       {document(`"` + strings.Repeat(`${file("large.json")}`, 2000) + `"`), "more than"},
	} {
		_, err := apply.Parse(map[string][]byte{
			"a.sallyport.hcl": []byte(bomb.text), "large.json": []byte(strings.Repeat("y", 256<<10)),
		})
		if err == nil || !strings.Contains(err.Error(), bomb.want) {
			t.Errorf("%s: got error %v, want %q", name, err, bomb.want)
		}
	}
}
