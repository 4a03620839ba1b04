package server

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"sallyport.dev/access"
	"sallyport.dev/apply"
	"sallyport.dev/flow"
	"sallyport.dev/wire"
)

// Configuration as code: what files say is compared with what there is, shown, and done
// as calls of the operations that do each thing, each authorised for the caller.

func applyOperations() []*Operation {
	return []*Operation{
		op("sallyport", "PlanConfiguration", nil, planConfiguration),
		op("sallyport", "ApplyConfiguration", nil, applyConfiguration),
		op("sallyport", "ExportRequest", nil, exportRequest, checksItself),
		op("sallyport", "SimulateAccess", nil, simulateAccess, checksItself),
		op("sallyport", "ReviewAccess", nil, reviewAccess),
	}
}

type planInput struct {
	Files map[string]string `json:"Files" check:"required,digest,max=1000" keys:"min=1,max=255"`
}

type planOutput struct {
	Steps []apply.Step `json:"Steps"`
	// Hash names the plan: ApplyConfiguration does this one and no other.
	Hash string `json:"Hash"`
}

type applyInput struct {
	planInput
	Hash string `json:"Hash" check:"required,min=64,max=64"`
}

type applyOutput struct {
	Steps []apply.Step `json:"Steps"`
	Done  int          `json:"Done"` // so many of the steps
	// Error is what stopped it; empty if nothing did.
	Error string `json:"Error,omitempty"`
}

func planConfiguration(ctx context.Context, c *Call, in *planInput) (*planOutput, error) {
	plan, err := c.plannedConfiguration(ctx, in.Files)
	if err != nil {
		return nil, err
	}
	return &planOutput{plan.Steps, plan.Hash}, nil
}

// applyConfiguration does what was planned, if that is still what is to be done.
func applyConfiguration(ctx context.Context, c *Call, in *applyInput) (*applyOutput, error) {
	plan, err := c.plannedConfiguration(ctx, in.Files)
	if err != nil {
		return nil, err
	}
	if plan.Hash != in.Hash {
		return nil, exception("ConflictException", "What there is has changed since this was planned. Plan again, and look at it again.")
	}
	out := &applyOutput{Steps: plan.Steps}
	for _, step := range plan.Steps {
		if err := c.take(ctx, step); err != nil {
			out.Error = fmt.Sprintf("%s %s: %v", step.Kind, step.Name, err)
			return out, nil
		}
		out.Done++
	}
	return out, nil
}

// plannedConfiguration compares files with what there is and with those applied last.
func (c *Call) plannedConfiguration(ctx context.Context, texts map[string]string) (apply.Plan, error) {
	engine := c.Server.config.Access
	if engine == nil {
		return apply.Plan{}, exception("ValidationException", "This server takes no configuration: it has no access just in time.")
	}
	files := map[string][]byte{}
	for name, text := range texts {
		files[name] = []byte(text)
	}
	want, err := apply.Parse(files)
	if err != nil {
		return apply.Plan{}, exception("ValidationException", "%v", err)
	}
	flows, err := flow.Parse(files)
	if err != nil {
		return apply.Plan{}, exception("ValidationException", "%v", err)
	}
	old, digest, err := engine.Files(ctx)
	if err != nil {
		return apply.Plan{}, err
	}
	before, err := apply.Parse(old)
	if err != nil {
		return apply.Plan{}, fmt.Errorf("reading the files in force: %w", err)
	}
	now := apply.Now{Identities: c.Server.config.Identities, Documents: c.Server.config.Documents, Realm: c.Server.config.Realm}
	plan, err := apply.NewPlan(ctx, now, want, before)
	if err != nil || flows.Digest == digest {
		return plan, err
	}
	oldFlows, err := flow.Parse(old)
	if err != nil {
		return plan, fmt.Errorf("reading the flows in force: %w", err)
	}
	return plan.With(filesStep(oldFlows, flows, texts, digest)), nil
}

// filesStep puts the files in force: flows live in them, and the next plan is made
// against them.
func filesStep(old, flows *flow.Set, texts map[string]string, digest string) apply.Step {
	all := map[string]any{}
	for name, text := range texts {
		all[name] = text
	}
	return apply.Step{
		Verb: apply.Change, Kind: "files", Name: flows.Digest[:12],
		Lines: slices.Concat(differences("flow", old.Flows, flows.Flows), differences("schedule", old.Schedules, flows.Schedules)),
		Calls: []apply.Call{{Service: "sallyport", Operation: "PutFlows", Input: map[string]any{"Files": all, "Digest": digest}}},
	}
}

// differences lists what is new, changed or gone.
func differences[T any](kind string, old, now map[string]*T) []string {
	var lines []string
	for name, have := range now {
		switch before := old[name]; {
		case before == nil:
			lines = append(lines, "+ "+kind+" "+name)
		case !reflect.DeepEqual(before, have):
			lines = append(lines, "~ "+kind+" "+name)
		}
	}
	for name := range old {
		if now[name] == nil {
			lines = append(lines, "- "+kind+" "+name)
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return compareFrom(2, a, b) })
	return lines
}

// compareFrom compares texts without their first n bytes.
func compareFrom(n int, a, b string) int {
	switch a, b := a[n:], b[n:]; {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// take makes the calls of a step, as the caller.
func (c *Call) take(ctx context.Context, step apply.Step) error {
	for _, call := range step.Calls {
		if err := c.make(ctx, call); err != nil {
			var denied *access.DeniedError
			if e := (*wire.Exception)(nil); errors.As(err, &e) || errors.As(err, &denied) {
				return fmt.Errorf("%s:%s: %w", call.Service, call.Operation, err)
			}
			return err
		}
	}
	return nil
}

// make makes one call of another operation as the caller: authorised, checked and audited
// as if it had come by itself.
func (c *Call) make(ctx context.Context, call apply.Call) error {
	o := c.Server.table.operations[call.Service][call.Operation]
	if o == nil {
		return fmt.Errorf("no operation %s:%s", call.Service, call.Operation)
	}
	in, err := bindInput(o, &binder{}, call.Input, "ValidationException", "ValidationException")
	if err != nil {
		return err
	}
	inner := &Call{Server: c.Server, Operation: o, Principal: c.Principal, Origin: c.Origin, Host: c.Host}
	if err := inner.authorize(ctx, in); err != nil {
		return err
	}
	_, err = o.run(ctx, inner, in)
	return err
}
