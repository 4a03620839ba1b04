package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport.dev/policy"
)

// maxEvalLine bounds a line of "policy eval", in bytes: several policies of the
// largest size and their request.
const maxEvalLine = 4 << 20

func newPolicyEvalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "eval",
		Short: "Decide requests read from standard input",
		Long: `Decide requests read from standard input, one JSON object a line:

  {"id": 1,
   "policies": [{"name": "access", "kind": "identity", "policy": {"Version": …}}],
   "request": {"principal": "arn:…", "action": "ssm:StartSession", "resource": "arn:…",
               "context": {"aws:username": ["alice"]}}}

The kind is identity (also when left out), boundary, session or grant. An element
"expect" is allowed and ignored. Each line is answered by one on standard output:

  {"id": 1, "decision": "Allowed|ExplicitlyDenied|ImplicitlyDenied", "reasons": […]}

A line that cannot be read is reported on standard error with its number; the others
are answered all the same, and the exit status is 1.`,
		Example: "  sallyport policy eval < requests.jsonl",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e := evaluator{in: bufio.NewReaderSize(cmd.InOrStdin(), 64<<10), out: bufio.NewWriter(cmd.OutOrStdout()), errs: cmd.ErrOrStderr()}
			return e.run()
		},
	}
}

// evaluator answers the lines of "policy eval".
type evaluator struct {
	in   *bufio.Reader
	out  *bufio.Writer
	errs io.Writer
	line int
	bad  int
}

func (e *evaluator) run() error {
	for {
		line, err := e.next()
		if err != nil && !errors.Is(err, errLongLine) && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("reading standard input: %w", err), e.out.Flush())
		}
		if errors.Is(err, errLongLine) {
			e.complain(fmt.Errorf("longer than %d bytes", maxEvalLine))
		} else if len(bytes.TrimSpace(line)) > 0 {
			if err := e.answer(line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return e.finish()
		}
	}
}

func (e *evaluator) finish() error {
	if err := e.out.Flush(); err != nil {
		return fmt.Errorf("writing decisions: %w", err)
	}
	if e.bad > 0 {
		return &statusError{status: statusRefused}
	}
	return nil
}

var errLongLine = errors.New("line too long")

// next reads a line, without more than maxEvalLine of it in memory. With the last
// line it returns io.EOF.
func (e *evaluator) next() ([]byte, error) {
	if e.in.Buffered() == 0 { // whoever waits for answers gets them before we wait
		if err := e.out.Flush(); err != nil {
			return nil, err
		}
	}
	e.line++
	var line []byte
	long := false
	for {
		part, err := e.in.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxEvalLine; !long {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case long && err == nil:
			return nil, errLongLine
		case long:
			return nil, errors.Join(errLongLine, io.EOF)
		}
		return line, err
	}
}

func (e *evaluator) complain(err error) {
	e.bad++
	fmt.Fprintf(e.errs, "sallyport: standard input, line %d: %v\n", e.line, err)
}

// evalLine is a line of input.
type evalLine struct {
	ID       json.RawMessage `json:"id"`
	Policies []evalPolicy    `json:"policies"`
	Request  *evalRequest    `json:"request"`
	Expect   json.RawMessage `json:"expect"`
}

type evalPolicy struct {
	Name   string          `json:"name"`
	Kind   string          `json:"kind"`
	Policy json.RawMessage `json:"policy"`
}

type evalRequest struct {
	Principal string                `json:"principal"`
	Action    string                `json:"action"`
	Resource  string                `json:"resource"`
	Context   map[string]evalValues `json:"context"`
}

// evalValues are the values of a condition key: a string, number or boolean, or a
// list of them.
type evalValues []string

// UnmarshalJSON implements json.Unmarshaler.
func (v *evalValues) UnmarshalJSON(b []byte) error {
	list := []json.RawMessage{b}
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
	}
	*v = make(evalValues, len(list))
	for i, one := range list {
		switch one[0] {
		case '"':
			if err := json.Unmarshal(one, &(*v)[i]); err != nil {
				return err
			}
		case '{', '[', 'n':
			return errors.New("request.context: a value must be a string, number or boolean, or a list of them")
		default:
			(*v)[i] = string(one)
		}
	}
	return nil
}

// evalAnswer is a line of output.
type evalAnswer struct {
	ID       json.RawMessage `json:"id"`
	Decision policy.Effect   `json:"decision"`
	Reasons  []evalReason    `json:"reasons"`
}

// evalReason is a reason in words, and the statement it is about, if any.
type evalReason struct {
	Text string `json:"text"`
	*policy.Reason
	Hint string `json:"hint,omitempty"`
}

// answer decides one line; the error is one of writing.
func (e *evaluator) answer(line []byte) error {
	a, err := evaluateLine(line)
	if err != nil {
		e.complain(err)
		return nil
	}
	if err := encodeJSON(e.out, a, ""); err != nil {
		return fmt.Errorf("writing decisions: %w", err)
	}
	return nil
}

func evaluateLine(line []byte) (*evalAnswer, error) {
	l, err := decodeEvalLine(line)
	if err != nil {
		return nil, err
	}
	sources, err := l.sources()
	if err != nil {
		return nil, err
	}
	ctx := policy.Context{}
	for k, v := range l.Request.Context {
		ctx.Add(k, v...)
	}
	x := policy.Explain(sources, &policy.Request{Principal: l.Request.Principal, Action: l.Request.Action, Resource: l.Request.Resource, Context: ctx})
	return &evalAnswer{ID: l.ID, Decision: x.Effect, Reasons: evalReasons(x.Decision, l.Request.Action)}, nil
}

func evalReasons(d policy.Decision, action string) []evalReason {
	reasons := []evalReason{}
	if d.Effect == policy.ImplicitlyDenied {
		reasons = append(reasons, evalReason{Text: fmt.Sprintf("no %s allows the %s action", d.Kind, action)})
	}
	for i := range d.Reasons {
		r := &d.Reasons[i]
		reasons = append(reasons, evalReason{Text: r.String(), Reason: r, Hint: r.Hint()})
	}
	return reasons
}

func decodeEvalLine(line []byte) (*evalLine, error) {
	d := json.NewDecoder(bytes.NewReader(bytes.TrimSpace(line)))
	d.DisallowUnknownFields()
	var l evalLine
	if err := d.Decode(&l); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("more than one JSON value")
	}
	switch {
	case l.Policies == nil:
		return nil, errors.New(`missing element "policies"`)
	case l.Request == nil:
		return nil, errors.New(`missing element "request"`)
	case l.Request.Action == "":
		return nil, errors.New(`missing element "request.action"`)
	case l.Request.Resource == "":
		return nil, errors.New(`missing element "request.resource"`)
	}
	return &l, nil
}

func (l *evalLine) sources() ([]policy.Source, error) {
	var sources []policy.Source
	for i, p := range l.Policies {
		if p.Name == "" {
			p.Name = fmt.Sprintf("policy %d", i+1)
		}
		kind, ok := map[string]policy.Kind{
			"": policy.Identity, "identity": policy.Identity, "boundary": policy.Boundary, "session": policy.Session, "grant": policy.Grant,
		}[p.Kind]
		if !ok {
			return nil, fmt.Errorf("policy %q: unknown kind %q; allowed are identity, boundary, session and grant", p.Name, p.Kind)
		}
		doc, err := policy.Parse(p.Policy)
		if err != nil {
			return nil, fmt.Errorf("policy %q: %w", p.Name, err)
		}
		sources = append(sources, policy.Source{Kind: kind, Name: p.Name, Document: doc})
	}
	return sources, nil
}
