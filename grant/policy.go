package grant

import (
	"encoding/json"
	"slices"
	"strings"

	"sallyport.dev/flow"
	"sallyport.dev/policy"
)

// What a grant is as policy. Each target makes statements of its own that bind node,
// document and login together: they hold for a node only with the target's documents
// and for a document only on the target's nodes, so that two grants do not mix.

// Condition keys of sessions (docs/policies.md).
const (
	keyNodeID        = "sallyport:NodeId"
	keyNodeName      = "sallyport:NodeName"
	keyDocument      = "sallyport:DocumentName"
	keyRunAs         = "sallyport:RunAsUser"
	keyDocumentCheck = "ssm:SessionDocumentAccessCheck"
)

// Documents are the session documents of a target that names none: those that open
// shells, run commands, forward ports and transfer files.
func Documents() []string {
	return []string{
		"SSM-SessionManagerRunShell", "AWS-StartInteractiveCommand", "AWS-StartNonInteractiveCommand",
		"AWS-StartPortForwardingSession", "AWS-StartPortForwardingSessionToRemoteHost",
		"AWS-StartPortForwardingSessionToSocket", "AWS-StartSSHSession",
		"Sallyport-FileTransfer", "Sallyport-StartPortForwardingSessionToNodeSocket",
	}
}

// statement is a statement of a policy as JSON.
type statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

type document struct {
	Version   string
	Statement []statement
}

// policies are a request's own policies: of its nodes, and the right to assume its roles.
func (e *Engine) policies(r Request) ([]policy.Source, error) {
	var statements []statement
	for _, t := range r.Frozen.Targets {
		switch t.Kind {
		case flow.TargetNodes:
			statements = append(statements, e.nodeStatements(t.Nodes, r.Frozen.Nodes)...)
		case flow.TargetRole:
			statements = append(statements, statement{
				Effect: "Allow", Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"},
				Resource: e.roleARNs(t.Role),
			})
		}
	}
	if len(statements) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(document{Version: "2012-10-17", Statement: statements})
	if err != nil {
		return nil, err
	}
	d, err := policy.Parse(text)
	if err != nil {
		return nil, err
	}
	return []policy.Source{{Kind: policy.Grant, Name: "grant " + r.ID + " of flow " + r.Frozen.Flow.Name, Document: d}}, nil
}

// roleARNs are the patterns of a role's ARN, whose path the flow does not say. Names of
// roles have no slash, so that no other role's ARN ends in this one's.
func (e *Engine) roleARNs(name string) []string {
	all := "arn:aws:iam::" + e.config.Realm.Account + ":role/"
	return []string{all + literal(name), all + "*/" + literal(name)}
}

// literal keeps text from being read as a pattern.
func literal(text string) string { return patternText.Replace(text) }

var patternText = strings.NewReplacer("${", "${$}{", "*", "${*}", "?", "${?}")

// escape keeps text from being read as a variable.
func escape(text string) string { return strings.ReplaceAll(text, "${", "${$}{") }

func escaped(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = escape(text)
	}
	return out
}

// nodeStatements are those of one target of nodes, narrowed to the nodes that were named.
func (e *Engine) nodeStatements(n *flow.Nodes, named []flow.Node) []statement {
	var all []statement
	for _, c := range choices(n, named) {
		conditions := c.conditions(n)
		documents := n.Documents
		if len(documents) == 0 {
			documents = Documents()
		}
		nodes := e.nodeARNs(c.ids)
		all = append(all, e.startStatement(n, conditions, nodes, documents))
		if n.Login != "" {
			all = append(all, statement{
				Effect: "Allow", Action: []string{"sallyport:RunAs"}, Resource: nodes,
				Condition: with(conditions, "StringEquals", keyRunAs, escape(n.Login)),
			})
		}
		if n.Commands {
			all = append(all, e.commandStatements(conditions, nodes, documents)...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return append(all, statement{
		Effect: "Allow", Action: []string{"ssm:ResumeSession", "ssm:TerminateSession"}, Resource: []string{"arn:aws:ssm:*:*:session/*"},
		Condition: map[string]map[string][]string{"StringEquals": {"ssm:resourceTag/aws:ssmmessages:session-id": {"${aws:userid}"}}},
	})
}

func (e *Engine) startStatement(n *flow.Nodes, conditions map[string]map[string][]string, nodes, documents []string) statement {
	conditions = with(conditions, "StringLike", keyDocument, escaped(documents)...)
	conditions = with(conditions, "Bool", keyDocumentCheck, "true")
	if n.Login != "" {
		conditions = with(conditions, "StringEqualsIfExists", keyRunAs, escape(n.Login))
	}
	return statement{
		Effect: "Allow", Action: []string{"ssm:StartSession"},
		Resource: append(slices.Clone(nodes), e.documentARNs(documents)...), Condition: conditions,
	}
}

// commandStatements allow commands: the document by itself, as one command may go to many
// nodes, and the nodes with that document.
func (e *Engine) commandStatements(conditions map[string]map[string][]string, nodes, documents []string) []statement {
	named := with(nil, "StringLike", keyDocument, escaped(documents)...)
	return []statement{
		{Effect: "Allow", Action: []string{"ssm:SendCommand"}, Resource: e.documentARNs(documents), Condition: named},
		{
			Effect: "Allow", Action: []string{"ssm:SendCommand"}, Resource: nodes,
			Condition: with(conditions, "StringLike", keyDocument, escaped(documents)...),
		},
	}
}

// choice is one way of being among a target's nodes.
type choice struct {
	ids   []string // none for any
	names []string // none for any
}

// choices are the ways of being among a target's nodes: by id or by name. Of nodes that
// were named in the request each stays in the way that it was in when it was asked for.
func choices(n *flow.Nodes, named []flow.Node) []choice {
	if n == nil || len(n.IDs)+len(n.Names)+len(n.Tags) == 0 {
		return nil // what selects nothing has nothing
	}
	if len(named) == 0 {
		return openChoices(n)
	}
	byID, byName := choice{}, choice{names: n.Names}
	for _, one := range named {
		if !n.Has(one) {
			continue
		}
		if len(n.Names) > 0 && !slices.Contains(n.IDs, one.ID) {
			byName.ids = append(byName.ids, one.ID)
		} else {
			byID.ids = append(byID.ids, one.ID)
		}
	}
	return slices.DeleteFunc([]choice{byID, byName}, func(c choice) bool { return len(c.ids) == 0 })
}

func openChoices(n *flow.Nodes) []choice {
	var all []choice
	if len(n.IDs) > 0 {
		all = append(all, choice{ids: n.IDs})
	}
	if len(n.Names) > 0 {
		all = append(all, choice{names: n.Names})
	}
	if len(all) == 0 {
		all = append(all, choice{}) // by tags alone
	}
	return all
}

// conditions are those on the node: its id, its name, its tags as they are at the time.
func (c choice) conditions(n *flow.Nodes) map[string]map[string][]string {
	var all map[string]map[string][]string
	if len(c.ids) > 0 {
		all = with(all, "StringEquals", keyNodeID, escaped(c.ids)...)
	}
	if len(c.names) > 0 {
		all = with(all, "StringLike", keyNodeName, escaped(c.names)...)
	}
	for key, values := range n.Tags {
		all = with(all, "ForAnyValue:StringEquals", "ssm:resourceTag/"+key, escaped(values)...)
	}
	return all
}

// with returns conditions with one more.
func with(conditions map[string]map[string][]string, operator, key string, values ...string) map[string]map[string][]string {
	all := map[string]map[string][]string{}
	for op, keys := range conditions {
		all[op] = map[string][]string{}
		for k, v := range keys {
			all[op][k] = v
		}
	}
	if all[operator] == nil {
		all[operator] = map[string][]string{}
	}
	all[operator][key] = values
	return all
}

// nodeARNs are the ARNs of nodes by their ids; of all nodes without any.
func (e *Engine) nodeARNs(ids []string) []string {
	realm := e.config.Realm
	if len(ids) == 0 {
		return []string{realm.Node("i-*"), realm.Node("mi-*")}
	}
	arns := make([]string, len(ids))
	for i, id := range ids {
		arns[i] = realm.Node(literal(id))
	}
	return arns
}

// documentARNs are the ARNs of documents by patterns of names. AWS's own have no account;
// a pattern that may be one of theirs stands for both.
func (e *Engine) documentARNs(names []string) []string {
	realm := e.config.Realm
	var arns []string
	for _, name := range names {
		arns = append(arns, "arn:aws:ssm:"+realm.Region+":"+realm.Account+":document/"+escape(name))
		if aws := realm.Document("AWS-"); strings.HasPrefix(name, "AWS-") || strings.ContainsAny(name, "*?") {
			arns = append(arns, strings.TrimSuffix(aws, "AWS-")+escape(name))
		}
	}
	return arns
}
