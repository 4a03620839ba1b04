package server

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/identity"
)

// A tag with several values is allowed only if each of them is, by every service that
// sets tags.
func TestTagsWithSeveralValues(t *testing.T) {
	const allowRed = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*",
		"Condition":{"StringEquals":{"aws:RequestTag/Team":["red","green"]}}}]}`
	const denyBlue = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*"},
		{"Effect":"Deny","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/Team":"blue"}}}]}`
	const denyBlueProd = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*"},
		{"Effect":"Deny","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/Team":"blue","aws:RequestTag/Env":"prod"}}}]}`
	const onlyRed = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*"},
		{"Effect":"Deny","Action":["iam:*","ssm:*","ec2:*"],"Resource":"*","Condition":{"StringNotEquals":{"aws:RequestTag/Team":["red","green"]}}}]}`
	for _, test := range []struct {
		name, policy, team, env string
		allowed                 bool
	}{
		{"allow-list", allowRed, "red", "dev", true},
		{"allow-list", allowRed, "red,green", "dev", true},
		{"allow-list", allowRed, "red, green", "dev", true},
		{"allow-list", allowRed, "blue", "dev", false},
		{"allow-list", allowRed, "red,blue", "dev", false},
		{"allow-list", allowRed, "blue,red", "dev", false},
		{"allow-list", allowRed, "red,", "dev", false},
		{"deny-list", denyBlue, "red", "dev", true},
		{"deny-list", denyBlue, "red,green", "dev", true},
		{"deny-list", denyBlue, "blue", "dev", false},
		{"deny-list", denyBlue, "red,blue", "dev", false},
		{"deny-list", denyBlue, "red, blue", "dev", false},
		{"deny-list of two tags", denyBlueProd, "red,blue", "dev", true},
		{"deny-list of two tags", denyBlueProd, "red,blue", "dev,prod", false},
		{"deny-list of two tags", denyBlueProd, "blue,red", "dev,prod", false},
		{"deny of all others", onlyRed, "red,green", "dev", true},
		{"deny of all others", onlyRed, "red,blue", "dev", false},
		{"too many values", denyBlue, strings.Repeat("a,", 20), strings.Repeat("a,", 20), false},
	} {
		t.Run(test.name+" "+test.team+" "+test.env, func(t *testing.T) {
			h := newHarness(t)
			h.node(channelNode, nil)
			h.user("bob", nil)
			who := h.user("tagger", nil, test.policy)
			tags := []map[string]string{{"Key": "Team", "Value": test.team}, {"Key": "Env", "Value": test.env}}
			form := func(prefix string, more ...string) []string {
				return append(more, prefix+"1.Key", "Team", prefix+"1.Value", test.team, prefix+"2.Key", "Env", prefix+"2.Value", test.env)
			}
			for name, got := range map[string]answer{
				"iam:TagUser":           h.query(who, "iam", "TagUser", form("Tags.member.", "UserName", "bob")...),
				"ec2:CreateTags":        h.query(who, "ec2", "CreateTags", form("Tag.", "ResourceId.1", channelNode)...),
				"ssm:AddTagsToResource": h.json(who, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": channelNode, "Tags": tags}),
				"ssm:CreateActivation":  h.json(who, "AmazonSSM.CreateActivation", map[string]any{"IamRole": "x", "Tags": tags}),
				"iam:CreateUser":        h.query(who, "iam", "CreateUser", form("Tags.member.", "UserName", "carl")...),
			} {
				if refused := strings.Contains(got.message(), "not authorized"); refused == test.allowed || got.status == 200 != test.allowed {
					t.Errorf("%s: got %d %s, want allowed %v", name, got.status, got.body, test.allowed)
				}
			}
		})
	}
}

// A session tag whose key differs from the role's only in case does not become a
// second value of it: policies, whose keys ignore case, would see both.
func TestSessionTagsThatDifferInCase(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	h.role("First", trustAccount, allowAll)
	h.role("Tagged", trustAccount, allowAll)
	tagRole := func(role, key, value string) {
		t.Helper()
		h.must(h.store.UpdateRole(context.Background(), role, func(r *identity.Role) error {
			r.Tags = identity.Tags{key: value}
			return nil
		}))
	}
	tagRole("Tagged", "Team", "search")
	assume := func(c identity.Credentials, role, key string, more ...string) answer {
		fields := append([]string{"RoleArn", "arn:aws:iam::111111111111:role/" + role, "RoleSessionName", "alice"}, more...)
		if key != "" {
			fields = append(fields, "Tags.member.1.Key", key, "Tags.member.1.Value", "payments")
		}
		return h.query(c, "sts", "AssumeRole", fields...)
	}
	transitive := assume(alice, "First", "team", "TransitiveTagKeys.member.1", "team").credentials()
	for _, test := range []struct {
		name string
		got  answer
		code string
	}{
		{"the same key", assume(alice, "Tagged", "Team"), ""},
		{"another key", assume(alice, "Tagged", "Ticket"), ""},
		{"a key in another case", assume(alice, "Tagged", "team"), "InvalidParameterValue"},
		{"a transitive key in another case", assume(transitive, "Tagged", ""), "InvalidParameterValue"},
		{"a transitive key in another case, set again", assume(transitive, "Tagged", "Team"), "InvalidParameterValue"},
	} {
		if test.got.code() != test.code {
			t.Errorf("%s: got %d %s, want code %q", test.name, test.got.status, test.got.body, test.code)
		}
	}
	c := assume(alice, "First", "team").credentials()
	tagRole("First", "TEAM", "search")
	if diff := cmp.Diff(identity.Tags{"team": "payments"}, h.principal(c).Tags); diff != "" {
		t.Errorf("a role tagged later (-want +got):\n%s", diff)
	}
}
