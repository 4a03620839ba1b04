package document

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Types of documents that say who gets access just in time.
const (
	TypeManualApproval = "ManualApprovalPolicy" // who approves; JSON or YAML, see Approval
	TypeAutoApproval   = "AutoApprovalPolicy"   // what approves itself; Cedar
)

// Names that documents of TypeAutoApproval have: there is one of each.
const (
	AutoApproval = "SSM-JustInTimeAccessAutoApprovalPolicy"
	DenyAccess   = "SSM-JustInTimeAccessDenyAccessOrgPolicy"
)

// Bounds of what AWS's console offers for manual approval.
const (
	maxLevels    = 5
	maxApprovers = 5               // of a level
	maxAccess    = 336 * time.Hour // two weeks
	maxSelectors = 50              // of targets
	maxValues    = 50              // of one
)

// Approval is what a document of TypeManualApproval says.
//
// AWS does not publish how its console writes these documents. What its guide says of
// them is all here, by the names that SSM uses elsewhere for the same: targets as in
// SendCommand, approvers as in Change Manager. docs/approval-documents.md has the rest.
type Approval struct {
	Access     time.Duration // how long access lasts, at most
	Targets    []Selector    // any of them; none for all nodes
	Levels     []Level       // in order
	Requesters []Named       // ours: who may ask; none for everybody
	Documents  []string      // ours: session documents, * and ? as in IAM; none for the usual ones
	Login      string        // ours: the OS user of sessions
}

// Selector selects the nodes that have one of the values of a tag.
type Selector struct {
	Tag    string
	Values []string
}

// Level is one step of the decision: so many approvals of different people.
type Level struct {
	Approvals int
	Approvers []Named
}

// Named is a user or a group by its name. Kind is user, group, or empty where the
// document does not tell; Account is that of an ARN, twelve digits.
type Named struct{ Kind, Name, Account string }

// String gives the name as documents write it.
func (n Named) String() string {
	if n.Kind == "" {
		return n.Name
	}
	return n.Kind + "/" + n.Name
}

// Opaque returns a document whose text others understand.
func Opaque(name, kind, content string) *Document {
	return &Document{Name: name, Type: kind, SchemaVersion: "1.0", content: content}
}

// ParseApproval reads a document of TypeManualApproval, in JSON or YAML. Errors are of
// type *Error.
func ParseApproval(name string, b []byte) (*Document, error) {
	root, err := parseTree(b)
	if err == nil {
		err = checkCharacters(root, "")
	}
	d := &Document{Name: name, Type: TypeManualApproval, SchemaVersion: "1.0", root: root, Approval: &Approval{}}
	if err == nil {
		err = d.Approval.read(root)
	}
	if err != nil {
		return nil, named(err, name)
	}
	if n := root.field("description"); n != nil {
		d.Description = n.text
	}
	return d, nil
}

func named(err error, name string) error {
	if e, ok := err.(*Error); ok {
		e.Document = name
		return e
	}
	return fmt.Errorf("document %q: %w", name, err)
}

func (a *Approval) read(root *node) error {
	if root.kind != kindObject {
		return root.fault("", "a document is an object, not %s", root.kind)
	}
	err := object(root, "", map[string]rule{
		"schemaVersion": a.version, "description": text,
		"accessDuration": a.duration, "targets": a.targets,
		"approvalLevels": a.levels, "approvers": a.oneLevel,
		"requesters": a.requesters, "documents": a.documents, "login": a.login,
	})
	if err != nil {
		return err
	}
	if root.field("approvalLevels") != nil && root.field("approvers") != nil {
		return root.field("approvers").fault("approvers", "excludes approvalLevels: it is a single level")
	}
	if len(a.Levels) == 0 {
		return root.fault("approvalLevels", "is missing: 1 to %d levels, each with its approvers", maxLevels)
	}
	return required(root, "", "schemaVersion", "accessDuration")
}

func (a *Approval) version(n *node, path string) error {
	if err := text(n, path); err != nil {
		return err
	}
	if n.text != "1.0" {
		return n.fault(path, `must be "1.0"`)
	}
	return nil
}

var isoHours = regexp.MustCompile(`^PT([0-9]{1,3})H$`)

// duration accepts hours as a number, or PT4H.
func (a *Approval) duration(n *node, path string) error {
	digits := n.text
	if m := isoHours.FindStringSubmatch(n.text); m != nil && n.kind == kindText {
		digits = m[1]
	}
	h, err := strconv.Atoi(digits)
	if (n.kind != kindNumber && n.kind != kindText) || err != nil || h < 1 || time.Duration(h)*time.Hour > maxAccess {
		return n.fault(path, "must be a number of hours from 1 to %d, or PT1H to PT%dH", maxAccess/time.Hour, maxAccess/time.Hour)
	}
	a.Access = time.Duration(h) * time.Hour
	return nil
}

// either finds a field by one of its spellings.
func either(n *node, keys ...string) *node {
	for _, key := range keys {
		if v := n.field(key); v != nil {
			return v
		}
	}
	return nil
}

func (a *Approval) targets(n *node, path string) error {
	if err := list(n, path, 1, maxSelectors); err != nil {
		return err
	}
	all := false
	for i, item := range n.items {
		s, everything, err := selector(item, indexed(path, i))
		if err != nil {
			return err
		}
		all = all || everything
		if slices.ContainsFunc(a.Targets, func(o Selector) bool { return o.Tag == s.Tag }) {
			return item.fault(indexed(path, i), "tag %q is targeted above; give its values together", s.Tag)
		}
		a.Targets = append(a.Targets, s)
	}
	if all && len(n.items) > 1 {
		return n.fault(path, "all nodes and tags exclude each other: one document is for all nodes, others for tags")
	}
	if all {
		a.Targets = nil
	}
	return nil
}

var tagKey = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,128}$`)

// selector reads {"Key": "tag:KEY", "Values": [...]}; InstanceIds with the value * are
// all nodes.
func selector(n *node, path string) (s Selector, all bool, err error) {
	if err := object(n, path, map[string]rule{"Key": text, "key": text, "Values": someTexts(1, maxValues), "values": someTexts(1, maxValues)}); err != nil {
		return s, false, err
	}
	key, values := either(n, "Key", "key"), either(n, "Values", "values")
	if key == nil || values == nil {
		return s, false, n.fault(path, "needs Key and Values")
	}
	tag, isTag := strings.CutPrefix(key.text, "tag:")
	if !isTag {
		if key.text == "InstanceIds" && len(values.items) == 1 && values.items[0].text == "*" {
			return s, true, nil
		}
		return s, false, key.fault(path+".Key", "must be tag:KEY, or InstanceIds with the one value * for all nodes")
	}
	if !tagKey.MatchString(tag) {
		return s, false, key.fault(path+".Key", "%q is no tag key", tag)
	}
	for _, v := range values.items {
		// A value with commas stands for several, and none of them is that.
		if strings.Contains(v.text, ",") {
			return s, false, v.fault(path+".Values", "values have no commas; give each by itself")
		}
	}
	return Selector{tag, values.strings()}, false, nil
}

func (n *node) strings() []string {
	var all []string
	for _, item := range n.items {
		all = append(all, item.text)
	}
	return all
}

// list accepts a list of so many entries.
func list(n *node, path string, least, most int) error {
	if n.kind != kindList || len(n.items) < least || len(n.items) > most {
		return n.fault(path, "must be a list of %d to %d entries", least, most)
	}
	return nil
}

// someTexts accepts a list of strings, each once.
func someTexts(least, most int) rule {
	return func(n *node, path string) error {
		if err := list(n, path, least, most); err != nil {
			return err
		}
		seen := map[string]bool{}
		for i, item := range n.items {
			if err := text(item, indexed(path, i)); err != nil {
				return err
			}
			if item.text == "" || len(item.text) > 256 || seen[item.text] {
				return item.fault(indexed(path, i), "must be 1 to 256 characters, and none twice")
			}
			seen[item.text] = true
		}
		return nil
	}
}

func (a *Approval) levels(n *node, path string) error {
	if err := list(n, path, 1, maxLevels); err != nil {
		return err
	}
	for i, item := range n.items {
		level, err := oneOfLevels(item, indexed(path, i), i+1)
		if err != nil {
			return err
		}
		a.Levels = append(a.Levels, level)
	}
	return nil
}

func oneOfLevels(n *node, path string, number int) (l Level, err error) {
	inner := 0
	least := func(n *node, path string) error { l.Approvals, err = count(n, path); return err }
	in := func(n *node, path string) (err error) {
		l.Approvers, inner, err = approvers(n, path)
		return err
	}
	nth := func(n *node, path string) error {
		if n.text != strconv.Itoa(number) {
			return n.fault(path, "must be %d: levels are given in order", number)
		}
		return nil
	}
	if err := object(n, path, map[string]rule{"level": nth, "minRequiredApprovals": least, "approvers": in}); err != nil {
		return l, err
	}
	if err := required(n, path, "approvers"); err != nil {
		return l, err
	}
	l.Approvals = max(1, l.Approvals, inner)
	return l, l.enough(n, path)
}

// enough refuses a level that nobody could ever pass.
func (l Level) enough(n *node, path string) error {
	group := slices.ContainsFunc(l.Approvers, func(a Named) bool { return a.Kind != "user" })
	if !group && l.Approvals > len(l.Approvers) {
		return n.fault(path, "demands %d approvals of %d users", l.Approvals, len(l.Approvers))
	}
	return nil
}

func count(n *node, path string) (int, error) {
	c, err := strconv.Atoi(n.text)
	if (n.kind != kindNumber && n.kind != kindText) || err != nil || c < 1 || c > maxApprovers {
		return 0, n.fault(path, "must be a number from 1 to %d", maxApprovers)
	}
	return c, nil
}

// oneLevel reads approvers without levels: one level, of which each approver may say how
// many approvals they want.
func (a *Approval) oneLevel(n *node, path string) error {
	who, least, err := approvers(n, path)
	if err != nil {
		return err
	}
	l := Level{Approvals: max(1, least), Approvers: who}
	a.Levels = []Level{l}
	return l.enough(n, path)
}

// approvers reads the approvers of a level, and the most approvals that any of them wants;
// 0 where none says.
func approvers(n *node, path string) (who []Named, least int, err error) {
	who, err = people(n, path, maxApprovers, map[string]rule{"minRequiredApprovals": func(n *node, path string) error {
		c, err := count(n, path)
		least = max(least, c)
		return err
	}})
	return who, least, err
}

// people reads names of users and groups, which may have more fields than others.
func people(n *node, path string, most int, more map[string]rule) ([]Named, error) {
	if err := list(n, path, 1, most); err != nil {
		return nil, err
	}
	var all []Named
	for i, item := range n.items {
		one, err := approver(item, indexed(path, i), more)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, one) {
			return nil, item.fault(indexed(path, i), "%s is named twice", one)
		}
		all = append(all, one)
	}
	return all, nil
}

func (a *Approval) requesters(n *node, path string) (err error) {
	a.Requesters, err = people(n, path, maxSelectors, nil)
	return err
}

func (a *Approval) documents(n *node, path string) error {
	if err := someTexts(1, maxValues)(n, path); err != nil {
		return err
	}
	a.Documents = n.strings()
	for _, v := range n.items {
		if !documentPattern.MatchString(v.text) {
			return v.fault(path, "must be names of session documents, * and ? as in policies")
		}
	}
	return nil
}

var (
	documentPattern = regexp.MustCompile(`^[a-zA-Z0-9_\-.*?]{1,128}$`)
	loginPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}[$]?$`)
)

func (a *Approval) login(n *node, path string) error {
	if err := text(n, path); err != nil {
		return err
	}
	if !loginPattern.MatchString(n.text) {
		return n.fault(path, "must be the name of an OS user")
	}
	a.Login = n.text
	return nil
}

// approver reads a name, alone or as {"approver": NAME, "type": "IamUser"}.
func approver(n *node, path string, more map[string]rule) (Named, error) {
	if n.kind == kindText {
		return approverNamed(n, n.text, path)
	}
	kinds := oneOf("IamUser", "IamGroup")
	fields := map[string]rule{"approver": text, "approverType": kinds, "type": kinds}
	maps.Copy(fields, more)
	if t := either(n, "type", "approverType"); t != nil && (t.text == "IamRole" || t.text == "SsoUser" || t.text == "SsoGroup") {
		return Named{}, t.fault(path, "%s: %s", t.text, onlyPeople)
	}
	if err := object(n, path, fields); err != nil {
		return Named{}, err
	}
	if err := required(n, path, "approver"); err != nil {
		return Named{}, err
	}
	who, err := approverNamed(n.field("approver"), n.field("approver").text, path)
	if err != nil {
		return who, err
	}
	if t := either(n, "type", "approverType"); t != nil {
		kind := strings.ToLower(strings.TrimPrefix(t.text, "Iam"))
		if who.Kind != "" && who.Kind != kind {
			return who, t.fault(path, "%s is not of type %s", n.field("approver").text, t.text)
		}
		who.Kind = kind
	}
	return who, nil
}

// onlyPeople explains why roles and Identity Center ids are refused.
const onlyPeople = "approvers are users and groups of this server, by name or ARN (user/NAME, group/NAME, arn:aws:iam::ACCOUNT:user/NAME). " +
	"A role is whoever may assume it, and ids of IAM Identity Center are not known here"

var (
	iamARN    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}):(user|group)(/.*)?/([\w+=,.@-]{1,128})$`)
	iamPerson = regexp.MustCompile(`^(?:(user|group)/)?([\w+=,.@-]{1,128})$`)
	ssoID     = regexp.MustCompile(`^([0-9a-f]{10}-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

func approverNamed(n *node, name, path string) (Named, error) {
	if m := iamARN.FindStringSubmatch(name); m != nil {
		return Named{m[2], m[4], m[1]}, nil
	}
	m := iamPerson.FindStringSubmatch(name)
	if m == nil || ssoID.MatchString(strings.ToLower(name)) {
		return Named{}, n.fault(path, "%q: %s", name, onlyPeople)
	}
	return Named{Kind: m[1], Name: m[2]}, nil
}
