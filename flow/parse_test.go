package flow

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parseOne(t *testing.T, files map[string]string) *Set {
	t.Helper()
	set, err := Parse(asFiles(files))
	if err != nil {
		t.Fatalf("parsing: %v", err)
	}
	return set
}

func asFiles(files map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for name, text := range files {
		out[name] = []byte(text)
	}
	return out
}

const everything = `
flow "prod" {
  label       = "Production"
  description = "The whole of it."
  channels    = ["cli", "slack"]
  ask { groups = ["dev"] }
  field "ticket" {
    pattern  = "[A-Z]+-[0-9]+"
    message  = "a ticket such as OPS-12"
    required = true
  }
  field "size" {
    type    = "int"
    allowed = [1, 2]
    default = 1
  }
  field "duration" { allowed = ["30m", "60m"] }
  target "nodes" "web" {
    names     = ["web-*"]
    tags      = { Team = "payments", Env = ["prod", "staging"] }
    documents = ["SSM-SessionManagerRunShell"]
    login     = "ops"
    commands  = true
  }
  target "role" "deploy" { role = "Deploy" }
  targets = ["admins", "sso"]
  stage "team" {
    approvals     = 2
    of { groups = ["leads"] }
    within        = "30m"
    remind        = "10m"
    comment       = "on_deny"
    second_factor = true
    delegate      = true
    fallback {
      after = "10m"
      of { on_call = ["primary"] }
    }
  }
  clocks {
    pending     = "2h"
    activate_by = "1d"
    default     = "30m"
    longest     = "4h"
    extension   = "30m"
    extensions  = 2
  }
  announce {
    on    = ["granted"]
    slack = ["#prod"]
  }
  cedar = <<-CEDAR
    forbid (principal, action, resource) when { context.duration > 7200 };
  CEDAR
  code = "prod.star"
  http { allow_hosts = ["api.example.com"] }
}
target "group" "admins" { group = "admins" }
target "permission_set" "sso" {
  instance_arn       = "arn:aws:sso:::instance/ssoins-1234567890abcdef"
  permission_set_arn = "arn:aws:sso:::permissionSet/ssoins-1234567890abcdef/ps-1234567890abcdef"
  account            = "123456789012"
  identity_store     = "d-1234567890"
  region             = "eu-central-1"
  user_field         = "tag:Mail"
}
schedule "primary" {
  rota {
    start = "2026-01-05T09:00"
    shift = "7d"
    users = ["ann", "ben"]
    zone  = "Europe/Berlin"
    hours = "09:00-17:00"
    days  = ["mon", "tue"]
  }
}
schedule "duty" {
  source      = "pagerduty"
  schedule_id = "P123"
}
user "ann" {}
`

// A flow that comes back from JSON is the flow that was frozen.
func TestFreezing(t *testing.T) {
	set := parseOne(t, map[string]string{
		"a.sallyport.hcl": everything,
		"prod.star":       "load('lib.star', 'f')\ndef get_permissions(event):\n  return None\n",
		"lib.star":        "def f(): return 1",
	})
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var again Set
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set, &again); diff != "" {
		t.Errorf("after a round trip (-want +got):\n%s", diff)
	}
	second, err := json.Marshal(&again)
	if err != nil || string(second) != string(text) {
		t.Errorf("got other JSON the second time (%v)", err)
	}
	if !again.Flows["prod"].Code.Defines("get_permissions") {
		t.Error("the code does not compile any more")
	}
	_, _, _, err = set.Flows["prod"].Fill(context.Background(), nil, Person{Name: "ann"}, Values{"reason": {"x"}, "ticket": {"OPS-1"}, "duration": {"1h"}})
	if err != nil {
		t.Error(err)
	}
}
