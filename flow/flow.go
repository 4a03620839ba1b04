package flow

import (
	"time"

	"sallyport.dev/internal/tags"
)

// Set is everything that flow files say, checked as a whole. It is immutable.
type Set struct {
	// Digest is the hex SHA-256 of the files that it was read from.
	Digest    string
	Flows     map[string]*Flow
	Schedules map[string]*Schedule
}

// Flow says who may ask for what, what the form asks, who decides and for how long.
type Flow struct {
	Name        string
	Label       string
	Description string

	Ask      People   // who may ask
	Channels []string // where one may ask and decide: cli, api, ssh, slack, web; empty for all
	Fields   []Field  // of the form; "reason" and "duration" are always among them
	Targets  []Target // what it gives; a request is for one or more of them
	Stages   []Stage  // in order; none only where Cedar or break-glass decides
	Clocks   Clocks
	Announce []Announce

	// Cedar is a policy of the flow: forbid prohibits asking, permit approves by itself.
	Cedar string
	// BreakGlass grants first and has the use reviewed afterwards; nil for other flows.
	BreakGlass *BreakGlass
	// WatchNotice says whether people are told of who watches the sessions that the flow's
	// grants give them; nil leaves that to the server.
	WatchNotice *bool `json:",omitempty"`
	// Code is the flow's Starlark; nil for none.
	Code *Code
}

// People selects persons: those that any of its members names.
type People struct {
	Everyone bool                `json:",omitempty"`
	Users    []string            `json:",omitempty"` // names
	Groups   []string            `json:",omitempty"` // names
	Tags     map[string][]string `json:",omitempty"` // every key, with one of its values
	OnCall   []string            `json:",omitempty"` // names of schedules
}

// Empty reports whether nobody is selected.
func (p People) Empty() bool {
	return !p.Everyone && len(p.Users)+len(p.Groups)+len(p.Tags)+len(p.OnCall) == 0
}

// FieldType is the type of a field of the form.
type FieldType string

// Types of fields. Values are text: integers in decimal, durations as 30m or 1h, booleans
// true or false, persons by name; lists have several.
const (
	FieldString     FieldType = "string"
	FieldStringList FieldType = "str_list"
	FieldInt        FieldType = "int"
	FieldIntList    FieldType = "int_list"
	FieldBool       FieldType = "bool"
	FieldDuration   FieldType = "duration"
	FieldPerson     FieldType = "person"
	FieldPersonList FieldType = "person_list"
)

// Names of the fields that every form has.
const (
	FieldReason = "reason"
	FieldTime   = "duration"
)

// Field is one question of the form.
type Field struct {
	Name     string
	Label    string
	Help     string
	Type     FieldType
	Required bool
	Default  []string
	Allowed  []string // the only values, if there are any
	Pattern  string   // regular expression that each value must match as a whole
	Message  string   // what is said where it does not; the pattern unless given
	Options  string   // name of a function of the code that gives the allowed values per person
}

// Values are what a form was filled with, by field.
type Values map[string][]string

// TargetKind says what a target gives.
type TargetKind string

// Kinds of targets.
const (
	TargetNodes         TargetKind = "nodes"
	TargetRole          TargetKind = "role"           // may be assumed, and its policies are the person's
	TargetGroup         TargetKind = "group"          // membership
	TargetPermissionSet TargetKind = "permission_set" // of IAM Identity Center, in AWS
	TargetAWSGroup      TargetKind = "aws_group"      // an IAM group in AWS
)

// Target is something that a flow gives. Of Nodes, Role, Group, PermissionSet and
// AWSGroup the one of its kind is set.
type Target struct {
	Name  string // unique within the flow
	Label string `json:",omitempty"`
	Kind  TargetKind

	Nodes         *Nodes         `json:",omitempty"`
	Role          string         `json:",omitempty"` // name
	Group         string         `json:",omitempty"` // name
	PermissionSet *PermissionSet `json:",omitempty"`
	AWSGroup      *AWSGroup      `json:",omitempty"`
}

// Nodes are nodes that sessions may be started on. A node is among them if one of IDs or
// Names is its own, where any are given, and if it has, of every key of Tags, one of the
// values.
type Nodes struct {
	IDs   []string            `json:",omitempty"`
	Names []string            `json:",omitempty"` // Name tags; * and ? as in IAM
	Tags  map[string][]string `json:",omitempty"`
	// Documents are the session documents that may be used, * and ? as in IAM; all that
	// open shells, run commands, forward ports and transfer files unless given.
	Documents []string `json:",omitempty"`
	// Login is the OS user that sessions are; the person's own or the node's default
	// unless given.
	Login string `json:",omitempty"`
	// Commands allows ssm:SendCommand with the same documents, too.
	Commands bool `json:",omitempty"`
}

// PermissionSet is an assignment in IAM Identity Center.
type PermissionSet struct {
	InstanceARN      string // of Identity Center
	PermissionSetARN string
	Account          string // twelve digits
	IdentityStore    string // id, d-…
	UserField        string // the person's attribute that is their user name there: "name" or "tag:KEY"
	Region           string
	Profile          string `json:",omitempty"` // of the server's AWS configuration
}

// AWSGroup is a group of IAM users in AWS.
type AWSGroup struct {
	Group     string
	UserField string // as in PermissionSet
	Profile   string `json:",omitempty"`
}

// Stage is one step of the decision. Distinct persons count.
type Stage struct {
	Name         string
	Approvals    int           // so many, at least 1
	Of           People        // who may decide
	Within       time.Duration // then Fallback, or else the request expires; 0 for the flow's pending clock
	Fallback     *Fallback     `json:",omitempty"`
	Remind       time.Duration // how often those who may decide are reminded; 0 for never
	Comment      Comment       `json:",omitempty"`
	AllowSelf    bool          `json:",omitempty"` // the requester counts, too
	SecondFactor bool          `json:",omitempty"` // deciders must have shown one lately
	Delegate     bool          `json:",omitempty"` // those who may decide may name somebody else
}

// Fallback adds people who may decide once a stage has lasted After.
type Fallback struct {
	After time.Duration
	Of    People
}

// Comment says when a decision needs a comment.
type Comment string

// When comments are required.
const (
	CommentNever  Comment = ""
	CommentAlways Comment = "required"
	CommentOnDeny Comment = "on_deny"
)

// Clocks are the durations of a flow.
type Clocks struct {
	Pending    time.Duration // how long a request waits to be decided
	ActivateBy time.Duration // how long what was approved waits for its first use; 0 activates it at approval
	Default    time.Duration // of a grant, where the form leaves it out
	Longest    time.Duration // of a grant, with its extensions
	Extension  time.Duration // how much longer one extension makes it
	Extensions int           // how many there may be
	// ExtendWithout asks nobody about extensions; otherwise the stages decide again.
	ExtendWithout bool
}

// Announce says what is told where, beside those who are concerned anyway.
type Announce struct {
	On      []string // kinds of events: requested, approved, denied, activated, …; empty for all
	Slack   []string // channels
	Email   []string // addresses
	Webhook []string // names of the server's webhooks
}

// BreakGlass is a flow that grants first.
type BreakGlass struct {
	Review       People        // who may close the review; never the requester
	ReviewWithin time.Duration // then it is announced as overdue
}

// Schedule says who is on call.
type Schedule struct {
	Name string
	// Source is pagerduty, opsgenie, ical, or rota (written in HCL).
	Source string
	// Settings of the source, as package oncall reads them.
	Settings map[string]string `json:",omitempty"`
	Rota     *Rota             `json:",omitempty"`
}

// Rota is a schedule written in HCL: People take turns of Shift from Start on.
type Rota struct {
	Start time.Time
	Shift time.Duration
	Users []string
	Zone  string   // IANA name; UTC unless given
	Hours string   // 09:00-17:00, in Zone; all day unless given
	Days  []string // mon … sun; every day unless given
}

// Person is who asks or decides, as flows and their code see them.
type Person struct {
	ID     string // unique id of the user
	Name   string
	ARN    string
	Groups []string // names
	Tags   tags.Tags
}

// Node is a node as flows and their code see it.
type Node struct {
	ID, Name string
	Tags     tags.Tags
}

// Facts are a request as a flow's code and Cedar policies see it.
type Facts struct {
	ID        string // empty before it is made
	Flow      string
	Person    Person
	Values    Values
	Reason    string
	Duration  time.Duration
	Targets   []Target
	Nodes     []Node // that were named; none where targets are asked for as a whole
	Channel   string
	Created   time.Time
	State     string
	Approvals []string // names of those who have approved
}
