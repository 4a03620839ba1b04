package approval_test

import (
	"os"
	"strings"
	"testing"

	"sallyport.dev/approval"
	"sallyport.dev/document"
)

// The guide's documents are documents.
func TestGuide(t *testing.T) {
	for file, as := range map[string][2]string{
		"FrontEnd.json":  {"FrontEnd", document.TypeManualApproval},
		"Databases.yaml": {"Databases", document.TypeManualApproval},
		"auto.cedar":     {document.AutoApproval, document.TypeAutoApproval},
		"deny.cedar":     {document.DenyAccess, document.TypeAutoApproval},
	} {
		text, err := os.ReadFile("../docs/approval/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := approval.Parse(as[0], as[1], string(text)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	page, err := os.ReadFile("../docs/approval-documents.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range fenced(string(page), "yaml") {
		if _, err := approval.Parse("Databases", document.TypeManualApproval, block); err != nil {
			t.Errorf("in the page: %v\n%s", err, block)
		}
	}
	for _, block := range fenced(string(page), "") {
		if err := approval.CheckCedar(document.AutoApproval, block); err != nil {
			t.Errorf("in the page: %v\n%s", err, block)
		}
	}
}

// fenced returns the blocks of a page that are marked so.
func fenced(page, mark string) (blocks []string) {
	for i, part := range strings.Split("\n"+page, "\n```") {
		if i%2 == 0 {
			continue
		}
		if lang, text, _ := strings.Cut(part, "\n"); lang == mark {
			blocks = append(blocks, text)
		}
	}
	return blocks
}
