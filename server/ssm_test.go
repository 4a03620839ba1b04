package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/node"
)

func TestInstanceInformation(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.node(frontend1, identity.Tags{"Name": "frontend-1", "Team": "payments, search"})
	h.node(frontend2, identity.Tags{"Name": "frontend-2", "Team": "payments"})
	h.node(backend1, identity.Tags{"Name": "backend-1", "Team": "search"})
	h.must(h.store.UpdateNode(context.Background(), backend1, func(n *node.Node) error {
		n.Apply(node.Report{AgentVersion: "3.3.0.0", PlatformType: "Linux", IPAddress: "10.0.0.7"}, h.clock().Add(-time.Hour))
		return nil
	}))
	h.must(h.store.SetConnected(context.Background(), frontend1, "m1", h.clock()))
	filter := func(key string, values ...string) map[string]any {
		return map[string]any{"Filters": []map[string]any{{"Key": key, "Values": values}}}
	}
	old := func(key string, values ...string) map[string]any {
		return map[string]any{"InstanceInformationFilterList": []map[string]any{{"key": key, "valueSet": values}}}
	}
	for _, test := range []struct {
		name, code string
		in         map[string]any
		want       string
	}{
		{"all", "", map[string]any{}, backend1 + " " + frontend1 + " " + frontend2},
		{"by id", "", filter("InstanceIds", frontend1, "i-00000000000000000"), frontend1},
		{"by a value of several", "", filter("tag:Team", "search"), backend1 + " " + frontend1},
		{"by tag key", "", filter("tag-key", "Name"), backend1 + " " + frontend1 + " " + frontend2},
		{"online", "", filter("PingStatus", "Online"), frontend1},
		{"lost", "", old("PingStatus", "ConnectionLost"), backend1},
		{"kind", "", old("ResourceType", "ManagedInstance"), frontend2},
		{"platform", "", old("PlatformTypes", "Linux", "Windows"), backend1},
		{"unknown key", "InvalidFilterKey", filter("Colour", "red"), ""},
		{"not an id", "InvalidInstanceId", filter("InstanceIds", "web-1"), ""},
		{"page too small", "ValidationException", map[string]any{"MaxResults": 4}, ""},
		{"bad token", "InvalidNextToken", map[string]any{"NextToken": "x"}, ""},
		{"both kinds of filters", "ValidationException", map[string]any{
			"Filters":                       []map[string]any{{"Key": "PingStatus", "Values": []string{"Online"}}},
			"InstanceInformationFilterList": []map[string]any{{"key": "PingStatus", "valueSet": []string{"Online"}}}}, ""},
	} {
		got := h.json(admin, "AmazonSSM.DescribeInstanceInformation", test.in)
		var out instanceInformationOutput
		_ = json.Unmarshal([]byte(got.body), &out)
		var ids []string
		for _, n := range out.InstanceInformationList {
			ids = append(ids, n.InstanceID)
		}
		if got.code() != test.code || strings.Join(ids, " ") != test.want {
			t.Errorf("%s: got %s %v, want %s %s", test.name, got.code(), ids, test.code, test.want)
		}
	}
	got := h.json(admin, "AmazonSSM.DescribeInstanceProperties", map[string]any{"FiltersWithOperator": []map[string]any{
		{"Key": "AgentVersion", "Values": []string{"3.2.9.0"}, "Operator": "GreaterThan"}, {"Key": "DocumentName", "Values": []string{"AWS-StartSSHSession"}}}})
	if !strings.Contains(got.body, backend1) || strings.Contains(got.body, frontend1) {
		t.Errorf("properties: got %s", got.body)
	}
}

func TestPagesOfNodes(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	for i := range 12 {
		h.node(fmt.Sprintf("mi-%017x", i), identity.Tags{"Odd": fmt.Sprint(i % 2)})
	}
	seen, token := 0, ""
	for range 10 {
		in := map[string]any{"MaxResults": 5, "Filters": []map[string]any{{"Key": "tag:Odd", "Values": []string{"1"}}}}
		if token != "" {
			in["NextToken"] = token
		}
		var out instanceInformationOutput
		h.must(json.Unmarshal([]byte(h.json(admin, "AmazonSSM.DescribeInstanceInformation", in).body), &out))
		seen += len(out.InstanceInformationList)
		if token = out.NextToken; token == "" {
			break
		}
	}
	if seen != 6 || token != "" {
		t.Errorf("saw %d nodes, token %q; want 6 and none", seen, token)
	}
}

func TestActivations(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.node(backend1, nil)
	create := func(more map[string]any) answer {
		in := map[string]any{"IamRole": "nodes"}
		for k, v := range more {
			in[k] = v
		}
		return h.json(admin, "AmazonSSM.CreateActivation", in)
	}
	metadata := func(key, value string) map[string]any {
		return map[string]any{"RegistrationMetadata": []map[string]string{{"Key": key, "Value": value}}}
	}
	for _, test := range []struct {
		name string
		in   map[string]any
		code string
	}{
		{"plain", nil, ""},
		{"without a role", map[string]any{"IamRole": nil}, "ValidationException"},
		{"too many", map[string]any{"RegistrationLimit": 1001}, "ValidationException"},
		{"in the past", map[string]any{"ExpirationDate": h.clock().Add(-time.Hour).Unix()}, "InvalidParameters"},
		{"too far ahead", map[string]any{"ExpirationDate": h.clock().Add(31 * 24 * time.Hour).Unix()}, "InvalidParameters"},
		{"fixed ids", metadata("NodeIds", "i-0000000000000000a, mi-0000000000000000b"), ""},
		{"an id that is taken", metadata("NodeIds", backend1), "InvalidParameters"},
		{"no id", metadata("NodeIds", "web-1"), "InvalidParameters"},
		{"another key", metadata("Colour", "red"), "InvalidParameters"},
		{"a system tag", map[string]any{"Tags": []tag{{"aws:x", "y"}}}, "ValidationException"},
	} {
		if got := create(test.in); got.code() != test.code {
			t.Errorf("%s: got %s %s, want %q", test.name, got.code(), got.message(), test.code)
		}
	}
	var made createActivationOutput
	h.must(json.Unmarshal([]byte(create(nil).body), &made))
	if got := h.json(admin, "AmazonSSM.DescribeActivations", map[string]any{}); strings.Contains(got.body, made.ActivationCode) {
		t.Error("the code is listed")
	}
	h.json(admin, "AmazonSSM.DeleteActivation", map[string]string{"ActivationId": made.ActivationID})
	if got := h.register(newMachine(t).registration(made.ActivationID, made.ActivationCode)); got.code() != "InvalidActivation" {
		t.Errorf("deleted: got %s", got.body)
	}
	if got := h.json(admin, "AmazonSSM.DeleteActivation", map[string]string{"ActivationId": made.ActivationID}); got.code() != "InvalidActivation" {
		t.Errorf("deleting again: got %s", got.body)
	}
}

// Who may enrol nodes of a team gives them no other team's tags, and no other node's
// id.
func TestEnrollingWithinATeam(t *testing.T) {
	h := newHarness(t)
	lead := h.user("lead", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:CreateActivation","Resource":["arn:aws:ec2:*:*:instance/i-0000000000000000a"],"Condition":{"StringEquals":{"aws:RequestTag/Team":"payments"}}}]}`)
	create := func(id, team string) string {
		return h.json(lead, "AmazonSSM.CreateActivation", map[string]any{"IamRole": "nodes", "Tags": []tag{{"Team", team}},
			"RegistrationMetadata": []map[string]string{{"Key": "NodeIds", "Value": id}}}).code()
	}
	for _, test := range []struct{ id, team, code string }{
		{"i-0000000000000000a", "payments", ""},
		{"i-0000000000000000a", "search", "AccessDeniedException"},
		{"i-0000000000000000b", "payments", "AccessDeniedException"},
	} {
		if got := create(test.id, test.team); got != test.code {
			t.Errorf("%s for %s: got %s, want %q", test.id, test.team, got, test.code)
		}
	}
}

// Tags give access, so that whoever may set them is decided by the tags that are
// there, by those that are asked for, and by their keys in whatever case.
func TestTagging(t *testing.T) {
	h := newHarness(t)
	h.node(frontend1, identity.Tags{"Team": "payments"})
	h.node(backend1, identity.Tags{"Team": "search"})
	admin := h.user("admin", nil, allowAll)
	lead := h.user("lead", nil, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["ssm:AddTagsToResource","ssm:RemoveTagsFromResource","ec2:CreateTags","ec2:DeleteTags"],"Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/Team":"payments"}}},
		{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"ForAnyValue:StringEquals":{"aws:TagKeys":"Team"}}}]}`)
	add := func(c identity.Credentials, id, key, value string) string {
		return h.json(c, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": id, "Tags": []tag{{key, value}}}).code()
	}
	remove := func(c identity.Credentials, id string, keys ...string) string {
		return h.json(c, "AmazonSSM.RemoveTagsFromResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": id, "TagKeys": keys}).code()
	}
	for _, test := range []struct{ name, got, want string }{
		{"own node", add(lead, frontend1, "Name", "web"), ""},
		{"another's node", add(lead, backend1, "Name", "web"), "AccessDeniedException"},
		{"the tag that decides", add(lead, frontend1, "Team", "search"), "AccessDeniedException"},
		{"the same in another case", add(lead, frontend1, "team", "search"), "ValidationException"},
		{"removing what decides", remove(lead, frontend1, "Team"), "AccessDeniedException"},
		{"removing it in another case", remove(lead, frontend1, "team"), ""}, // touches nothing
		{"EC2: another's node beside one's own", h.query(lead, "ec2", "CreateTags", "ResourceId.1", frontend1, "ResourceId.2", backend1, "Tag.1.Key", "Name", "Tag.1.Value", "x").code(), "UnauthorizedOperation"},
		{"EC2: deleting all tags", h.query(lead, "ec2", "DeleteTags", "ResourceId.1", frontend1).code(), "UnauthorizedOperation"},
		{"EC2: a dry run", h.query(lead, "ec2", "CreateTags", "ResourceId.1", frontend1, "Tag.1.Key", "A", "Tag.1.Value", "x", "DryRun", "true").code(), "DryRunOperation"},
		{"a system tag", add(admin, frontend1, "AWS:x", "y"), "ValidationException"},
		{"an unknown node", add(admin, "i-00000000000000000", "a", "y"), "InvalidResourceId"},
		{"no id at all", add(admin, "../nodes", "a", "y"), "InvalidResourceId"},
		{"a value too long", add(admin, frontend1, "a", strings.Repeat("x", 257)), "ValidationException"},
		{"a value for terminals", add(admin, frontend1, "a", "\x1b[31m"), "ValidationException"},
		{"another kind", h.json(admin, "AmazonSSM.ListTagsForResource", map[string]string{"ResourceType": "Parameter", "ResourceId": "x"}).code(), "InvalidResourceType"},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, test.got, test.want)
		}
	}
	n, err := h.store.Node(context.Background(), frontend1)
	h.must(err)
	if n.Tags["Team"] != "payments" || n.Tags["Name"] != "web" || len(n.Tags) != 2 {
		t.Errorf("tags: %v", n.Tags)
	}
	var many []tag
	for i := range 49 {
		many = append(many, tag{fmt.Sprint("k", i), "v"})
	}
	if got := h.json(admin, "AmazonSSM.AddTagsToResource", map[string]any{"ResourceType": "ManagedInstance", "ResourceId": frontend1, "Tags": many}); got.code() != "TooManyTagsError" {
		t.Errorf("51 tags: got %s", got.body)
	}
}

func TestInstancesOfEC2(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.node(frontend1, identity.Tags{"Name": "frontend-1"})
	h.node(backend1, identity.Tags{"Name": "backend-1"})
	h.must(h.store.SetConnected(context.Background(), frontend1, "m1", h.clock()))
	for _, test := range []struct {
		name   string
		fields []string
		code   string
		ids    []string
	}{
		{"all", nil, "", []string{frontend1, backend1}},
		{"by name", []string{"Filter.1.Name", "tag:Name", "Filter.1.Value.1", "front*", "Filter.1.Value.2", "x"}, "", []string{frontend1}},
		{"running", []string{"Filter.1.Name", "instance-state-name", "Filter.1.Value.1", "running"}, "", []string{frontend1}},
		{"by id", []string{"InstanceId.1", backend1}, "", []string{backend1}},
		{"both filters", []string{"Filter.1.Name", "tag:Name", "Filter.1.Value.1", "*", "Filter.2.Name", "instance-id", "Filter.2.Value.1", "i-05*"}, "", []string{backend1}},
		{"unknown id", []string{"InstanceId.1", "i-00000000000000000"}, "InvalidInstanceID.NotFound", nil},
		{"malformed id", []string{"InstanceId.1", "web"}, "InvalidInstanceID.Malformed", nil},
		{"unknown filter", []string{"Filter.1.Name", "colour", "Filter.1.Value.1", "x"}, "InvalidParameterValue", nil},
		{"id and page", []string{"InstanceId.1", backend1, "MaxResults", "5"}, "InvalidParameterCombination", nil},
		{"dry run", []string{"DryRun", "true"}, "DryRunOperation", nil},
	} {
		got := h.query(admin, "ec2", "DescribeInstances", test.fields...)
		if got.code() != test.code {
			t.Errorf("%s: got %s, want %q", test.name, got.body, test.code)
		}
		if n := strings.Count(got.body, "<instanceId>"); n != len(test.ids) {
			t.Errorf("%s: got %d instances, want %v", test.name, n, test.ids)
		}
		for _, id := range test.ids {
			if !strings.Contains(got.body, "<instanceId>"+id+"</instanceId>") {
				t.Errorf("%s: %s is missing", test.name, id)
			}
		}
	}
	nobody := h.user("nobody", nil)
	if got := h.query(nobody, "ec2", "DescribeInstances", "DryRun", "true"); got.code() != "UnauthorizedOperation" {
		t.Errorf("dry run without a right: got %s", got.body)
	}
}

func TestDocuments(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	reader := h.user("reader", nil, allow("ssm:GetDocument", "arn:aws:ssm:us-east-1:111111111111:document/Mine", ""))
	const session = `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":"%d"}}`
	content := func(minutes int) string { return fmt.Sprintf(session, minutes) }
	for _, test := range []struct {
		name, operation string
		who             identity.Credentials
		in              map[string]any
		code, want      string
	}{
		{"create", "CreateDocument", admin, map[string]any{"Name": "Mine", "DocumentType": "Session", "Content": content(5), "VersionName": "one"}, "", `"SchemaVersion":"1.0"`},
		{"create again", "CreateDocument", admin, map[string]any{"Name": "Mine", "Content": content(5)}, "DocumentAlreadyExists", "Mine"},
		{"a name of AWS", "CreateDocument", admin, map[string]any{"Name": "AWS-Mine", "Content": content(5)}, "ValidationException", "aws"},
		{"a name of ours", "CreateDocument", admin, map[string]any{"Name": "Sallyport-FileTransfer", "Content": content(5)}, "ValidationException", "sallyport"},
		{"preferences that are none", "CreateDocument", admin, map[string]any{"Name": "SSM-SessionManagerRunShell", "Content": `{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"22"}}`}, "InvalidDocumentContent", "Standard_Stream"},
		{"not a document", "CreateDocument", admin, map[string]any{"Name": "Bad", "Content": "[]"}, "InvalidDocumentContent", "object"},
		{"an unknown schema", "CreateDocument", admin, map[string]any{"Name": "Bad", "Content": `{"schemaVersion":"9"}`}, "InvalidDocumentSchemaVersion", "schemaVersion"},
		{"the wrong type", "CreateDocument", admin, map[string]any{"Name": "Bad", "DocumentType": "Command", "Content": content(5)}, "InvalidDocumentContent", "Session"},
		{"too large", "CreateDocument", admin, map[string]any{"Name": "Bad", "Content": strings.Repeat(" ", 70_000)}, "MaxDocumentSizeExceeded", "65536"},
		{"YAML called JSON", "CreateDocument", admin, map[string]any{"Name": "Bad", "Content": "schemaVersion: '1.0'\nsessionType: Standard_Stream\n"}, "InvalidDocumentContent", "YAML"},
		{"the same content", "UpdateDocument", admin, map[string]any{"Name": "Mine", "Content": content(5), "DocumentVersion": "$LATEST"}, "DuplicateDocumentContent", ""},
		{"a second version", "UpdateDocument", admin, map[string]any{"Name": "Mine", "Content": content(6), "VersionName": "two"}, "", `"DocumentVersion":"2"`},
		{"a version name again", "UpdateDocument", admin, map[string]any{"Name": "Mine", "Content": content(7), "VersionName": "two"}, "DuplicateDocumentVersionName", ""},
		{"from an old version", "UpdateDocument", admin, map[string]any{"Name": "Mine", "Content": content(7), "DocumentVersion": "1"}, "InvalidDocumentVersion", "latest"},
		{"of AWS", "UpdateDocument", admin, map[string]any{"Name": "AWS-StartSSHSession", "Content": content(7)}, "InvalidDocumentOperation", ""},
		{"the default", "GetDocument", reader, map[string]any{"Name": "Mine"}, "", `"VersionName":"one"`},
		{"the latest, by ARN", "GetDocument", reader, map[string]any{"Name": "arn:aws:ssm:us-east-1:111111111111:document/Mine", "DocumentVersion": "$LATEST"}, "", `"VersionName":"two"`},
		{"by version name, in YAML", "GetDocument", reader, map[string]any{"Name": "Mine", "VersionName": "two", "DocumentFormat": "YAML"}, "", `sessionType: Standard_Stream`},
		{"no such version", "GetDocument", reader, map[string]any{"Name": "Mine", "DocumentVersion": "9"}, "InvalidDocumentVersion", ""},
		{"without a right", "GetDocument", reader, map[string]any{"Name": "AWS-StartSSHSession"}, "AccessDeniedException", "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession"},
		{"unknown", "DescribeDocument", admin, map[string]any{"Name": "None"}, "InvalidDocument", "None"},
		{"built in", "DescribeDocument", admin, map[string]any{"Name": "AWS-StartPortForwardingSession"}, "", `"Owner":"Amazon"`},
		{"the newest version", "ListDocumentVersions", admin, map[string]any{"Name": "Mine", "MaxResults": 1}, "", `{"DocumentVersions":[{"Name":"Mine","DocumentVersion":"2","VersionName":"two",`},
		{"all versions", "ListDocumentVersions", admin, map[string]any{"Name": "Mine"}, "", `"DocumentVersion":"1","VersionName":"one"`},
		{"versions of AWS's", "ListDocumentVersions", admin, map[string]any{"Name": "AWS-StartSSHSession"}, "", `"IsDefaultVersion":true`},
		{"versions without a right", "ListDocumentVersions", reader, map[string]any{"Name": "Mine"}, "AccessDeniedException", "ssm:ListDocumentVersions"},
		{"make default", "UpdateDocumentDefaultVersion", admin, map[string]any{"Name": "Mine", "DocumentVersion": "2"}, "", `"DefaultVersion":"2"`},
		{"delete the default version", "DeleteDocument", admin, map[string]any{"Name": "Mine", "DocumentVersion": "2"}, "InvalidDocumentOperation", ""},
		{"delete a version", "DeleteDocument", admin, map[string]any{"Name": "Mine", "DocumentVersion": "1"}, "", ""},
		{"list own", "ListDocuments", admin, map[string]any{"Filters": []map[string]any{{"Key": "Owner", "Values": []string{"Self"}}, {"Key": "DocumentType", "Values": []string{"Session"}}}}, "", `"Name":"Mine"`},
		{"list by an unknown key", "ListDocuments", admin, map[string]any{"Filters": []map[string]any{{"Key": "Colour", "Values": []string{"red"}}}}, "InvalidFilterKey", "Colour"},
		{"delete", "DeleteDocument", admin, map[string]any{"Name": "Mine"}, "", ""},
		{"delete again", "DeleteDocument", admin, map[string]any{"Name": "Mine"}, "InvalidDocument", ""},
	} {
		got := h.json(test.who, "AmazonSSM."+test.operation, test.in)
		if got.code() != test.code || !strings.Contains(got.body, test.want) {
			t.Errorf("%s: got %s %s, want %q with %s", test.name, got.code(), got.body, test.code, test.want)
		}
	}
}
