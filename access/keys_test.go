package access

import (
	"testing"
)

// The keys that name node and document hold for both resources of a session, so that one
// statement binds the two.
func TestStartKeys(t *testing.T) {
	node := Resource{ARN: "arn:aws:ssm:r:1:managed-instance/mi-1", Context: map[string][]string{KeyNodeName: {"db-1"}}}
	s := Start{Node: node, Document: Resource{ARN: "arn:aws:ssm:r::document/AWS-StartSSHSession"}, Named: true}
	for _, q := range s.queries(Query{Context: map[string][]string{"x": {"y"}}}) {
		if len(q.Resources) != 2 || q.Context[KeyDocumentName][0] != "AWS-StartSSHSession" || q.Context["x"][0] != "y" {
			t.Fatalf("got %+v", q)
		}
		for _, r := range q.Resources {
			if r.Context[KeyNodeID][0] != "mi-1" || r.Context[KeyNodeName][0] != "db-1" {
				t.Errorf("%s: got %v", r.ARN, r.Context)
			}
		}
	}
	if len(node.Context) != 1 {
		t.Errorf("the node given was changed: %v", node.Context)
	}
	s.Named, s.Document.ARN = false, "arn:aws:ssm:r:1:document/SSM-SessionManagerRunShell"
	for _, q := range s.queries(Query{}) {
		if q.Context[KeyDocumentName][0] != "SSM-SessionManagerRunShell" {
			t.Errorf("an unnamed document: got %v", q.Context)
		}
	}
}
