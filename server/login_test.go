package server

import (
	"net/http"
	"strings"
	"testing"

	"sallyport.dev/document"
	"sallyport.dev/identity"
)

func TestChooseLogin(t *testing.T) {
	enabled := document.Inputs{RunAsEnabled: true, RunAsDefaultUser: "web"}
	disabled := document.Inputs{RunAsDefaultUser: "web"}
	tagged := identity.Tags{runAsTag: "alice, deploy"}
	for _, test := range []struct {
		name   string
		tags   identity.Tags
		inputs document.Inputs
		asked  string
		want   login
		wrong  string
	}{
		{"the first of the tag", tagged, enabled, "", login{"alice", true}, ""},
		{"another of the tag", tagged, enabled, "deploy", login{"deploy", true}, ""},
		{"of the tag, though the document asks for none", tagged, disabled, "deploy", login{"deploy", true}, ""},
		{"the document's default", nil, enabled, "", login{"web", true}, ""},
		{"the document's default, chosen", tagged, enabled, "web", login{"web", true}, ""},
		{"a default that is switched off", nil, disabled, "web", login{"web", false}, ""},
		{"the node's default", tagged, disabled, "", login{}, ""},
		{"nobody's", tagged, enabled, "postgres", login{"postgres", false}, ""},
		{"in other letters", tagged, enabled, "Alice", login{"Alice", false}, ""},
		{"none to be had", nil, document.Inputs{RunAsEnabled: true}, "", login{}, "there is none"},
		{"an empty tag", identity.Tags{runAsTag: " ,"}, enabled, "", login{"web", true}, ""},
		{"an order in the tag", identity.Tags{runAsTag: "web; id"}, enabled, "", login{"web; id", true}, "is not a login"},
		{"a number in the tag", identity.Tags{runAsTag: "0"}, enabled, "", login{"0", true}, "is not a login"},
		{"an option in the document", nil, document.Inputs{RunAsEnabled: true, RunAsDefaultUser: "-u0"}, "", login{"-u0", true}, "is not a login"},
	} {
		got, err := chooseLogin(identity.Principal{Tags: test.tags}, test.inputs, test.asked)
		if got != test.want || (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s: got %+v, %v; want %+v, %q", test.name, got, err, test.want, test.wrong)
		}
	}
}

// Who a session is on the node: what the tag and the document name is the principal's
// own; all else, and root in any case, takes sallyport:RunAs.
func TestRunAs(t *testing.T) {
	r := newRestricted(t)
	r.document("As-Web", `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":true,"runAsDefaultUser":"web"}}`)
	r.document("As-Root", `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":true,"runAsDefaultUser":"root"}}`)
	r.document("Elevated", `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"id","runAsElevated":true}}}`)
	const start = `{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}`
	policy := func(statements ...string) string {
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(append(statements, start), ",") + `]}`
	}
	alice := r.user("alice", identity.Tags{runAsTag: "alice,deploy"}, policy())
	bob := r.user("bob", nil, policy(`{"Effect":"Allow","Action":"sallyport:RunAs","Resource":"*","Condition":{"StringEquals":{"sallyport:RunAsUser":"postgres"}}}`))
	sudo := r.user("sudo", identity.Tags{runAsTag: "root"}, policy(`{"Effect":"Allow","Action":"sallyport:RunAs","Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"}}}`))
	rootless := r.user("rootless", identity.Tags{runAsTag: "root"}, policy())
	never := r.user("never", identity.Tags{runAsTag: "web"}, policy(`{"Effect":"Allow","Action":"sallyport:RunAs","Resource":"*"}`,
		`{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"sallyport:RunAsUser":["root","-"]}}}`))
	const denied, validation = "AccessDeniedException", "ValidationException"
	for _, test := range []struct {
		name, document, asked string
		as                    identity.Credentials
		login, code           string
	}{
		{"nobody asks", "", "", alice, "", ""},
		{"a login of the tag", "", "deploy", alice, "deploy", ""},
		{"the tag's first", "As-Web", "", alice, "alice", ""},
		{"another's login", "", "postgres", alice, "", denied},
		{"root", "", "root", alice, "", denied},
		{"a login that policy allows", "", "postgres", bob, "postgres", ""},
		{"a login that policy does not", "", "mysql", bob, "", denied},
		{"root, in another spelling", "", "ROOT", alice, "", denied},
		{"the document's login", "As-Web", "", bob, "web", ""},
		{"root by document", "As-Root", "", bob, "", denied},
		{"root by tag alone", "As-Web", "", rootless, "", denied},
		{"root by tag and policy", "As-Web", "", sudo, "root", ""},
		{"root by policy", "", "root", sudo, "root", ""},
		{"a choice where the document is elevated", "Elevated", "alice", alice, "", validation},
		{"elevated", "Elevated", "", alice, "", ""},
		{"never root", "", "root", never, "", denied},
		{"never root by document", "As-Root", "root", never, "", denied},
		{"never elevated", "Elevated", "", never, "", denied},
		{"never the node's default", "", "", never, "", denied},
		{"but oneself", "", "web", never, "web", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := map[string]any{"Target": channelNode}
			for key, value := range map[string]string{"DocumentName": test.document, "RunAs": test.asked} {
				if value != "" {
					in[key] = value
				}
			}
			got := r.json(test.as, "AmazonSSM.StartSession", in)
			if got.code() != test.code {
				t.Fatalf("got %d %s %q, want %q", got.status, got.code(), got.message(), test.code)
			}
			if got.status != http.StatusOK {
				return
			}
			told := r.told()
			enabled := strings.Contains(string(told.DocumentContent), `"runAsEnabled":true`)
			if told.RunAsUser != test.login || told.RunAsRoot != (test.login == "root") || enabled != (test.login != "") {
				t.Errorf("the node was told login %q, root %v, run-as %v; want %q", told.RunAsUser, told.RunAsRoot, enabled, test.login)
			}
			id := decodeInto[sessionOutput](t, got).SessionID
			row, err := r.store.Session(t.Context(), id)
			if err != nil || row.RunAs != test.login {
				t.Errorf("row: got login %q (%v), want %q", row.RunAs, err, test.login)
			}
		})
	}
}

// A login of one's own cannot be had by tagging one's session: the role's trust policy
// says who may set which tags.
func TestRunAsBySessionTag(t *testing.T) {
	r := newRestricted(t)
	r.document("As-Own", `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":true}}`)
	const may = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"*"}}`
	const shells = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}}`
	trust := func(condition string) string {
		return `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"sts:AssumeRole"},
			{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"sts:TagSession","Condition":` + condition + `}]}`
	}
	r.role("Guarded", trust(`{"ForAllValues:StringEquals":{"aws:TagKeys":["Ticket"]},"Null":{"aws:TagKeys":"false"}}`), shells)
	r.role("Own", trust(`{"StringEquals":{"aws:RequestTag/SSMSessionRunAs":"${aws:PrincipalTag/SSMSessionRunAs}"},"Null":{"aws:PrincipalTag/SSMSessionRunAs":"false"}}`), shells)
	r.role("Untagged", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"sts:AssumeRole"}]}`, shells)
	r.role("Open", trust(`{"StringLike":{"aws:PrincipalArn":"*"}}`), shells)
	alice := r.user("alice", identity.Tags{runAsTag: "alice"}, may)
	assume := func(role string, tags ...string) answer {
		fields := []string{"RoleArn", "arn:aws:iam::111111111111:role/" + role, "RoleSessionName", "alice"}
		for i := 0; i < len(tags); i += 2 {
			fields = append(fields, "Tags.member.1.Key", tags[i], "Tags.member.1.Value", tags[i+1])
		}
		return r.query(alice, "sts", "AssumeRole", fields...)
	}
	for _, test := range []struct{ role, value, login, code string }{
		{"Guarded", "deploy", "", "AccessDenied"},
		{"Untagged", "deploy", "", "AccessDenied"},
		{"Own", "deploy", "", "AccessDenied"},
		{"Own", "alice,deploy", "", "ValidationError"},
		{"Own", "alice", "alice", ""},
		{"Open", "deploy", "deploy", ""}, // whose trust policy lets everybody set every tag
	} {
		got := assume(test.role, runAsTag, test.value)
		if got.code() != test.code {
			t.Errorf("%s with %s: got %s %s, want %q", test.role, test.value, got.code(), got.message(), test.code)
			continue
		}
		if test.code != "" {
			continue
		}
		if started := r.startSession(got.credentials(), `{"Target":"NODE","DocumentName":"As-Own"}`); started.status != http.StatusOK {
			t.Errorf("%s: %s", test.role, started.body)
		} else if told := r.told(); told.RunAsUser != test.login {
			t.Errorf("%s: got login %q, want %q", test.role, told.RunAsUser, test.login)
		}
	}
	// Root takes policy, whoever may set the tag.
	root := assume("Open", runAsTag, "root").credentials()
	if got := r.startSession(root, `{"Target":"NODE","DocumentName":"As-Own"}`); got.code() != "AccessDeniedException" || !strings.Contains(got.message(), "sallyport:RunAs") {
		t.Errorf("root by tag: got %s %s", got.code(), got.message())
	}
	// Without a tag there is no login, and the session says so.
	if got := r.startSession(assume("Open").credentials(), `{"Target":"NODE","DocumentName":"As-Own"}`); got.code() != "ValidationException" || !strings.Contains(got.message(), runAsTag) {
		t.Errorf("no login: got %s %s", got.code(), got.message())
	}
}
