package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

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
  source   = "pagerduty"
  schedule = "P123"
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

// flowWith is a flow that is right, with something more in it.
func flowWith(more string) string {
	return `flow "x" {
  ask { users = ["ann"] }
  target "role" "r" { role = "R" }
  stage "s" {
    of { groups = ["g"] }
  }
` + more + `
}
`
}

// Mistakes are told with the file, the line, and what is allowed.
func TestMistakes(t *testing.T) {
	const sso = `
    instance_arn       = "arn:aws:sso:::instance/ssoins-1234567890abcdef"
    permission_set_arn = "arn:aws:sso:::permissionSet/ssoins-1234567890abcdef/ps-1234567890abcdef"
    identity_store     = "d-1234567890"
    region             = "eu-central-1"`
	tests := []struct{ name, text, want string }{
		{"block", `flwo "x" {}`, `a.sallyport.hcl:1: unknown block "flwo"; known are flow, schedule, target, user, group, role, policy, document`},
		{"outside", "x = 1", `a.sallyport.hcl:1: argument "x" stands outside a block`},
		{"syntax", "flow \"x\" {", `a.sallyport.hcl:1: Unclosed configuration block`},
		{"no name", "flow {}", `a.sallyport.hcl:1: flow: want one name: flow "NAME" { … }`},
		{"bad name", `flow "a b" {}`, `want a name of up to 64 letters`},
		{"twice", flowWith("") + flowWith(""), `a.sallyport.hcl:9: flow "x": is already at a.sallyport.hcl:1`},
		{"argument", flowWith("\n lable = \"x\""), `a.sallyport.hcl:8: flow "x": unknown argument "lable"; arguments are label, description, channels, `},
		{"block within", flowWith("asks {}"), `unknown block "asks"; arguments are`},
		{"block as argument", flowWith("clocks = 1"), `a.sallyport.hcl:7: flow "x": clocks is a block: clocks { … }`},
		{"argument as block", flowWith("label {}"), `flow "x": label is an argument: label = …`},
		{"type", flowWith("label = 1"), `flow "x": label: want text in quotes`},
		{"variable", flowWith("label = var.x"), `label: want a plain value; flow files have no variables`},
		{"function", flowWith(`label = upper("x")`), `label: want a plain value`},
		{"loop", flowWith(`targets = [for x in ["a"] : x]`), `targets: want a plain value`},
		{"template", flowWith(`label = "a${b}"`), `label: want a plain value`},
		{"nobody asks", `flow "x" {}`, `flow "x": nobody may ask; want ask { … }`},
		{"empty ask", `flow "x" {
ask {}
}`, `nobody may ask`},
		{"no target", `flow "x" {}`, `flow "x": gives nothing; want a target block`},
		{"no stage", `flow "x" {}`, `flow "x": nobody decides; want a stage, cedar rules, or break_glass`},
		{"stage of nobody", flowWith(`stage "t" {}`), `stage "t": selects nobody; want of { … }`},
		{"stages of one name", flowWith("stage \"s\" {\n of { users = [\"u\"] }\n}"), `stage "s": there are two of this name`},
		{"approvals", flowWith("stage \"t\" {\n approvals = 0\n of { users = [\"u\"] }\n}"), `a.sallyport.hcl:8: flow "x": stage "t": approvals: want a whole number from 1 to 100`},
		{"approvals in part", flowWith("stage \"t\" {\n approvals = 1.5\n of { users = [\"u\"] }\n}"), `want a whole number`},
		{"comment", flowWith("stage \"t\" {\n comment = \"yes\"\n of { users = [\"u\"] }\n}"), `comment: "yes" is not known; want never, required or on_deny`},
		{"duration", flowWith(`clocks { pending = "soon" }`), `a.sallyport.hcl:7: flow "x": clocks: pending: want a duration such as 90s, 30m, 1h, 1h30m or 2d`},
		{"negative", flowWith(`clocks { pending = "-1h" }`), `want a duration`},
		{"too long", flowWith(`clocks { longest = "9999d" }`), `longest: want from 1s to 366d`},
		{"zero", flowWith(`clocks { default = "0s" }`), `default: want from 1s to 366d`},
		{"longest", flowWith("clocks {\n default = \"2h\"\n longest = \"1h\"\n}"), `longest is 1h, less than the default of 2h`},
		{"extensions", flowWith(`clocks { extensions = 2 }`), `extensions without extension = how long one is`},
		{"extension", flowWith(`clocks { extension = "1h" }`), `want extensions = how many there may be`},
		{"fallback", flowWith("stage \"t\" {\n of { users = [\"u\"] }\n fallback {\n of { users = [\"v\"] }\n }\n}"), `stage "t": its fallback wants after`},
		{"late fallback", flowWith("stage \"t\" {\n of { users = [\"u\"] }\n fallback {\n after = \"2h\"\n of { users = [\"v\"] }\n }\n}"), `stage "t": its fallback comes when the pending clock of 1h is over`},
		{"schedule", flowWith("stage \"t\" {\n of { on_call = [\"p\"] }\n}"), `on_call: there is no schedule "p"; want a block schedule "NAME"`},
		{"channel", flowWith(`channels = ["telex"]`), `channels: "telex" is not known; want some of cli, api, ssh, slack, web, email`},
		{"announce", flowWith("announce {\n on = [\"done\"]\n slack = [\"#x\"]\n}"), `on: "done" is not known; want some of requested`},
		{"announce to nobody", flowWith("announce {}"), `announce: tells nobody; want slack, email or webhook`},
		{"address", flowWith(`announce { email = ["x"] }`), `email: "x" is no address`},
		{"field name", flowWith(`field "X" {}`), `field "X": want a name of small letters`},
		{"fields of one name", flowWith("field \"a\" {}\nfield \"a\" {}"), `field "a": there are two of this name`},
		{"field type", flowWith(`field "a" { type = "text" }`), `type: "text" is not known; want string, str_list, int, int_list, bool, duration, person or person_list`},
		{"pattern", flowWith(`field "a" { pattern = "(" }`), `pattern: error parsing regexp`},
		{"pattern that closes itself", flowWith(`field "a" { pattern = "a)|(b" }`), `pattern: error parsing regexp`},
		{"allowed", flowWith("field \"a\" {\n type = \"int\"\n allowed = [\"one\"]\n}"), `a.sallyport.hcl:9: flow "x": field "a": allowed: "one" is no int`},
		{"default", flowWith("field \"a\" {\n default = \"x\"\n allowed = [\"y\"]\n}"), `default: a: "x" is not allowed; want y`},
		{"message", flowWith(`field "a" { message = "x" }`), `message is for pattern, allowed or options`},
		{"options without code", flowWith(`field "a" { options = "f" }`), `options names a function, but the flow has no code`},
		{"options and allowed", flowWith("field \"a\" {\n options = \"f\"\n allowed = [\"x\"]\n}"), `options and allowed do not go together`},
		{"options of nothing", flowWith("code = \"x.star\"\nfield \"a\" { options = \"f\" }"), `options: x.star does not define f; it defines on_request`},
		{"duration allowed", flowWith(`field "duration" { allowed = ["2h"] }`), `allowed: 2h is longer than clocks { longest = "1h" }`},
		{"duration type", flowWith(`field "duration" { type = "int" }`), `the duration is of type duration`},
		{"reason type", flowWith(`field "reason" { type = "int" }`), `the reason is of type string`},
		{"target", flowWith(`target "x" {}`), `want target "KIND" "NAME" { … } with a kind of nodes, role, group, permission_set or aws_group`},
		{"target kind", flowWith(`target "vm" "y" {}`), `"vm" is no kind of target; want nodes, role`},
		{"targets of one name", flowWith("target \"role\" \"r\" { role = \"R\" }"), `there are two targets named "r"`},
		{"shared target", flowWith(`targets = ["y"]`), `targets: there is no shared target "y"; want a top-level block`},
		{"no nodes", flowWith(`target "nodes" "y" {}`), `selects no nodes; want ids, names or tags`},
		{"node id", flowWith(`target "nodes" "y" { ids = ["web"] }`), `ids: "web" is no node id such as i-0123456789abcdef0`},
		{"tags", flowWith(`target "nodes" "y" { tags = ["a"] }`), `tags: want { KEY = ["VALUE", …], … }`},
		{"login", flowWith("target \"nodes\" \"y\" {\n names = [\"*\"]\n login = \"a;b\"\n}"), `login: got "a;b", want the name of an OS user`},
		{"role", flowWith(`target "role" "y" {}`), `role is required: a name`},
		{"account", flowWith("target \"permission_set\" \"y\" {\n account = \"12345\"" + sso + "\n}"), `account: got "12345", want twelve digits`},
		{"account without quotes", flowWith("target \"permission_set\" \"y\" {\n account = 123456789012" + sso + "\n}"), `account: want text in quotes`},
		{"user field", flowWith("target \"aws_group\" \"y\" {\n group = \"g\"\n user_field = \"mail\"\n}"), `user_field: "mail"; want "name" or "tag:KEY"`},
		{"cedar", flowWith(`cedar = "permit (principal);"`), `a.sallyport.hcl:7: flow "x": cedar: `},
		{"code", flowWith(`code = "y.star"`), `code: there is no file y.star; there are broken.star and x.star`},
		{"code elsewhere", flowWith(`code = "../../etc/passwd"`), `code: there is no file ../../etc/passwd`},
		{"broken code", flowWith(`code = "broken.star"`), `broken.star:2: undefined: nosuch`},
		{"http without code", flowWith(`http { allow_hosts = ["api.example.com"] }`), `http is for code`},
		{"host", flowWith("code = \"x.star\"\nhttp { allow_hosts = [\"127.0.0.1\"] }"), `allow_hosts: got "127.0.0.1", want the DNS name of a public host`},
		{"break-glass with stages", flowWith("break_glass {\n review { users = [\"u\"] }\n}"), `break_glass grants first; it has no stages`},
		{"break-glass for all", "flow \"x\" {\n ask { everyone = true }\n break_glass {\n review { users = [\"u\"] }\n }\n}", `break_glass is for people who are named in advance`},
		{"break-glass without review", "flow \"x\" {\n break_glass {}\n}", `break_glass: selects nobody; want review { … }`},
		{"schedule source", `schedule "p" {}`, `want source = pagerduty, opsgenie or ical, or a block rota { … }`},
		{"schedule source unknown", `schedule "p" { source = "x" }`, `source: "x" is not known; want`},
		{"schedule's setting", "schedule \"p\" {\n source = \"pagerduty\"\n schedule_id = \"P1\"\n}", `unknown argument "schedule_id"; arguments are source, schedule`},
		{"schedule without a setting", `schedule "p" { source = "opsgenie" }`, `schedule "p": schedule is required`},
		{"calendar", `schedule "p" { source = "ical" }`, `want one of url and file`},
		{"rota with settings", "schedule \"p\" {\n schedule = \"P1\"\n rota {\n start = \"2026-01-05\"\n shift = \"7d\"\n users = [\"u\"]\n }\n}", `unknown argument "schedule"`},
		{"rota", "schedule \"p\" {\n rota {}\n}", `want start = "2026-01-05T09:00:00Z", shift = "7d" and users = […]`},
		{"zone", "schedule \"p\" {\n rota {\n zone = \"Mars\"\n }\n}", `zone: got "Mars", want a zone such as Europe/Berlin`},
		{"hours", "schedule \"p\" {\n rota {\n hours = \"9-5\"\n }\n}", `hours: got "9-5", want hours such as 09:00-17:00`},
		{"day", "schedule \"p\" {\n rota {\n days = [\"monday\"]\n }\n}", `days: "monday" is not known; want some of sun, mon`},
		{"watch notice", flowWith(`watch_notice = "yes"`), `watch_notice: want true or false`},
		{"brackets", "x = " + strings.Repeat("[", 100_000), `brackets are nested too deep`},
		{"nots", "x = " + strings.Repeat("!", 100_000) + "true", `brackets are nested too deep`},
		{"size", strings.Repeat("#", maxFile+1), `the file has 1048577 bytes; at most 1048576`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set, err := Parse(asFiles(map[string]string{
				"a.sallyport.hcl": test.text,
				"x.star":          "def on_request(event): pass",
				"broken.star":     "def on_request(event):\n  nosuch()",
			}))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && set != nil {
				t.Error("got flows beside the error")
			}
		})
	}
}

func TestFilesOfOthersAreSkipped(t *testing.T) {
	set := parseOne(t, map[string]string{
		"people.sallyport.hcl": "user \"ann\" {\n  groups = [\"g\"]\n}\npolicy \"p\" {\n  x = jsonencode({})\n}",
		"a.flowtest.hcl":       "this is not { HCL",
		"readme.md":            "nor this",
	})
	if len(set.Flows) != 0 {
		t.Errorf("got %d flows, want none", len(set.Flows))
	}
	if _, err := Parse(asFiles(map[string]string{"flows.hcl": ""})); err == nil {
		t.Error("flows.hcl: want an error: it would be overlooked")
	}
}

func TestTooManyFlows(t *testing.T) {
	var b strings.Builder
	for i := range maxFlows + 1 {
		b.WriteString(strings.Replace(flowWith(""), `"x"`, fmt.Sprintf("\"x%d\"", i), 1))
	}
	if _, err := Parse(asFiles(map[string]string{"a.sallyport.hcl": b.String()})); err == nil || !strings.Contains(err.Error(), "more than 1000 flows") {
		t.Errorf("got %v, want that there are more than 1000 flows", err)
	}
}

func TestDigest(t *testing.T) {
	a := map[string]string{"a": "1", "b": "23"}
	if first, again := Digest(asFiles(a)), Digest(asFiles(a)); first != again {
		t.Error("got two digests of the same files")
	}
	seen := map[string]bool{}
	for _, files := range []map[string]string{a, {"a": "12", "b": "3"}, {"ab": "123"}, {"a": "1", "b": "23", "c": ""}, {}} {
		seen[Digest(asFiles(files))] = true
	}
	if len(seen) != 5 {
		t.Errorf("got %d digests of 5 different sets", len(seen))
	}
}

// What is left out has a value that is safe to use.
func TestClocksThatAreLeftOut(t *testing.T) {
	tests := []struct {
		text string
		want Clocks
	}{
		{"", Clocks{Pending: time.Hour, Default: time.Hour, Longest: time.Hour}},
		{`clocks { longest = "30m" }`, Clocks{Pending: time.Hour, Default: 30 * time.Minute, Longest: 30 * time.Minute}},
		{`clocks { longest = "3h" }`, Clocks{Pending: time.Hour, Default: time.Hour, Longest: 3 * time.Hour}},
		{`clocks { default = "3h" }`, Clocks{Pending: time.Hour, Default: 3 * time.Hour, Longest: 3 * time.Hour}},
		{"clocks {\n extension = \"30m\"\n extensions = 2\n}", Clocks{
			Pending: time.Hour, Default: time.Hour, Longest: 2 * time.Hour, Extension: 30 * time.Minute, Extensions: 2,
		}},
	}
	for _, test := range tests {
		set := parseOne(t, map[string]string{"a.sallyport.hcl": flowWith(test.text)})
		if diff := cmp.Diff(test.want, set.Flows["x"].Clocks); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "30m": 30 * time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "1d1h1m1s": 25*time.Hour + time.Minute + time.Second,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
		again, err := ParseDuration(FormatDuration(got))
		if err != nil || again != got {
			t.Errorf("%s: got %v, %v after writing it as %s", text, again, err, FormatDuration(got))
		}
	}
	for _, text := range []string{"", "1", "h", "-1h", "+1h", "1.5h", "1 h", "1h ", "1m1h", "1h1h", "1ms", "1w", "99999999999999999999d", "2147483647d", "1e3s", "0x1s"} {
		if got, err := ParseDuration(text); err == nil && !(text == "2147483647d" && got > 0) {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(everything, "def on_request(event): pass")
	f.Add(flowWith(`cedar = "permit (principal, action, resource);"`), "load('prod.star', 'x')")
	f.Add("target \"nodes\" \"x\" {\n ids = [1, null, {a = []}]\n}", "x = [")
	f.Fuzz(func(t *testing.T, text, code string) {
		set, err := Parse(asFiles(map[string]string{"a.sallyport.hcl": text, "prod.star": code, "lib.star": "x = 1"}))
		if (set == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of both", set, err)
		}
		if err != nil {
			return
		}
		frozen, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		var again Set
		if err := json.Unmarshal(frozen, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(set, &again); diff != "" {
			t.Errorf("after a round trip (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseCases(f *testing.F) {
	f.Add("person \"ann\" {}\ntest \"x\" {\n flow = \"x\"\n ask \"ann\" { reason = \"y\" }\n wait \"1h\" {}\n expect { outcome = \"pending\" }\n}")
	set, err := Parse(asFiles(map[string]string{"a.sallyport.hcl": flowWith("")}))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cases, err := ParseCases("a.flowtest.hcl", []byte(text))
		if err == nil {
			cases.Run(context.Background(), set)
		}
	})
}

// Whether people are told of watchers is said, denied, or left to the server.
func TestWatchNotice(t *testing.T) {
	yes, no := true, false
	for text, want := range map[string]*bool{"": nil, "watch_notice = true": &yes, "watch_notice = false": &no} {
		set, err := Parse(asFiles(map[string]string{"a.sallyport.hcl": flowWith(text)}))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, set.Flows["x"].WatchNotice); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}
