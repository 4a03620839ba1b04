package flow

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/flows.md shows can be read.
func TestDocs(t *testing.T) {
	text := string(read(t, filepath.Join("..", "docs", "flows.md")))
	blocks := regexp.MustCompile("(?s)```(hcl|cedar|python)\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) < 8 {
		t.Fatalf("got %d examples, want more", len(blocks))
	}
	for _, b := range blocks {
		if err := readExample(b[1], b[2]); err != nil {
			t.Errorf("%v in\n%s", err, b[2])
		}
	}
}

func readExample(language, text string) error {
	var err error
	first := strings.Fields(text)[0]
	switch {
	case language == "cedar":
		_, err = parseCedar(text)
	case language == "python":
		_, err = codeOf(text).compile()
	case first == "test":
		_, err = ParseCases("a.flowtest.hcl", []byte("person \"ann\" {}\n"+text))
	case first == "person":
		_, err = ParseCases("a.flowtest.hcl", []byte(text))
	case first == "now":
		_, err = ParseCases("a.flowtest.hcl", []byte(text+"test \"x\" {\n expect {}\n}"))
	case first == "break_glass":
		_, err = Parse(asFiles(map[string]string{"a.sallyport.hcl": "flow \"x\" {\n ask { users = [\"u\"] }\n target \"role\" \"r\" { role = \"R\" }\n" + text + "}"}))
	default:
		_, err = Parse(asFiles(map[string]string{"a.sallyport.hcl": text}))
	}
	return err
}
