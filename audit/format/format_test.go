package format

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
)

// full is a record of an event with everything in it.
func full(event, action string) audit.Record {
	r := audit.Record{
		Member: "m1", Seq: 7, Time: time.Date(2026, 3, 1, 11, 0, 0, 123456000, time.UTC), Event: event,
		Principal: "arn:aws:iam::111111111111:user/alice", Action: action, Resources: []string{"arn:1", "arn:2"},
		Decision: "ImplicitlyDenied", Reason: "because <none> allows", Error: "AccessDenied", SourceIP: "192.0.2.1",
		UserAgent: "aws-cli", RequestID: "r-1", Session: "alice-0a", Node: "mi-1", Document: "SSM-SessionManagerRunShell",
		Details: map[string]string{"path": "/etc/motd", "target": "/tmp/motd", "sha256": strings.Repeat("ab", 32), "Odd.Key": "odd value"},
		Prev:    audit.NoPrev,
	}
	r.Hash, _ = audit.Sum(r)
	return r
}

// actionsOf are actions as records of an event have them.
var actionsOf = map[string][]string{
	audit.EventDecision:     {"ssm:StartSession", "iam:ListUsers", "iam:PutUserPolicy", "ssm:TerminateSession", "sts:AssumeRole"},
	audit.EventLogin:        {""},
	audit.EventSessionStart: {""},
	audit.EventSessionEnd:   {""},
	audit.EventWatch:        {""},
	audit.EventCommandEnd:   {""},
	audit.EventTransfer:     {"upload", "download", "remove", "rename", "mkdir", "setattr", "copy", "unfollowed"},
	audit.EventNode:         {""},
	audit.EventChange:       {"iam:CreateUser", "sallyport:PutFlows", ""},
	audit.EventAccess:       {"sallyport:GetRecording"},
	audit.EventServer:       {"start", "stop", "reload"},
	audit.EventRequest:      {"request:approved"},
	audit.EventRecording:    {"finish"},
	audit.EventSignIn:       {"sign-in:Begin", "sign-in:End", "sign-in:SetPassword"},
}

// every gives each event with each of its actions, whole and as empty as can be.
func every(t *testing.T, check func(*testing.T, audit.Record)) {
	for _, event := range audit.Events() {
		if len(actionsOf[event]) == 0 {
			t.Errorf("event %s: no action to test it with", event)
		}
		for _, action := range actionsOf[event] {
			t.Run(event+" "+action, func(t *testing.T) {
				check(t, full(event, action))
				bare := audit.Record{Member: "m1", Seq: 1, Time: time.Unix(0, 0).UTC(), Event: event, Action: action, Prev: audit.NoPrev}
				bare.Hash, _ = audit.Sum(bare)
				check(t, bare)
			})
		}
	}
}

func decoded(t *testing.T, format string, r audit.Record) map[string]any {
	t.Helper()
	encode, err := Of(format)
	if err != nil {
		t.Fatal(err)
	}
	line, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(line), "\n\r") {
		t.Errorf("more than one line: %s", line)
	}
	var v map[string]any
	if err := json.Unmarshal(line, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// at finds a member by its dotted path.
func at(v any, path string) any {
	for _, name := range strings.Split(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// wantTexts: nothing of a record is left out, whatever the format.
func wantTexts(t *testing.T, v map[string]any, r audit.Record) {
	t.Helper()
	var texts []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, w := range v {
				walk(w)
			}
		case []any:
			for _, w := range v {
				walk(w)
			}
		default:
			texts = append(texts, fmt.Sprint(v))
		}
	}
	walk(v)
	want := []string{r.Member, fmt.Sprint(r.Seq), r.Event, r.Principal, r.Action, r.Decision, r.Reason, r.Error, r.SourceIP,
		r.UserAgent, r.RequestID, r.Session, r.Node, r.Document, r.Prev, r.Hash}
	for name, value := range r.Details {
		want = append(want, value)
		_ = name
	}
	for _, w := range append(want, r.Resources...) {
		if w != "" && !slices.Contains(texts, w) {
			t.Errorf("%q of the record is nowhere", w)
		}
	}
}

// ocsfClasses are the attributes that version 1.3.0 of the schema knows in the classes
// used, with those that it requires: https://schema.ocsf.io/1.3.0/classes/NAME. Those of
// the base event are in all.
var (
	ocsfBaseRequired = []string{"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
	ocsfBase         = append([]string{"activity_name", "category_name", "class_name", "message", "severity", "status", "status_code",
		"status_detail", "status_id", "type_name", "unmapped"}, ocsfBaseRequired...)
	ocsfClasses = map[float64]struct {
		name            string
		activities      []float64
		required, known []string
	}{
		0: {"Base Event", []float64{0, 99}, nil, nil},
		3002: {"Authentication", []float64{0, 1, 2, 3, 4, 5, 6, 99}, []string{"user"},
			[]string{"actor", "dst_endpoint", "http_request", "is_remote", "session", "src_endpoint"}},
		6002: {"Application Lifecycle", []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 99}, []string{"app"}, nil},
		6003: {"API Activity", []float64{0, 1, 2, 3, 4, 99}, []string{"actor", "api", "src_endpoint"},
			[]string{"dst_endpoint", "http_request", "resources"}},
		6006: {"File Hosting Activity", []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 99}, []string{"actor", "file", "src_endpoint"},
			[]string{"dst_endpoint", "file_result", "http_request"}},
	}
	// ocsfObjects are the attributes of objects that are used, as the same version has them.
	ocsfObjects = map[string][]string{
		"metadata":     {"event_code", "log_name", "original_time", "product", "sequence", "uid", "version"},
		"actor":        {"app_name", "authorizations", "session", "user"},
		"api":          {"operation", "request", "service"},
		"user":         {"credential_uid", "name", "uid"},
		"session":      {"uid"},
		"src_endpoint": {"ip", "name"},
		"dst_endpoint": {"uid"},
		"http_request": {"uid", "user_agent"},
		"file":         {"hashes", "name", "path", "type_id"},
		"file_result":  {"hashes", "name", "path", "type_id"},
		"app":          {"name", "vendor_name"},
	}
)

func TestOCSF(t *testing.T) {
	every(t, func(t *testing.T, r audit.Record) {
		v := decoded(t, OCSF, r)
		uid, activity := at(v, "class_uid").(float64), at(v, "activity_id").(float64)
		class, known := ocsfClasses[uid]
		if !known {
			t.Fatalf("class %v: unknown", uid)
		}
		if at(v, "class_name") != class.name || !slices.Contains(class.activities, activity) {
			t.Errorf("got class %v %v, activity %v", uid, at(v, "class_name"), activity)
		}
		if at(v, "type_uid") != uid*100+activity || at(v, "category_uid") != float64(int(uid)/1000) {
			t.Errorf("got type %v, category %v of class %v", at(v, "type_uid"), at(v, "category_uid"), uid)
		}
		for _, name := range slices.Concat(ocsfBaseRequired, class.required) {
			if v[name] == nil {
				t.Errorf("%s is required", name)
			}
		}
		for name, value := range v {
			if !slices.Contains(slices.Concat(ocsfBase, class.required, class.known), name) {
				t.Errorf("%s is no attribute of %s", name, class.name)
			}
			for member := range asObject(value) {
				if allowed, found := ocsfObjects[name]; found && !slices.Contains(allowed, member) {
					t.Errorf("%s.%s is not known", name, member)
				}
			}
		}
		if name := at(v, "activity_name"); activity == 99 && (name == "" || name == nil) {
			t.Error("the activity Other has no name")
		}
		if at(v, "metadata.version") != OCSFVersion || at(v, "time") != float64(r.Time.UnixMilli()) {
			t.Errorf("got version %v, time %v", at(v, "metadata.version"), at(v, "time"))
		}
		wantTexts(t, v, r)
	})
}

func asObject(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// ecsTypes are the types that ECS allows with the categories used:
// https://www.elastic.co/docs/reference/ecs/ecs-allowed-values-event-category
var ecsTypes = map[string][]string{
	"api":            {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info", "start", "user"},
	"authentication": {"start", "end", "info"},
	"configuration":  {"access", "change", "creation", "deletion", "info"},
	"file":           {"access", "change", "creation", "deletion", "info"},
	"host":           {"access", "change", "end", "info", "start"},
	"iam":            {"admin", "change", "creation", "deletion", "group", "info", "user"},
	"process":        {"access", "change", "end", "info", "start"},
	"session":        {"start", "end", "info"},
}

// ecsFields are the fields of ECS that are used.
var ecsFields = []string{"@timestamp", "message", "ecs.version", "error.code", "error.message",
	"event.action", "event.category", "event.code", "event.dataset", "event.hash", "event.id", "event.kind", "event.module", "event.outcome",
	"event.provider", "event.reason", "event.sequence", "event.type", "file.hash.sha256", "file.name", "file.path", "host.id",
	"observer.name", "observer.product", "observer.vendor", "related.hash", "related.hosts", "related.ip", "related.user",
	"source.address", "source.ip", "user.id", "user.name", "user_agent.original"}

func TestECS(t *testing.T) {
	every(t, func(t *testing.T, r audit.Record) {
		v := decoded(t, ECS, r)
		var walk func(string, any)
		walk = func(path string, v any) {
			if path == "sallyport" {
				return // ours
			}
			if m, ok := v.(map[string]any); ok {
				for name, w := range m {
					walk(strings.TrimPrefix(path+"."+name, "."), w)
				}
				return
			}
			if !slices.Contains(ecsFields, path) {
				t.Errorf("%s is no field of ECS", path)
			}
		}
		walk("", v)
		categories, types := at(v, "event.category").([]any), at(v, "event.type").([]any)
		if len(categories) == 0 || len(types) == 0 {
			t.Fatalf("got categories %v, types %v", categories, types)
		}
		for _, c := range categories {
			for _, kind := range types {
				if !slices.Contains(ecsTypes[c.(string)], kind.(string)) {
					t.Errorf("type %v does not go with category %v", kind, c)
				}
			}
		}
		if o := at(v, "event.outcome"); o != "success" && o != "failure" && o != "unknown" {
			t.Errorf("outcome: got %v", o)
		}
		wantTexts(t, v, r)
	})
}

// The whole of one of each, as it is written.
func TestExamples(t *testing.T) {
	r := audit.Record{
		Member: "m1", Seq: 7, Time: time.Date(2026, 3, 1, 11, 0, 0, 123456000, time.UTC), Event: audit.EventDecision,
		Principal: "arn:aws:iam::111111111111:user/alice", Action: "ssm:StartSession", Resources: []string{"arn:n"},
		Decision: "Allowed", SourceIP: "192.0.2.1", Node: "mi-1", Prev: "p", Hash: "h",
	}
	for format, want := range map[string]string{
		OCSF: `{"activity_id":1,"activity_name":"Create","actor":{"authorizations":[{"decision":"Allowed"}],"user":{"name":"alice","uid":"arn:aws:iam::111111111111:user/alice"}},` +
			`"api":{"operation":"ssm:StartSession","service":{"name":"ssm"}},"category_name":"Application Activity","category_uid":6,"class_name":"API Activity","class_uid":6003,` +
			`"dst_endpoint":{"uid":"mi-1"},"metadata":{"event_code":"decision","log_name":"m1","original_time":"2026-03-01T11:00:00.123456Z","product":{"name":"Sallyport","vendor_name":"Sallyport"},"sequence":7,"uid":"h","version":"1.3.0"},` +
			`"resources":[{"uid":"arn:n"}],"severity":"Informational","severity_id":1,"src_endpoint":{"ip":"192.0.2.1"},"status":"Success","status_id":1,"time":1772362800123,"type_name":"API Activity: Create","type_uid":600301,"unmapped":{"hash":"h","prev":"p"}}`,
		ECS: `{"@timestamp":"2026-03-01T11:00:00.123456Z","ecs":{"version":"8.17.0"},"event":{"action":"ssm:StartSession","category":["api"],"code":"decision","dataset":"sallyport.audit","hash":"h","id":"h","kind":"event","module":"sallyport","outcome":"success","provider":"sallyport","sequence":7,"type":["allowed","creation"]},` +
			`"host":{"id":"mi-1"},"observer":{"name":"m1","product":"Sallyport","vendor":"Sallyport"},"related":{"hosts":["mi-1"],"ip":["192.0.2.1"],"user":["alice"]},` +
			`"sallyport":{"decision":"Allowed","event":"decision","member":"m1","node":"mi-1","prev":"p","principal":"arn:aws:iam::111111111111:user/alice","resources":["arn:n"]},"source":{"address":"192.0.2.1","ip":"192.0.2.1"},"user":{"id":"arn:aws:iam::111111111111:user/alice","name":"alice"}}`,
	} {
		encode, err := Of(format)
		if err != nil {
			t.Fatal(err)
		}
		got, err := encode(r)
		if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
			t.Errorf("%s: %v, got (+), want (-):\n%s\n%s", format, err, diff, got)
		}
	}
	if _, err := Of("cef"); err == nil || !strings.Contains(err.Error(), "json, ocsf, ecs") {
		t.Errorf("an unknown format: got %v", err)
	}
}

// What the JSON format writes is what verifying reads.
func TestJSONIsTheRecord(t *testing.T) {
	every(t, func(t *testing.T, r audit.Record) {
		encode, _ := Of("")
		line, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := audit.ParseRecord(line)
		if diff := cmp.Diff(r, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}
