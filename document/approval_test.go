package document_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/document"
)

func TestApprovalDocuments(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       document.Approval
	}{
		{"all nodes, one level", `{"schemaVersion":"1.0","accessDuration":1,"approvers":["bob"]}`, document.Approval{
			Access: time.Hour, Levels: []document.Level{{Approvals: 1, Approvers: []document.Named{{Name: "bob"}}}},
		}},
		{"all nodes, said so", `{"schemaVersion":"1.0","accessDuration":"PT336H","targets":[{"Key":"InstanceIds","Values":["*"]}],"approvers":["group/ops"]}`, document.Approval{
			Access: 336 * time.Hour, Levels: []document.Level{{Approvals: 1, Approvers: []document.Named{{Kind: "group", Name: "ops"}}}},
		}},
		{"two levels, two tags, in YAML", `
schemaVersion: "1.0"
description: Databases
accessDuration: 4
targets:
  - key: tag:Tier
    values: [Database, Cache]
  - Key: tag:Env
    Values: [Prod]
approvalLevels:
  - level: 1
    minRequiredApprovals: 2
    approvers: [group/dba, user/carol]
  - approvers:
      - {approver: "arn:aws:iam::111111111111:user/staff/dave", type: IamUser}
requesters: [group/engineers]
documents: [SSM-SessionManagerRunShell]
login: ec2-user
`, document.Approval{
			Access:  4 * time.Hour,
			Targets: []document.Selector{{Tag: "Tier", Values: []string{"Database", "Cache"}}, {Tag: "Env", Values: []string{"Prod"}}},
			Levels: []document.Level{
				{Approvals: 2, Approvers: []document.Named{{Kind: "group", Name: "dba"}, {Kind: "user", Name: "carol"}}},
				{Approvals: 1, Approvers: []document.Named{{Kind: "user", Name: "dave", Account: "111111111111"}}},
			},
			Requesters: []document.Named{{Kind: "group", Name: "engineers"}},
			Documents:  []string{"SSM-SessionManagerRunShell"}, Login: "ec2-user",
		}},
		{"as in Change Manager", `{"schemaVersion":"1.0","accessDuration":2,"approvers":[{"approver":"ops","approverType":"IamGroup","minRequiredApprovals":2}]}`, document.Approval{
			Access: 2 * time.Hour, Levels: []document.Level{{Approvals: 2, Approvers: []document.Named{{Kind: "group", Name: "ops"}}}},
		}},
		{"the most that anybody wants", `{"schemaVersion":"1.0","accessDuration":2,"approvalLevels":[
			{"minRequiredApprovals":2,"approvers":[{"approver":"group/ops","minRequiredApprovals":3},{"approver":"bob","minRequiredApprovals":"1"}]},
			{"minRequiredApprovals":2,"approvers":[{"approver":"group/dba","minRequiredApprovals":1}]}]}`, document.Approval{
			Access: 2 * time.Hour, Levels: []document.Level{
				{Approvals: 3, Approvers: []document.Named{{Kind: "group", Name: "ops"}, {Name: "bob"}}},
				{Approvals: 2, Approvers: []document.Named{{Kind: "group", Name: "dba"}}},
			},
		}},
	} {
		d, err := document.ParseApproval("Doc", []byte(test.text))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if diff := cmp.Diff(test.want, *d.Approval); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if d.Type != document.TypeManualApproval || len(d.Platforms()) != 0 {
			t.Errorf("%s: got type %s, platforms %v", test.name, d.Type, d.Platforms())
		}
	}
}

func TestApprovalMistakes(t *testing.T) {
	with := func(member string) string { return `{"schemaVersion":"1.0",` + member + `}` }
	const who = `"approvers":["bob"]`
	for _, test := range []struct{ name, text, want string }{
		{"nothing", ``, "is empty"},
		{"a list", `[]`, "a document is an object"},
		{"no version", `{"accessDuration":1,` + who + `}`, "schemaVersion: is missing"},
		{"another version", `{"schemaVersion":"2.0","accessDuration":1,` + who + `}`, `schemaVersion: must be "1.0"`},
		{"no duration", with(who), "accessDuration: is missing"},
		{"no time", with(`"accessDuration":0,` + who), "hours from 1 to 336"},
		{"too long", with(`"accessDuration":337,` + who), "hours from 1 to 336"},
		{"half hours", with(`"accessDuration":1.5,` + who), "hours from 1 to 336"},
		{"minutes", with(`"accessDuration":"PT30M",` + who), "PT1H to PT336H"},
		{"nobody", with(`"accessDuration":1`), "approvalLevels: is missing"},
		{"no approvers", with(`"accessDuration":1,"approvers":[]`), "a list of 1 to 5 entries"},
		{"six approvers", with(`"accessDuration":1,"approvers":["a","b","c","d","e","f"]`), "a list of 1 to 5 entries"},
		{"six levels", with(`"accessDuration":1,"approvalLevels":[` + strings.Repeat(`{"approvers":["a"]},`, 5) + `{"approvers":["a"]}]`), "a list of 1 to 5 entries"},
		{"levels and approvers", with(`"accessDuration":1,"approvalLevels":[{"approvers":["a"]}],` + who), "excludes approvalLevels"},
		{"levels out of order", with(`"accessDuration":1,"approvalLevels":[{"level":2,"approvers":["a"]}]`), "must be 1: levels are given in order"},
		{"more approvals than people", with(`"accessDuration":1,"approvalLevels":[{"minRequiredApprovals":2,"approvers":["user/a"]}]`), "demands 2 approvals of 1 users"},
		{"more approvals than people, says one of them", with(`"accessDuration":1,"approvalLevels":[{"approvers":[{"approver":"user/a","minRequiredApprovals":2}]}]`), "demands 2 approvals of 1 users"},
		{"no number of approvals of an approver", with(`"accessDuration":1,"approvalLevels":[{"approvers":[{"approver":"a","minRequiredApprovals":"many"}]}]`), "approvalLevels[0].approvers[0].minRequiredApprovals: must be a number from 1 to 5"},
		{"approvals of who asks", with(`"accessDuration":1,"requesters":[{"approver":"a","minRequiredApprovals":2}],` + who), "requesters[0].minRequiredApprovals: is not known here"},
		{"somebody twice", with(`"accessDuration":1,"approvers":["bob","bob"]`), "bob is named twice"},
		{"a role", with(`"accessDuration":1,"approvers":["arn:aws:iam::111111111111:role/Ops"]`), "A role is whoever may assume it"},
		{"a role by type", with(`"accessDuration":1,"approvers":[{"approver":"Ops","type":"IamRole"}]`), "A role is whoever may assume it"},
		{"Identity Center's id", with(`"accessDuration":1,"approvers":["90677fa0fb-5513f9a2-9916-4fc2-aec5-0358ce119215"]`), "ids of IAM Identity Center are not known here"},
		{"a user called a group", with(`"accessDuration":1,"approvers":[{"approver":"user/a","type":"IamGroup"}]`), "is not of type IamGroup"},
		{"no values", with(`"accessDuration":1,"targets":[{"Key":"tag:Env"}],` + who), "needs Key and Values"},
		{"one node", with(`"accessDuration":1,"targets":[{"Key":"InstanceIds","Values":["i-1"]}],` + who), "for all nodes"},
		{"all nodes and a tag", with(`"accessDuration":1,"targets":[{"Key":"InstanceIds","Values":["*"]},{"Key":"tag:Env","Values":["Prod"]}],` + who), "exclude each other"},
		{"a tag twice", with(`"accessDuration":1,"targets":[{"Key":"tag:Env","Values":["Prod"]},{"Key":"tag:Env","Values":["Dev"]}],` + who), "give its values together"},
		{"values with commas", with(`"accessDuration":1,"targets":[{"Key":"tag:Env","Values":["Prod, Dev"]}],` + who), "values have no commas"},
		{"an unknown member", with(`"accessDuration":1,"autoApprove":true,` + who), "known are accessDuration, approvalLevels, approvers"},
		{"a hidden character", with(`"accessDuration":1,"description":"a\u202eb",` + who), "U+202E"},
		{"a login with a space", with(`"accessDuration":1,"login":"a b",` + who), "must be the name of an OS user"},
	} {
		_, err := document.ParseApproval("Doc", []byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
		if e, ok := err.(*document.Error); !ok || e.Document != "Doc" {
			t.Errorf("%s: got %#v, want an *Error that names the document", test.name, err)
		}
	}
}

func FuzzParseApproval(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":"1.0","accessDuration":1,"targets":[{"Key":"tag:Env","Values":["Prod"]}],"approvers":["bob"]}`))
	f.Add([]byte("schemaVersion: '1.0'\naccessDuration: PT2H\napprovalLevels:\n- approvers: [group/a, {approver: b, type: IamUser}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := document.ParseApproval("Doc", text)
		if err != nil {
			return
		}
		a := d.Approval
		if len(a.Levels) == 0 || a.Access <= 0 || a.Access > 336*time.Hour {
			t.Errorf("got %+v", a)
		}
		for _, l := range a.Levels {
			if l.Approvals < 1 || len(l.Approvers) == 0 {
				t.Errorf("a level that nobody decides: %+v", l)
			}
		}
		if again, err := document.ParseApproval("Doc", d.Content()); err != nil {
			t.Errorf("its own JSON does not parse: %v\n%s", err, d.Content())
		} else if diff := cmp.Diff(a, again.Approval); diff != "" {
			t.Errorf("its own JSON says something else:\n%s", diff)
		}
	})
}
