package server

import (
	"context"

	"sallyport.dev/access"
	"sallyport.dev/identity"
)

// Operation is one row of the operation table: what the API can do, who may do it,
// and how.
type Operation struct {
	Service string // signing name: ssm, ec2messages, iam, sts, ec2, sallyport
	Name    string // StartSession
	Action  string // action to authorise, Service:Name unless set otherwise
	Caller  Caller // who may call at all
	// input allocates the request; resources and run are typed closures made by op.
	input     func() any
	resources func(context.Context, *Call, any) ([]access.Resource, error)
	run       func(context.Context, *Call, any) (any, error)
	quiet     bool // allowed calls are not audited (reads that agents and listings repeat)
	selfCheck bool // run authorises by itself, through Call.Check
}

// Caller says what kind of caller an operation is for.
type Caller int

// Callers.
const (
	CallerAny       Caller = iota // users and roles, authorised by policy
	CallerAgent                   // nodes only, on themselves; no policy is asked
	CallerAnonymous               // no signature (RegisterManagedInstance)
)

// Call is one call of an operation on its way through.
type Call struct {
	Server    *Server
	Operation *Operation
	Principal identity.Principal
	Origin    access.Origin
	Host      string // host and scheme the request came by, for URLs handed out
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
		run: func(ctx context.Context, c *Call, in any) (any, error) {
			out, err := run(ctx, c, in.(*In))
			if err != nil {
				return nil, err
			}
			return out, nil
		},
		resources: func(ctx context.Context, c *Call, in any) ([]access.Resource, error) {
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

// forAgents marks an operation that only nodes call.
func forAgents(o *Operation) { o.Caller = CallerAgent; o.quiet = true }

// anonymously marks an operation that needs no signature.
func anonymously(o *Operation) { o.Caller = CallerAnonymous }

// checksItself marks an operation whose run calls Call.Check, because what is to be
// authorised depends on what it finds (listings filtered by permission).
func checksItself(o *Operation) { o.selfCheck = true }

// action sets the action to authorise where it is not Service:Name.
func action(name string) func(*Operation) { return func(o *Operation) { o.Action = name } }
