package sallyporttest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport.dev/client"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

const dutyFlow = `
schedule "primary" {
  source   = "pagerduty"
  schedule = "PPRIMARY"
}
schedule "broken" {
  source   = "pagerduty"
  schedule = "PBROKEN"
}
flow "duty" {
  label = "Decided by who is on duty"
  ask { users = ["carol"] }
  target "nodes" "all" { names = ["*"] }
  stage "duty" {
    of { on_call = ["primary"] }
  }
  clocks { longest = "1h" }
}
flow "unsure" {
  label = "Decided by who is on duty, or by leads"
  ask { users = ["carol"] }
  target "nodes" "all" { names = ["*"] }
  stage "duty" {
    of {
      on_call = ["broken"]
      users   = ["lead"]
    }
  }
  clocks { longest = "1h" }
}
`

// Who is on duty by PagerDuty decides; where it cannot be asked, the others do, and see why.
func TestOnCallDecides(t *testing.T) {
	pagerDuty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("schedule_ids[]") == "PBROKEN" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"oncalls": []any{map[string]any{
			"user":     map[string]any{"id": "PXPGF42", "summary": "Bob", "email": "bob@example.com"},
			"schedule": map[string]any{"id": "PPRIMARY"}, "start": nil, "end": nil,
		}}})
	}))
	defer pagerDuty.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sallyporttest.Start(t, "one", sallyporttest.Options{Configure: func(c *member.Config) {
		c.OnCall = []member.OnCall{{Source: "pagerduty", TokenFile: token, URL: pagerDuty.URL}}
	}})
	carol, lead := s.User("carol", nil, ""), s.User("lead", nil, "")
	bob := s.User("bob", identity.Tags{"Email": "Bob@example.com"}, "")
	_, digest, err := s.Access().Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	admin := grant.Actor{Principal: identity.Principal{ARN: "arn:aws:iam::" + sallyporttest.Account + ":user/admin"}, Channel: "api"}
	if _, err := s.Access().PutFlows(t.Context(), admin, map[string][]byte{"duty.sallyport.hcl": []byte(dutyFlow)}, digest); err != nil {
		t.Fatal(err)
	}
	ask := func(flow string) *client.AccessRequest {
		t.Helper()
		r, err := s.API(carol).RequestAccess(t.Context(), client.RequestAccessInput{Flow: flow, Reason: "see", Seconds: 600})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	decide := func(k sallyporttest.Key, r *client.AccessRequest) error {
		_, err := s.API(k).ApproveRequest(t.Context(), client.DecideInput{RequestID: r.RequestID, Hash: r.Hash})
		return err
	}
	r := ask("duty")
	if err := decide(lead, r); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("somebody who is not on duty: %v", err)
	}
	if err := decide(bob, r); err != nil {
		t.Errorf("who is on duty: %v", err)
	}
	r = ask("unsure")
	if err := decide(bob, r); err == nil {
		t.Error("decided although the source cannot be asked")
	}
	if err := decide(lead, r); err != nil {
		t.Errorf("the people beside: %v", err)
	}
	r, err = s.API(carol).GetAccessRequest(t.Context(), client.GetAccessRequestInput{RequestID: r.RequestID})
	if err != nil {
		t.Fatal(err)
	}
	if told := strings.Join(r.Warnings, "; "); !strings.Contains(told, "pagerduty") || !strings.Contains(told, "502") || strings.Contains(told, "s3cret") {
		t.Errorf("the request warns of %q", told)
	}
}
