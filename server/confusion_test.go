package server

import (
	"testing"

	"sallyport.dev/identity"
)

// A document's ARN is authorised as the document that is looked up: one that a policy
// allows because of another region or account in it does not open the deployment's
// own document of that name.
func TestDocumentARNs(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, identity.Tags{"Team": "payments"})
	admin := r.user("admin", nil, allowAll)
	for _, name := range []string{"Deep-Shell", "Open-Shell"} {
		got := r.json(admin, "AmazonSSM.CreateDocument", map[string]any{
			"Name": name, "DocumentType": "Session", "DocumentFormat": "JSON",
			"Content": `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":false}}`,
		})
		if got.status != 200 {
			t.Fatalf("CreateDocument: %d %s", got.status, got.body)
		}
	}
	// Everything but the deep shell, and documents of AWS but not its port forwarding.
	dave := r.user("dave", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:*","Resource":"*"},
		{"Effect":"Allow","Action":"sallyport:ExplainAccess","Resource":"*"},
		{"Effect":"Deny","Action":"ssm:StartSession","Resource":[
			"arn:aws:ssm:us-east-1:111111111111:document/Deep-Shell",
			"arn:aws:ssm:us-east-1::document/AWS-StartPortForwardingSession"]}]}`)
	const denied, invalid, open = "AccessDeniedException", "InvalidDocument", "TargetNotConnected"
	for document, want := range map[string]string{
		"Deep-Shell": denied,
		"arn:aws:ssm:us-east-1:111111111111:document/Deep-Shell":                     denied,
		"arn:aws:ssm:eu-west-1:111111111111:document/Deep-Shell":                     invalid,
		"arn:aws:ssm:us-east-1:222222222222:document/Deep-Shell":                     invalid,
		"arn:aws:ssm:us-east-1::document/Deep-Shell":                                 invalid,
		"arn:aws:ssm:::document/Deep-Shell":                                          invalid,
		"arn:aws-cn:ssm:us-east-1:111111111111:document/Deep-Shell":                  invalid,
		"arn:aws:ssm:us-east-1:111111111111:document/":                               invalid,
		"arn:aws:ssm:us-east-1:111111111111:document/x:document/Deep-Shell":          invalid,
		"arn:aws:s3:us-east-1:111111111111:document/Deep-Shell":                      invalid,
		"arn:x:document/Deep-Shell":                                                  invalid,
		"arn:aws:ssm:us-east-1::document/AWS-StartPortForwardingSession":             denied,
		"arn:aws:ssm:us-east-1:111111111111:document/AWS-StartPortForwardingSession": invalid,
		"arn:aws:ssm:eu-west-1::document/AWS-StartPortForwardingSession":             invalid,
		"arn:aws:ssm:us-east-1::document/AWS-StartInteractiveCommand":                open,
		"arn:aws:ssm:us-east-1:111111111111:document/Open-Shell":                     open,
	} {
		in := map[string]any{"Target": channelNode, "DocumentName": document}
		if document == "arn:aws:ssm:us-east-1::document/AWS-StartInteractiveCommand" {
			in["Parameters"] = map[string][]string{"command": {"id"}}
		}
		if got := r.json(dave, "AmazonSSM.StartSession", in); got.code() != want {
			t.Errorf("StartSession with %s: got %s %q, want %s", document, got.code(), got.message(), want)
		}
		why := r.json(dave, "Sallyport.ExplainAccess", explainAccessInput{Action: "ssm:StartSession", NodeID: channelNode, Document: document})
		switch {
		case want == invalid && why.code() != invalid:
			t.Errorf("ExplainAccess with %s: got %s %s, want %s", document, why.code(), why.body, invalid)
		case want != invalid:
			decision := map[string]string{denied: "ExplicitlyDenied", open: "Allowed"}[want]
			if out := decodeInto[explainAccessOutput](t, why); out.Decision != decision {
				t.Errorf("ExplainAccess with %s: got %s, want %s", document, out.Decision, decision)
			}
		}
		if got := r.json(admin, "AmazonSSM.GetDocument", map[string]any{"Name": document}); want == invalid && got.code() != invalid {
			t.Errorf("GetDocument %s: got %s %s, want %s", document, got.code(), got.body, invalid)
		}
	}
}
