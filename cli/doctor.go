package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// How a check came out.
const (
	checkOK   = "ok"
	checkWarn = "warn" // works, but not as well as it could; or cannot be told
	checkFail = "fail" // keeps a session from starting
	checkSkip = "skip" // not looked at, because of what failed before
)

// check is the contract of "doctor --json": the prerequisites in order.
type check struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, warn, fail, skip
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

type jsonDoctor struct {
	Node   string  `json:"node"`
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

const (
	skewWarn = 30 * time.Second
	// skewFail is from where on signatures are refused.
	skewFail = 5 * time.Minute
	// pingRecent is how old an agent's last sign of life may be: agents give one every
	// five minutes.
	pingRecent = 15 * time.Minute
)

func (p *program) newDoctorCommand() *cobra.Command {
	d := &doctor{p: p}
	var parameters string
	cmd := &cobra.Command{
		Use:   "doctor {NAME | ID}",
		Short: "Check everything that a session on a node needs",
		Long: `Check, in order, everything that a session on a node needs: the server and the clock,
who you are, that the node is registered, its agent connected and recent, its tags as the
rules in config.hcl want them, the policies, the document, the user on the node, the
recording, and the programs on this machine. What fails comes with what to do about it.

On AWS that is as much as its API tells.

Exit status: 0 if nothing fails, 1 if something does, 2 for wrong usage.`,
		Example: `  sallyport doctor frontend-1
  sallyport doctor frontend-1 --document AWS-StartSSHSession
  sallyport doctor frontend-1 --login deploy --json`,
		Args:              between(1, 1, "name a node, as sallyport nodes shows them"),
		ValidArgsFunction: p.completeOneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if d.parameters, err = documentParameters(parameters); err != nil {
				return err
			}
			return d.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&d.document, "document", "d", "", "session `document`; the shell's unless given")
	f.StringVar(&parameters, "parameters", "", "parameters of the document: `JSON`, or NAME=VALUE,…")
	f.StringVarP(&d.login, "login", "l", "", "`user` to be on the node")
	return cmd
}

// doctor is one examination. What a step learns is for those after it.
type doctor struct {
	p               *program
	document, login string
	parameters      map[string][]string

	name   string
	set    *settings
	api    *client.API
	aws    bool
	me     *client.GetStatusOutput
	node   client.Node
	start  *client.ExplainedStart
	checks []check
}

// run examines, shows and exits.
func (d *doctor) run(ctx context.Context, name string) error {
	s, err := d.p.settings()
	if err != nil {
		return err
	}
	d.name, d.set = name, s
	if d.api, err = d.p.api(ctx); err != nil {
		return err
	}
	d.examine(ctx)
	d.checks = append(d.checks, d.p.localTools(ctx)...)
	return d.show()
}

// examine goes through the steps. One that others build on ends it when it fails.
func (d *doctor) examine(ctx context.Context) {
	steps := []struct {
		name  string
		basis bool
		look  func(context.Context) check
	}{
		{"server", true, d.lookServer},
		{"clock", false, d.lookClock},
		{"identity", true, d.lookIdentity},
		{"node", true, d.lookNode},
		{"agent", false, d.lookAgent},
		{"tags", false, d.lookTags},
		{"policy", false, d.lookPolicy},
		{"document", false, d.lookDocument},
		{"run-as", false, d.lookRunAs},
		{"recording", false, d.lookRecording},
	}
	broken := ""
	for _, step := range steps {
		c := check{State: checkSkip, Text: "not checked: " + broken + " comes first"}
		if broken == "" {
			c = step.look(ctx)
		}
		c.Name = step.name
		if step.basis && c.State == checkFail {
			broken = step.name
		}
		d.checks = append(d.checks, c)
	}
}

// show writes the checks, and fails if one of them did.
func (d *doctor) show() error {
	failed := slices.ContainsFunc(d.checks, func(c check) bool { return c.State == checkFail })
	if d.p.flags.json {
		if err := d.p.writeJSON(jsonDoctor{Node: cmp.Or(d.node.NodeID, d.name), OK: !failed, Checks: d.checks}); err != nil {
			return err
		}
	} else {
		for _, c := range d.checks {
			fmt.Fprintf(d.p.stdout, "%-4s  %-9s  %s\n", c.State, c.Name, client.CleanLine(c.Text))
			if c.Hint != "" {
				fmt.Fprintf(d.p.stdout, "%-4s  %-9s  hint: %s\n", "", "", client.CleanLine(c.Hint))
			}
		}
	}
	if failed {
		return &statusError{status: statusRefused}
	}
	return nil
}

func ok(format string, args ...any) check {
	return check{State: checkOK, Text: fmt.Sprintf(format, args...)}
}

func warn(hint, format string, args ...any) check {
	return check{State: checkWarn, Text: fmt.Sprintf(format, args...), Hint: hint}
}

func fail(hint, format string, args ...any) check {
	return check{State: checkFail, Text: fmt.Sprintf(format, args...), Hint: hint}
}

// failed words an error as a check.
func (d *doctor) failed(err error) check { return fail(d.p.hintFor(err), "%s", errorText(err)) }

func (d *doctor) lookServer(ctx context.Context) check {
	endpoint := cmp.Or(d.api.Endpoint(), "AWS in "+d.api.Region())
	me, err := d.api.GetStatus(ctx)
	if errors.Is(err, client.ErrNotSallyport) {
		notSallyport := err
		if me, err = awsStatus(ctx, d.api); err != nil {
			err = fallback(notSallyport, err)
		}
		d.aws = true
	}
	var refused smithy.APIError
	if errors.As(err, &refused) { // it answers; who one is comes later
		d.me = nil
		return ok("%s answers", endpoint)
	}
	if err != nil {
		return d.failed(err)
	}
	d.me = me
	d.set.adopt(me)
	if d.aws {
		return ok("%s answers, with AWS's operations only", endpoint)
	}
	return ok("%s answers, version %s", endpoint, me.Version)
}

func (d *doctor) lookClock(context.Context) check {
	skew, known := d.api.Skew()
	ahead := map[bool]string{true: "behind", false: "ahead of"}[skew > 0]
	const hint = "set this machine's clock, best by NTP"
	switch {
	case !known:
		return warn("", "the server does not tell its time")
	case skew.Abs() > skewFail:
		return fail(hint, "this clock is %v %s the server's, which refuses signatures from %v on", skew.Abs(), ahead, skewFail)
	case skew.Abs() > skewWarn:
		return warn(hint, "this clock is %v %s the server's", skew.Abs(), ahead)
	}
	return ok("this clock agrees with the server's to %v", max(skew.Abs(), time.Second))
}

func (d *doctor) lookIdentity(ctx context.Context) check {
	if d.me == nil {
		_, err := d.p.whoami(ctx)
		if err == nil {
			err = errors.New("the server refused once, and then did not")
		}
		return d.failed(err)
	}
	text := "you are " + d.me.Principal
	switch {
	case len(d.me.Tags) > 0:
		text += ", with " + tagText(d.me.Tags)
	case !d.aws:
		text += ", without tags"
	}
	return ok("%s", text)
}

func (d *doctor) lookNode(ctx context.Context) check {
	if nodeID.MatchString(d.name) {
		nodes, err := d.p.nodes(ctx, []string{d.name})
		if err != nil {
			return d.failed(err)
		}
		if i := slices.IndexFunc(nodes, func(n client.Node) bool { return n.NodeID == d.name }); i >= 0 {
			d.node = nodes[i]
			return d.registered()
		}
		return fail("sallyport nodes --all shows those that you may see; sallyport activation create lets a machine register",
			"%s is not registered, or you may not see it", d.name)
	}
	n, err := d.p.resolve(ctx, []string{d.name})
	if several := (*severalError)(nil); errors.As(err, &several) {
		return fail("sallyport doctor ID checks one of them", "%s", several.line())
	}
	if err != nil {
		return fail("sallyport nodes --all shows those that you may see", "%s", errorText(err))
	}
	d.node = n
	return d.registered()
}

func (d *doctor) registered() check {
	n := d.node
	if n.NameReported {
		return ok("%s is registered; %s is only what it calls itself", n.NodeID, n.Name)
	}
	return ok("%s (%s) is registered", n.NodeID, orNodeName(n))
}

func (d *doctor) lookAgent(context.Context) check {
	n := d.node
	agent := strings.TrimSpace(cmp.Or(n.AgentName, "agent") + " " + n.AgentVersion)
	switch {
	case !n.Connected():
		last := "and never was"
		if !n.LastPing.IsZero() {
			last = "last heard of " + clock(n.LastPing.Time)
		}
		return fail("is the machine up, its agent running, and can it reach the server?", "%s is not connected, %s", agent, last)
	case !n.LastPing.IsZero() && time.Since(n.LastPing.Time) > pingRecent:
		return warn("sessions may find it gone; look at the machine", "%s is connected, but was last heard of %s", agent, clock(n.LastPing.Time))
	case oldAgent(n):
		return warn("update it: AWS's agent forwards to remote hosts from 3.1.1374.0 on", "%s is connected, and old", agent)
	}
	return ok("%s is connected", agent)
}

// remoteHostVersion is the first of AWS's agent that forwards to remote hosts.
const remoteHostVersion = "3.1.1374.0"

// oldAgent reports whether a node runs an agent of AWS's that lacks what documents need.
// Ours names itself, AWS's API does not say whose it is.
func oldAgent(n client.Node) bool {
	return n.AgentName != "sallyport-agent" && versionLess(n.AgentVersion, remoteHostVersion)
}

// versionLess compares versions of numbers and dots; what is none is not less.
func versionLess(a, b string) bool {
	x, y := numbers(a), numbers(b)
	return x != nil && y != nil && slices.Compare(x, y) < 0
}

func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(strings.TrimPrefix(version, "v"), ".") {
		var n int
		if _, err := fmt.Sscanf(part, "%d", &n); err != nil {
			return nil
		}
		all = append(all, n)
	}
	return all
}

func (d *doctor) lookTags(context.Context) check {
	var broken []string
	for _, r := range d.set.Tags {
		if text := r.broken(d.node.Tags); text != "" {
			broken = append(broken, text)
		}
	}
	tags := cmp.Or(tagText(d.node.Tags), "none")
	switch {
	case len(broken) > 0:
		return fail("policies that go by tags do not find it; aws ec2 create-tags, or ssm add-tags-to-resource, sets them", "%s; it has: %s", strings.Join(broken, "; "), tags)
	case len(d.set.Tags) == 0:
		return ok("%s; no rules are configured", tags)
	}
	return ok("%s, as the rules want", tags)
}

func (d *doctor) lookPolicy(ctx context.Context) check {
	if d.aws {
		return d.simulatePolicy(ctx)
	}
	out, err := d.api.ExplainAccess(ctx, client.ExplainAccessInput{
		Action: "ssm:StartSession", NodeID: d.node.NodeID, Document: d.document, Parameters: d.parameters, RunAs: d.login,
	})
	if err != nil {
		return d.failed(err)
	}
	d.start = out.Start
	if out.Decision == allowed {
		return ok("you may start a session: %s", decidedBy(out))
	}
	c := fail(d.whyLine()+" shows each policy and what it says", "%s", cmp.Or(out.Message, "you may not start a session"))
	if hint := wouldPass(out); hint != "" {
		c.Text += "; to make it pass: " + hint
	}
	return c
}

func (d *doctor) whyLine() string {
	line := "sallyport why connect " + d.node.NodeID
	if d.document != "" {
		line += " --document " + shellQuote(d.document)
	}
	return line
}

// decidedBy names the statements that allow.
func decidedBy(out *client.ExplainAccessOutput) string {
	var sources []string
	for _, r := range out.Resources {
		for _, s := range r.Statements {
			if s.Matched && s.Effect == "Allow" && !slices.Contains(sources, s.Source) {
				sources = append(sources, s.Source)
			}
		}
	}
	return strings.Join(sources, ", ")
}

// wouldPass is what would make a refusal pass: of the statements about the action, the
// one that lacks least.
func wouldPass(out *client.ExplainAccessOutput) string {
	hint, least := "", 0
	for _, r := range out.Resources {
		for _, s := range r.Statements {
			if r.Decision == allowed || s.Effect != "Allow" || s.Matched || s.Hint == "" || otherActions(s) {
				continue
			}
			if n := lacking(s); hint == "" || n < least {
				hint, least = s.Hint, n
			}
		}
	}
	return hint
}

func lacking(s client.ExplainedStatement) int {
	n := 0
	for _, c := range s.Checks {
		if !c.Held {
			n++
		}
	}
	return n
}

// simulatePolicy asks IAM's simulator.
func (d *doctor) simulatePolicy(ctx context.Context) check {
	in := client.SimulateInput{Action: "ssm:StartSession", Source: policySource(d.me.Principal), Context: map[string]string{},
		Resources: []string{d.nodeARN(), d.documentARN()}}
	for k, v := range d.node.Tags {
		in.Context["ssm:resourceTag/"+k], in.Context["aws:ResourceTag/"+k] = v, v
	}
	results, err := d.api.Simulate(ctx, in)
	if err != nil {
		return warn("allow yourself iam:SimulatePrincipalPolicy to have it checked", "cannot be told: %s", errorText(err))
	}
	var refused []string
	for _, r := range results {
		if r.Decision != "allowed" {
			refused = append(refused, fmt.Sprintf("%s on %s", r.Decision, r.Resource))
		}
	}
	if len(refused) > 0 {
		return fail("a policy has to allow ssm:StartSession on both the node and the document", "IAM's simulator: %s", strings.Join(refused, ", "))
	}
	return ok("IAM's simulator: you may start a session")
}

// policySource is the ARN whose policies are those of a principal: a role's, for a
// session of it.
func policySource(arn string) string {
	head, rest, found := strings.Cut(arn, ":assumed-role/")
	if !found {
		return arn
	}
	role, _, _ := strings.Cut(rest, "/")
	return strings.Replace(head, ":sts:", ":iam:", 1) + ":role/" + role
}

func (d *doctor) nodeARN() string {
	service, kind := "ec2", "instance"
	if strings.HasPrefix(d.node.NodeID, "mi-") {
		service, kind = "ssm", "managed-instance"
	}
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s/%s", d.partition(), service, d.me.Region, d.me.Account, kind, d.node.NodeID)
}

func (d *doctor) documentARN() string {
	name, account := d.documentName(), d.me.Account
	if strings.HasPrefix(name, "AWS-") {
		account = ""
	}
	return fmt.Sprintf("arn:%s:ssm:%s:%s:document/%s", d.partition(), d.me.Region, account, name)
}

func (d *doctor) partition() string {
	if parts := strings.SplitN(d.me.Principal, ":", 3); len(parts) == 3 {
		return parts[1]
	}
	return "aws"
}

// shellDocument is the one of sessions that name none.
const shellDocument = "SSM-SessionManagerRunShell"

func (d *doctor) documentName() string { return cmp.Or(d.document, shellDocument) }

func (d *doctor) lookDocument(ctx context.Context) check {
	name := d.documentName()
	out, err := d.api.SSM.DescribeDocument(ctx, &ssm.DescribeDocumentInput{Name: &name})
	var refused smithy.APIError
	switch {
	case isDenied(err):
		return warn("", "%s: you may not ask about it (ssm:DescribeDocument)", name)
	case errors.As(err, &refused) && refused.ErrorCode() == "InvalidDocument" && name == shellDocument:
		return ok("%s is not there, so the defaults hold", name)
	case err != nil:
		return fail("aws ssm list-documents shows those that there are", "%s: %s", name, errorText(err))
	}
	var all, unset []string
	for _, parameter := range out.Document.Parameters {
		label := *parameter.Name
		all = append(all, label)
		if parameter.DefaultValue == nil && d.parameters[label] == nil {
			unset = append(unset, label)
		}
	}
	text := name + " is there"
	if len(all) > 0 {
		text += ", with " + strings.Join(all, ", ")
	}
	for given := range maps.Keys(d.parameters) {
		if !slices.Contains(all, given) {
			return fail("leave it out", "%s has no parameter %s", text, given)
		}
	}
	if len(unset) > 0 && d.parameters != nil {
		return fail("give it with --parameters", "%s; %s has no value", text, strings.Join(unset, ", "))
	}
	if d.start != nil && d.start.Obstacle != "" && (d.parameters != nil || len(unset) == 0) {
		return fail("", "%s: %s", name, d.start.Obstacle)
	}
	return ok("%s", text)
}

func (d *doctor) lookRunAs(context.Context) check {
	switch {
	case d.aws && d.login != "":
		return fail("leave --login out; the tag SSMSessionRunAs of your user or role says who you are", "AWS does not let you choose %s", d.login)
	case d.aws:
		return ok("ssm-user, or what the tag SSMSessionRunAs and the account's preferences say; AWS's API does not tell")
	case d.start == nil:
		return check{State: checkSkip, Text: "not checked: policy comes first"}
	case d.start.SessionType == "Port":
		return ok("nobody: ports are the agent's to dial")
	case d.start.RunAs != "":
		return ok("%s, who must exist on the node", d.start.RunAs)
	}
	return ok("the node's default, ssm-user unless its agent is set otherwise")
}

func (d *doctor) lookRecording(context.Context) check {
	switch {
	case d.aws:
		return ok("what the account's preferences say; AWS's API does not tell whether it works")
	case d.start == nil:
		return check{State: checkSkip, Text: "not checked: policy comes first"}
	case !d.start.Recorded && d.start.SessionType != "":
		return ok("none: forwards are metered, not recorded")
	case strings.Contains(d.start.Obstacle, "recorded"):
		return fail("an administrator has to look at the server's log", "%s", d.start.Obstacle)
	}
	return ok("the session is recorded by the server")
}
