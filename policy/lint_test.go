package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// lintPlaces lints and returns "LINE:COLUMN severity rule" of each finding.
func lintPlaces(src string) []string {
	var got []string
	for _, f := range Lint("p.json", []byte(src), LintOptions{}) {
		got = append(got, fmt.Sprintf("%d:%d %s %s", f.Line, f.Column, f.Severity, f.Rule))
	}
	return got
}

// unmark takes the mark § out of a text and returns its place; a mark at the start
// of a string stands for the string's opening quote.
func unmark(src string) (text, place string) {
	before, after, _ := strings.Cut(src, "§")
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])
	if strings.HasSuffix(before, `"`) {
		column--
	}
	return before + after, fmt.Sprintf("%d:%d", line, column)
}

// statements builds a policy with one statement a line, from line 2 on.
func statements(list ...string) string {
	return "{\"Version\":\"2012-10-17\",\"Statement\":[\n" + strings.Join(list, ",\n") + "]}"
}

func allowOn(action, resource string) string {
	return fmt.Sprintf(`{"Effect":"Allow","Action":%q,"Resource":%q}`, action, resource)
}

func allowIf(condition string) string {
	return `{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{` + condition + `}}`
}

func TestLint(t *testing.T) {
	const (
		nodes   = "arn:aws:ec2:*:*:instance/*"
		forward = "arn:aws:ssm:*::document/AWS-StartPortForwardingSession"
		checked = `{"Effect":"Allow","Action":"ssm:StartSession","Resource":"` + nodes + `","Condition":{"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"true"}}}`
	)
	tests := []struct {
		name, src string
		want      string // severity and rule of the finding at §; empty for none
	}{
		{"clean", statements(allowOn("ssm:StartSession", nodes)), ""},
		{"syntax", "{\n \"Version\":\"2012-10-17\",§}", "error syntax"},
		{"a clean trust policy", trustPolicy, ""},
		{"broken trust policy", `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"§ssm:StartSession"}]}`, "error syntax"},
		{"everyone is trusted", `{"Statement":[{"Effect":"Allow","Principal":{"AWS":["§*"]},"Action":"sts:AssumeRole"}]}`, "warning trusts-everyone"},

		{"forward only, and yet a shell", statements(allowOn("ssm:StartSession", "§"+nodes), allowOn("ssm:StartSession", forward)), "warning forward-only-shell"},
		{"forward only in one statement", statements(`{"Effect":"Allow","Action":"ssm:*","Resource":["§` + nodes + `","` + forward + `"]}`), "warning forward-only-shell"},
		{"forward only on nothing", statements(allowOn("ssm:StartSession", "§arn:aws:ec2:::instance/*"), allowOn("ssm:StartSession", forward)), "error matches-nothing"},
		{"forward only with the check", statements(checked, allowOn("ssm:StartSession", forward)), ""},
		{"forward only with a deny", statements(allowOn("ssm:StartSession", nodes), allowOn("ssm:StartSession", forward),
			`{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"false"}}}`), ""},
		{"check asked for the wrong way", statements(strings.NewReplacer(`"true"`, `"false"`, "arn", "§arn").Replace(checked), allowOn("ssm:StartSession", forward)), "warning forward-only-shell"},
		{"shell documents allowed as well", statements(allowOn("ssm:StartSession", nodes), allowOn("ssm:StartSession", "arn:aws:ssm:*:*:document/*")), ""},

		{"forward only to a host", statements(`{"Effect":"Allow","Action":"ssm:StartSession","Resource":["` + nodes + `","` + forward + `"],"Condition":{"StringEquals":{"sallyport:RemoteHost":"db"}}}`), ""},
		{"forward only to any but a host", statements(`{"Effect":"Allow","Action":"ssm:StartSession","Resource":["§` + nodes + `","` + forward + `"],"Condition":{"StringNotEquals":{"sallyport:RemoteHost":"db"}}}`), "warning forward-only-shell"},
		{"host in capitals", statements(allowIf(`"StringLike":{"sallyport:RemoteHost":["*.internal","§DB"]}`)), "warning host-form"},
		{"host with a dot", statements(allowIf(`"StringEquals":{"sallyport:RemoteHost":"§db."}`)), "warning host-form"},
		{"host denied", statements(`{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"§sallyport:RemoteHost":"db"}}}`), "warning deny-by-name"},
		{"all hosts but one denied", statements(`{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"StringNotEquals":{"sallyport:RemoteHost":"db"}}}`), ""},
		{"unknown key of ours", statements(allowIf(`"StringEquals":{"§sallyport:RunAs":"web"}`)), "warning unknown-key"},
		{"keys of ours", statements(allowIf(`"StringEquals":{"sallyport:RunAsUser":"web"},"NumericEquals":{"sallyport:RemotePort":"5432"},"IpAddress":{"sallyport:RemoteAddress":"10.0.0.0/8"}`)), ""},

		{"region and account lost", statements(allowOn("ssm:StartSession", "§arn:aws:ec2:::instance/*")), "error matches-nothing"},
		{"account lost", statements(allowOn("ssm:StartSession", "§arn:aws:ssm:us-east-1::managed-instance/*")), "error matches-nothing"},
		{"AWS document with an account", statements(allowOn("ssm:StartSession", "§arn:aws:ssm:us-east-1:111111111111:document/AWS-StartSSHSession")), "error matches-nothing"},
		{"AWS document with any account", statements(allowOn("ssm:SendCommand", "arn:aws:ssm:*:*:document/AWS-RunPatchBaseline")), ""},
		{"own document without account", statements(allowOn("ssm:SendCommand", "§arn:aws:ssm:us-east-1::document/Mine")), "error matches-nothing"},
		{"document without region", statements(allowOn("ssm:SendCommand", "§arn:aws:ssm:::document/AWS-X")), "error matches-nothing"},
		{"IAM with a region", statements(allowOn("iam:GetUser", "§arn:aws:iam:us-east-1:111111111111:user/alice")), "error matches-nothing"},
		{"short account", statements(allowOn("ssm:StartSession", "§arn:aws:ec2:us-east-1:11111:instance/*")), "error matches-nothing"},
		{"other partition", statements(allowOn("ssm:StartSession", "§arn:aws-cn:ec2:*:*:instance/*")), "error matches-nothing"},
		{"no type", statements(allowOn("ssm:StartSession", "§arn:aws:ec2:*:*:i-060ee0879f3ec4eb7")), "error matches-nothing"},
		{"managed node as instance", statements(allowOn("ssm:StartSession", "§arn:aws:ec2:*:*:instance/mi-060ee0879f3ec4eb7")), "error matches-nothing"},
		{"short node id", statements(allowOn("ssm:StartSession", "§arn:aws:ec2:*:*:instance/i-05b7516a19f826be")), "warning node-id"},
		{"listing on a resource", statements(allowOn("§ssm:DescribeSessions", nodes)), "warning needs-star"},

		{"unknown action", statements(allowOn("§ssm:StartSesion", nodes)), "warning unknown-action"},
		{"wildcard that matches no action", statements(allowOn("§sts:Get?", "*")), "warning unknown-action"},
		{"actions of other services", statements(allowOn("s3:GetObjekt", "arn:aws:s3:::bucket/*")), ""},
		{"own actions", statements(allowOn("sallyport:GetRecording", "*")), ""},
		{"unknown key", statements(allowIf(`"StringEquals":{"§aws:PrincipleTag/Team":"x"}`)), "warning unknown-key"},
		{"sessions by the beginning of their ids", statements(allowOn("ssm:ResumeSession", "§arn:aws:ssm:*:*:session/${aws:username}-*")), "warning session-prefix"},
		{"sessions by the beginning of their ids, and by owner", statements(`{"Effect":"Allow","Action":"ssm:ResumeSession","Resource":"arn:aws:ssm:*:*:session/${aws:username}-*",
			"Condition":{"StringEquals":{"ssm:resourceTag/aws:ssmmessages:session-id":"${aws:userid}"}}}`), ""},
		{"unknown variable", statements(allowOn("ssm:ResumeSession", "§arn:aws:ssm:*:*:session/${aws:user}-*")), "warning unknown-key"},
		{"keys of other services", statements(allowIf(`"StringEquals":{"s3:prefix":"x"}`)), ""},
		{"case of a tag", statements(allowIf(`"StringLike":{"§ssm:resourceTag/name":"x"}`)), "warning tag-case"},
		{"key twice", statements(allowIf(`"StringLike":{"ssm:resourceTag/Team":"x","§ssm:ResourceTag/team":"y"}`)), "warning repeated-key"},
		{"wildcard in equals", statements(allowIf(`"StringEquals":{"aws:username":["a","§b*"]}`)), "warning literal-wildcard"},
		{"escaped wildcard in equals", statements(allowIf(`"StringEquals":{"aws:username":"${*}"}`)), ""},
		{"for all values of nothing", statements(allowIf(`"ForAllValues:StringEquals":{"§aws:TagKeys":"a"}`)), "warning for-all-values"},
		{"for all values, present", statements(allowIf(`"ForAllValues:StringEquals":{"aws:TagKeys":"a"},"Null":{"aws:TagKeys":"false"}`)), ""},
		{"variables in the old version", `{"Statement":[{"Effect":"Allow","Action":"ssm:ResumeSession","Resource":"arn:aws:ssm:*:*:session/§${aws:username}-*"}]}`, "error version"},

		{"everything", statements(allowOn("§*", "*")), "warning allows-everything"},
		{"all but", statements(`{"Effect":"Allow","NotAction":"§iam:*","Resource":"*"}`), "warning allow-not-action"},
		{"any command", statements(allowOn("ssm:SendCommand", "§arn:aws:ssm:*:*:document/AWS-Run*")), "warning command-shell"},
		{"any command by star", statements(allowOn("ssm:*", "§*")), "warning command-shell"},
		{"a denied command", statements(`{"Effect":"Deny","Action":"*","Resource":"*"}`), ""},

		{"invisible character", statements(allowIf("\"StringEquals\":{\"aws:username\":\"ad§\u200bmin\"}")), "warning invisible-character"},
		{"look-alike", statements(allowIf("\"StringEquals\":{\"aws:username\":\"x §\u0430dmin\"}")), "warning look-alike"},
		{"another script", statements(allowIf("\"StringEquals\":{\"ssm:resourceTag/Team\":\"команда\"}")), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, place := unmark(tt.src)
			var want []string
			if tt.want != "" {
				want = []string{place + " " + tt.want}
			}
			if diff := cmp.Diff(want, lintPlaces(src)); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%s", diff, src)
			}
		})
	}
}

func TestLintNodeTags(t *testing.T) {
	src := statements(allowIf(`"StringEquals":{"ssm:resourceTag/Team":"a","ssm:resourceTag/Deparment":"b","aws:ResourceTag/environment":"c","ssm:resourceTag/aws:ssmmessages:session-id":"d"}`))
	got := Lint("p.json", []byte(src), LintOptions{NodeTagKeys: []string{"Team", "Department", "Environment"}})
	want := []Finding{
		{File: "p.json", Line: 2, Column: 118, Severity: Warning, Rule: "unborne-tag", Message: `condition key "ssm:resourceTag/Deparment": no node bears the tag "Deparment"`, Hint: `did you mean "Department"?`},
		{File: "p.json", Line: 2, Column: 150, Severity: Warning, Rule: "tag-case", Message: `condition key "aws:ResourceTag/environment": the tag is spelt "Environment" (conditions ignore the case of tag keys, other programs do not)`, Hint: "write aws:ResourceTag/Environment"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestLintManyFindings: a policy made of mistakes is linted in bounded time.
func TestLintManyFindings(t *testing.T) {
	src := statements(`{"Effect":"Allow","Action":["` + strings.Repeat(`ssm:StartSesion","`, 6000) + `ssm:*"],"Resource":"*"}`)
	start := time.Now()
	if got := len(Lint("p.json", []byte(src), LintOptions{})); got != maxFindings {
		t.Errorf("got %d findings, want %d", got, maxFindings)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestKnownAction(t *testing.T) {
	tests := []struct {
		action string
		known  bool
		meant  string
	}{
		{"ssm:StartSession", true, ""},
		{"SSM:startsession", true, ""},
		{"ssm:StartSesion", false, "ssm:StartSession"},
		{"sallyport:QueryAudits", false, "sallyport:QueryAudit"},
		{"ssm:Frobnicate", false, ""},
		{"s3:GetObjct", true, ""}, // not a service of ours
	}
	for _, tt := range tests {
		if known, meant := KnownAction(tt.action); known != tt.known || meant != tt.meant {
			t.Errorf("%s: got %t and %q, want %t and %q", tt.action, known, meant, tt.known, tt.meant)
		}
	}
}
