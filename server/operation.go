package server

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/identity"
)

// Operations and their shapes.
//
// An operation is one row of a table (see table.go), made by op from typed functions
// that stand in the file of its service. Shapes are plain structs beside them:
//
//	type startSessionInput struct {
//		Target     string              `json:"Target" check:"required,min=1,max=400"`
//		Parameters map[string][]string `json:"Parameters" keys:"min=1,max=255" each:"min=1,max=65535"`
//	}
//
// A member's name, in JSON and in the forms of AWS Query, is its json name. In forms
// a list is Name.member.1 (iam, sts) or Name.1 (ec2), and nested structs are joined
// by dots. Input members may be string, bool, integers, floats, wire.Time (or any
// encoding.TextUnmarshaler), json.RawMessage (JSON only), structs, pointers (to tell
// absent from zero), slices, and maps with string keys (JSON only). Unknown members
// are ignored, as AWS does; a wrong type is a SerializationException, or
// MalformedInput for forms.
//
// The tag check holds the rules of a member, keys those of a map's keys, each those
// of the innermost elements of lists and maps: required, min=N, max=N (length of
// strings in characters, entries of lists and maps, value of numbers), enum=A|B,
// secret (the value is not quoted in errors, nor in the audit log), digest (in the audit
// log by its hash), and, last because it may hold commas, pattern=REGEXP, which must
// match the whole string. All violations are reported in one error, worded as AWS words
// it (validate.go).
//
// Output shapes of JSON services are marshalled by encoding/json: use omitempty, or
// omitzero for wire.Time. Those of Query services by encoding/xml: lists are
// `xml:"Users>member"` (iam, sts) or `xml:"reservationSet>item"` (ec2), optional
// members omitempty. iam and sts wrap the shape in ActionResponse/ActionResult, ec2
// in ActionResponse alone; a shape without fields (struct{}) gives no result element.
//
// Errors: return a *wire.Exception (see exception), a domain error that errors.go
// maps, or anything else, which becomes an internal error with its cause in the log.

// Operation is one row of the operation table: what the API can do, who may do it,
// and how.
type Operation struct {
	Service string // signing name: ssm, ec2messages, iam, sts, ec2, kms, sallyport
	Name    string // StartSession
	Action  string // action to authorise, Service:Name
	Caller  Caller // who may call at all
	// input allocates the request; resources and run are typed closures made by op.
	input     func() any
	shape     *shape // of the input
	resources func(context.Context, *Call, any) ([]access.Resource, error)
	run       func(context.Context, *Call, any) (any, error)
	quiet     bool // allowed calls are not audited (reads that agents and listings repeat)
	ending    bool // it only ends access; see access.Query
	selfCheck bool // run authorises by itself, through Call.Check
}

// Caller says what kind of caller an operation is for.
type Caller int

// Callers.
const (
	CallerAny       Caller = iota // users and roles, authorised by policy
	CallerAgent                   // nodes only, on themselves; no policy is asked
	CallerNodeKey                 // nodes only, and signed with the node's own RSA key
	CallerAnonymous               // no signature (RegisterManagedInstance)
	CallerIdentity                // anyone authenticated, no policy asked (sts:GetCallerIdentity)
)

// Call is one call of an operation on its way through.
type Call struct {
	Server    *Server
	Operation *Operation
	Principal identity.Principal
	Origin    access.Origin
	Host      string // host and port that the request came by, for URLs handed out
	Presigned bool   // signed in the query: whoever has the URL sends it

	// What follows is filled by an operation's resources function (or by run,
	// before Check), for the decision and its audit record.

	// Context adds condition keys common to all resources: aws:RequestTag/…,
	// aws:TagKeys, ssm:SessionDocumentAccessCheck.
	Context map[string][]string
	// Each adds condition keys of which every value must be allowed alone.
	Each map[string][]string
	// Node, Document and Session name what the call is about.
	Node, Document, Session string

	shellFacts *shellFacts // once asked for
	offers     *offers     // likewise

	input   any               // as decoded
	details map[string]string // of the input, for the audit log; see detailsOf
	checked bool              // the call was authorised or refused
	quiet   bool              // as Operation.quiet, for this call
}

// SetContext adds values of a condition key common to all resources.
func (c *Call) SetContext(key string, values ...string) {
	if c.Context == nil {
		c.Context = map[string][]string{}
	}
	c.Context[key] = values
}

// SetRequestTags fills aws:RequestTag/KEY and aws:TagKeys from tags that the caller
// sends; the keys alone where tags are to be removed (TagKeys only). Of a tag with
// several values each must be allowed.
func (c *Call) SetRequestTags(tags identity.Tags) {
	for key := range tags {
		if c.Each == nil {
			c.Each = map[string][]string{}
		}
		c.Each["aws:RequestTag/"+key] = tags.Values(key)
	}
	if len(tags) > 0 {
		c.SetContext("aws:TagKeys", slices.Sorted(maps.Keys(tags))...)
	}
}

// Check authorises the operation's action on resources and audits the decision. A
// refusal is an *access.DeniedError. Operations marked checksItself call it; for the
// others the server does, before run.
func (c *Call) Check(ctx context.Context, resources ...access.Resource) error {
	return c.CheckAction(ctx, c.Operation.Action, resources...)
}

// CheckAction is Check for an action beside the operation's own, such as
// sts:TagSession in AssumeRole.
func (c *Call) CheckAction(ctx context.Context, action string, resources ...access.Resource) error {
	c.checked = true
	_, err := c.Server.checker.Check(ctx, c.query(action, resources))
	return err
}

// CheckOwn is Check for what belongs to the caller: it needs no policy that allows,
// but an explicit deny refuses.
func (c *Call) CheckOwn(ctx context.Context, resources ...access.Resource) error {
	c.checked = true
	_, err := c.Server.checker.CheckOwn(ctx, c.query(c.Operation.Action, resources))
	return err
}

// Allows reports whether the caller may do action on resources, without an audit
// record: for filtering listings.
func (c *Call) Allows(ctx context.Context, action string, resources ...access.Resource) (bool, error) {
	d, err := c.Server.checker.Decide(ctx, c.query(action, resources))
	return d.Allowed, err
}

// inputDetails are the details of decisions on the call. Reads that nobody records have
// none.
func (c *Call) inputDetails() map[string]string {
	if c.details == nil && c.input != nil && !c.Operation.quiet {
		c.details = detailsOf(c.Operation.shape, c.input)
	}
	return c.details
}

func (c *Call) query(action string, resources []access.Resource) access.Query {
	return access.Query{
		Principal: c.Principal, Action: action, Resources: resources,
		Context: c.Context, Each: c.Each, Origin: c.Origin,
		Node: c.Node, Document: c.Document, Session: c.Session,
		Details: c.inputDetails(),
		Quiet:   c.Operation.quiet || c.quiet,
		Ending:  c.Operation.ending,
	}
}

// URL returns an absolute URL on the host that the request came by. Scheme is http
// or ws; over TLS it becomes https or wss.
func (c *Call) URL(scheme, path string) string {
	if c.Origin.TLS {
		scheme += "s"
	}
	return scheme + "://" + c.Host + path
}

// op makes a row from typed functions. resources names what is authorised (nil: the
// resource is "*"); run does the work and returns the output shape.
func op[In, Out any](service, name string,
	resources func(context.Context, *Call, *In) ([]access.Resource, error),
	run func(context.Context, *Call, *In) (*Out, error),
	options ...func(*Operation),
) *Operation {
	o := &Operation{
		Service: service,
		Name:    name,
		Action:  service + ":" + name,
		input:   func() any { return new(In) },
		shape:   shapeOf(reflect.TypeFor[In]()),
		run: func(ctx context.Context, c *Call, in any) (any, error) {
			c.input = in
			out, err := run(ctx, c, in.(*In))
			if err != nil {
				return nil, err
			}
			return out, c.recordMade(ctx, out)
		},
		resources: func(ctx context.Context, c *Call, in any) ([]access.Resource, error) {
			c.input = in
			if resources == nil {
				return []access.Resource{{ARN: "*"}}, nil
			}
			return resources(ctx, c, in.(*In))
		},
	}
	for _, option := range options {
		option(o)
	}
	return o
}

// quietly leaves allowed calls out of the audit log.
func quietly(o *Operation) { o.quiet = true }

// as authorises an operation by the action of another, which it is a form of.
func as(action string) func(*Operation) { return func(o *Operation) { o.Action = action } }

// toEnd marks an operation that only ends access, which a failing audit log does not
// keep from doing so.
func toEnd(o *Operation) { o.ending = true }

// forAgents marks an operation that only nodes call. Its resources function must
// return the ARN of the node that is concerned (nil: the caller), and the server
// refuses any but the caller's own.
func forAgents(o *Operation) { o.Caller = CallerAgent; o.quiet = true }

// withNodeKey marks an operation that nodes call with their RSA key, not with the
// temporary credentials that it stands for.
func withNodeKey(o *Operation) { o.Caller = CallerNodeKey; o.quiet = true }

// anonymously marks an operation that needs no signature.
func anonymously(o *Operation) { o.Caller = CallerAnonymous }

// forEveryone marks an operation that any authenticated caller may do.
func forEveryone(o *Operation) { o.Caller = CallerIdentity }

// checksItself marks an operation whose run calls Call.Check, because what is to be
// authorised depends on what it finds (listings filtered by permission).
func checksItself(o *Operation) { o.selfCheck = true }

// service describes how a signing name's operations are spoken.
type service struct {
	name      string // signing name
	protocol  protocol
	target    string // prefix of X-Amz-Target, JSON services only
	version   string // Query services only
	namespace string // of answers, Query services only
}

type protocol int

const (
	protocolJSON protocol = iota
	protocolQuery
	protocolEC2
)

// services lists the signing names that the server answers to. ssmmessages has no
// operations; its requests are those of the channels.
func services() []service {
	return []service{
		{name: "ssm", target: "AmazonSSM"},
		{name: "ec2messages", target: "EC2WindowsMessageDeliveryService"},
		{name: "ssmmessages"},
		{name: "sallyport", target: "Sallyport"},
		{name: "kms", target: "TrentService"},
		{name: "iam", protocol: protocolQuery, version: "2010-05-08", namespace: "https://iam.amazonaws.com/doc/2010-05-08/"},
		{name: "sts", protocol: protocolQuery, version: "2011-06-15", namespace: "https://sts.amazonaws.com/doc/2011-06-15/"},
		{name: "ec2", protocol: protocolEC2, version: "2016-11-15", namespace: "http://ec2.amazonaws.com/doc/2016-11-15/"},
	}
}

// table finds operations by service and name.
type table struct {
	services   map[string]service
	operations map[string]map[string]*Operation
}

func newTable(services []service, operations []*Operation) table {
	t := table{services: map[string]service{}, operations: map[string]map[string]*Operation{}}
	for _, s := range services {
		t.services[s.name] = s
	}
	for _, o := range operations {
		if t.operations[o.Service] == nil {
			t.operations[o.Service] = map[string]*Operation{}
		}
		if t.operations[o.Service][o.Name] != nil {
			panic("server: two operations " + o.Service + ":" + o.Name)
		}
		t.operations[o.Service][o.Name] = o
	}
	return t
}

// names lists the operations of a service, for errors about unknown ones.
func (t table) names(service string) string {
	return strings.Join(slices.Sorted(maps.Keys(t.operations[service])), ", ")
}

// byTarget finds the service that a JSON target's prefix names.
func (t table) byTarget(prefix string) (service, bool) {
	for _, s := range t.services {
		if s.target != "" && s.target == prefix {
			return s, true
		}
	}
	return service{}, false
}

// serviceNames lists the services that have operations.
func (t table) serviceNames() string {
	return strings.Join(slices.Sorted(maps.Keys(t.operations)), ", ")
}

// targets lists the prefixes of X-Amz-Target.
func (t table) targets() string {
	var prefixes []string
	for _, s := range t.services {
		if s.target != "" {
			prefixes = append(prefixes, s.target)
		}
	}
	slices.Sort(prefixes)
	return strings.Join(prefixes, ", ")
}
