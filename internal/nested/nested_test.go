package nested_test

import (
	"strings"
	"testing"

	"sallyport.dev/internal/nested"
)

func TestCheck(t *testing.T) {
	for name, text := range map[string]string{
		"lists":                   "x = " + strings.Repeat("[", 200),
		"parentheses":             "x = " + strings.Repeat("(", 200),
		"operators":               "x = " + strings.Repeat("!", 200) + "true",
		"conditions":              "x = " + strings.Repeat("a ? b : ", 200) + "c",
		"templates":               "x = " + strings.Repeat(`"${`, 200),
		"after what closes a lot": "x = 1 " + strings.Repeat("]", 1000) + "\ny = " + strings.Repeat("[", 200),
	} {
		if err := nested.Check("a.hcl", []byte(text)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	plain := strings.Repeat("x = [{ a = \"${b}\" }]\n", 500) + "y = -1\n"
	if err := nested.Check("a.hcl", []byte(plain)); err != nil {
		t.Error(err)
	}
}
