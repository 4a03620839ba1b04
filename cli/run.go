package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// runDocument runs lines of a shell; its parameter is a list of them.
const runDocument = "AWS-RunShellScript"

const (
	// statusInterrupted is that of a program that SIGINT ended.
	statusInterrupted = 128 + int(syscall.SIGINT)
	// maxRunNodes and maxRunTerms are AWS's bounds of a command's nodes and conditions.
	maxRunNodes = 50
	maxRunTerms = 5
	// minDelivery is AWS's.
	minDelivery = 30 * time.Second
	// cancelPatience bounds the call that cancels a command.
	cancelPatience = 10 * time.Second
)

// Bounds of how many nodes, as AWS has them.
var (
	someNodes   = regexp.MustCompile(`^([1-9][0-9]{0,6}|[1-9][0-9]?%|100%)$`)
	failedNodes = regexp.MustCompile(`^(0|[1-9][0-9]{0,6}|[0-9]%|[1-9][0-9]%|100%)$`)
)

type runFlags struct {
	document, parameters, comment string
	concurrency, errors           string
	timeout, delivery             time.Duration
	noWait                        bool
}

func (p *program) newRunCommand() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run {KEY=VALUE... | NODE...} -- COMMAND [ARG]...",
		Short: "Run a command on many nodes",
		Long: `Run a command on many nodes at once, as root, and show what it says as they end.

KEY=VALUE terms select nodes by tags that all hold, as they are now; each NODE is named
by id, by name or by a unique beginning of either. One COMMAND alone is a script for the
nodes' sh; with ARGs each word stays one word.

Every line of output bears the node's name. --json writes one object per node as it
ends, and a summary last. An interrupt cancels the command; a second one leaves it.

Exit status: 0 if all nodes succeeded, 1 if any did not or it was refused, 2 for wrong
usage, 130 if it was interrupted, 255 if the server was lost.`,
		Example: `  sallyport run Team=payments Environment=Development -- uptime
  sallyport run frontend-1 frontend-2 -- systemctl restart nginx
  sallyport run Department=FrontEnd --max-concurrency 10% --max-errors 2 -- './deploy && ./check'
  sallyport run Team=payments --document Patch-Host --parameters '{"level":["security"]}'`,
		ValidArgsFunction: p.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			terms, command := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				terms, command = args[:dash], args[dash:]
			}
			return p.runCommand(cmd.Context(), terms, command, flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.document, "document", "", "command `document`; "+runDocument+" unless given")
	f.StringVar(&flags.parameters, "parameters", "", "parameters of the document as `JSON`: {\"name\": [\"value\"]}")
	f.StringVar(&flags.comment, "comment", "", "why, kept with the command (100 characters)")
	f.StringVar(&flags.concurrency, "max-concurrency", "50", "so many nodes at once: a `number` or a percentage of them")
	f.StringVar(&flags.errors, "max-errors", "100%", "tell no further nodes once more than so many failed: a `number` or a percentage")
	f.DurationVar(&flags.timeout, "timeout", time.Hour, "how long the command may run on a node")
	f.DurationVar(&flags.delivery, "delivery-timeout", time.Minute, "how long to wait for nodes to take the command (30s or more)")
	f.BoolVar(&flags.noWait, "no-wait", false, "print the command's id and leave it")
	return cmd
}

// runCommand sends a command and watches it to its end.
func (p *program) runCommand(ctx context.Context, terms, command []string, flags runFlags) error {
	in, err := runInput(command, flags)
	if err != nil {
		return err
	}
	if err := p.runTargets(ctx, terms, in); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	var out *ssm.SendCommandOutput
	err = p.withAccessToRun(ctx, api, in, func() (err error) {
		out, err = api.SSM.SendCommand(ctx, in)
		return err
	})
	if err != nil {
		return p.explainRun(err)
	}
	id := aws.ToString(out.Command.CommandId)
	if flags.noWait {
		return p.printCommandID(id)
	}
	return p.watchCommand(ctx, api, id, terms)
}

func (p *program) printCommandID(id string) error {
	if p.flags.json {
		return p.writeJSON(map[string]string{"command_id": id})
	}
	_, err := fmt.Fprintln(p.stdout, id)
	return err
}

// explainRun words a refusal to send a command.
func (p *program) explainRun(err error) error {
	var api smithy.APIError
	var status *statusError
	var refused *refusedError
	switch {
	case errors.As(err, &status):
		return status
	case errors.As(err, &refused):
		p.hintAsking(err)
		return refused.error
	case errors.As(err, &api):
		return err
	}
	p.report(err)
	return &statusError{status: statusNoAccess}
}

// maxRunAsked bounds how often one command asks for access: for nodes that one flow
// after the other gives.
const maxRunAsked = 3

// withAccessToRun runs start, and asks for access to the nodes that it is refused for,
// one after the other.
func (p *program) withAccessToRun(ctx context.Context, api *client.API, in *ssm.SendCommandInput, start func() error) error {
	err := start()
	var asked []string
	for range maxRunAsked {
		node := refusedNode(err)
		if node == "" && len(in.InstanceIds) > 0 { // for the document, which policies bind to nodes' tags
			node = in.InstanceIds[0]
		}
		if node == "" || !isDenied(err) || slices.Contains(asked, node) {
			return err
		}
		asked = append(asked, node)
		w := wanted{client.Node{NodeID: node}, aws.ToString(in.DocumentName), ""}
		refusal, next := err, error(nil)
		err = p.withAccess(ctx, api, p.asker(), w, func() error {
			if said := refusal; said != nil {
				refusal = nil
				return said
			}
			err := start()
			if other := refusedNode(err); other != "" && other != node {
				next = err
				return nil
			}
			return err
		})
		if err == nil {
			err = next
		}
	}
	return err
}

// refusedNode is the id of the node that a refusal is about; empty for none.
func refusedNode(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	resource := deniedResource.FindStringSubmatch(api.ErrorMessage())
	if resource == nil {
		return ""
	}
	if m := nodeResource.FindStringSubmatch(resource[1]); m != nil && nodeID.MatchString(m[1]) {
		return m[1]
	}
	return ""
}

// runInput builds the request, without its nodes.
func runInput(command []string, flags runFlags) (*ssm.SendCommandInput, error) {
	if len(command) == 0 && flags.document == "" {
		return nil, usagef("no command is given; it follows --")
	}
	if flags.delivery < minDelivery {
		return nil, usagef("--delivery-timeout %v: want 30s or more", flags.delivery)
	}
	if flags.timeout < time.Second {
		return nil, usagef("--timeout %v: want 1s or more", flags.timeout)
	}
	if !someNodes.MatchString(flags.concurrency) {
		return nil, usagef("--max-concurrency %q: want a number of 1 or more, or a percentage from 1%% to 100%%", flags.concurrency)
	}
	if !failedNodes.MatchString(flags.errors) {
		return nil, usagef("--max-errors %q: want a number of 0 or more, or a percentage from 0%% to 100%%", flags.errors)
	}
	in := &ssm.SendCommandInput{
		DocumentName:   aws.String(runDocument),
		MaxConcurrency: &flags.concurrency,
		MaxErrors:      &flags.errors,
		TimeoutSeconds: aws.Int32(int32(flags.delivery.Seconds())),
		Parameters:     map[string][]string{},
	}
	if flags.comment != "" {
		in.Comment = &flags.comment
	}
	if flags.parameters != "" {
		if err := json.Unmarshal([]byte(flags.parameters), &in.Parameters); err != nil || in.Parameters == nil {
			return nil, usagef(`--parameters: want JSON such as {"name": ["value"]}: %v`, err)
		}
	}
	if flags.document != "" && flags.document != runDocument {
		return otherDocument(in, command, flags)
	}
	return in, addShellParameters(in.Parameters, command, flags)
}

// addShellParameters fills in those of AWS-RunShellScript.
func addShellParameters(parameters map[string][]string, command []string, flags runFlags) error {
	set := func(name, value string) error {
		if parameters[name] != nil {
			return usagef("--parameters holds %s, which is given otherwise, too", name)
		}
		parameters[name] = []string{value}
		return nil
	}
	if len(command) > 0 {
		if err := set("commands", shellLine(command)); err != nil {
			return err
		}
	}
	if parameters["executionTimeout"] != nil && flags.timeout == time.Hour {
		return nil
	}
	return set("executionTimeout", strconv.Itoa(int(flags.timeout.Seconds())))
}

// otherDocument leaves all parameters to the caller: their names are the document's.
func otherDocument(in *ssm.SendCommandInput, command []string, flags runFlags) (*ssm.SendCommandInput, error) {
	if len(command) > 0 {
		return nil, usagef("document %s says what runs; give its parameters with --parameters", flags.document)
	}
	if flags.timeout != time.Hour {
		return nil, usagef("--timeout is a parameter of %s; give those of %s with --parameters", runDocument, flags.document)
	}
	in.DocumentName = &flags.document
	return in, nil
}

// runTargets names the nodes of a command: by tags, which the server evaluates, or by
// ids that names are resolved to.
func (p *program) runTargets(ctx context.Context, terms []string, in *ssm.SendCommandInput) error {
	if len(terms) == 0 || slices.Contains(terms, "") {
		return usagef("no node is named: give KEY=VALUE terms or nodes before --")
	}
	if !strings.Contains(terms[0], "=") {
		return p.runNodes(ctx, terms, in)
	}
	if len(terms) > maxRunTerms {
		return usagef("%d terms are given; at most %d may", len(terms), maxRunTerms)
	}
	for _, t := range terms {
		key, value, ok := strings.Cut(t, "=")
		if !ok || key == "" {
			return usagef("%q: give KEY=VALUE terms or nodes, not both", t)
		}
		in.Targets = append(in.Targets, types.Target{Key: aws.String("tag:" + key), Values: []string{value}})
	}
	return nil
}

func (p *program) runNodes(ctx context.Context, terms []string, in *ssm.SendCommandInput) error {
	for _, t := range terms {
		if strings.Contains(t, "=") {
			return usagef("%q: give KEY=VALUE terms or nodes, not both", t)
		}
		n, err := p.resolve(ctx, []string{t})
		if err != nil {
			return err
		}
		if !slices.Contains(in.InstanceIds, n.NodeID) {
			in.InstanceIds = append(in.InstanceIds, n.NodeID)
		}
	}
	if len(in.InstanceIds) > maxRunNodes {
		return usagef("%d nodes are named; at most %d may: select more by tags", len(in.InstanceIds), maxRunNodes)
	}
	return nil
}

// watchCommand shows a command to its end. An interrupt cancels it, a second one stops
// watching. The terms are those that its nodes were selected by.
func (p *program) watchCommand(ctx context.Context, api *client.API, id string, terms []string) error {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	w := &runWatch{p: p, api: api, id: id, view: p.newRunView(id, terms)}
	defer w.view.clear()
	var end *runEnd
	for cancelled := false; ; {
		e, wait, err := w.poll(ctx)
		if err != nil {
			w.view.clear()
			return p.runLost(err, id)
		}
		if end = e; end != nil {
			return w.view.finish(*end, cancelled)
		}
		select {
		case <-time.After(wait):
		case <-interrupts:
			if cancelled {
				w.view.clear()
				p.say("left command %s as it is", id)
				return &statusError{status: statusInterrupted}
			}
			cancelled = true
			w.view.clear()
			p.say("cancelling; interrupt again to leave it as it is")
			if err := cancelCommand(ctx, api, id); err != nil {
				p.report(err)
			}
		}
	}
}

func cancelCommand(ctx context.Context, api *client.API, id string) error {
	ctx, cancel := context.WithTimeout(ctx, cancelPatience)
	defer cancel()
	_, err := api.SSM.CancelCommand(ctx, &ssm.CancelCommandInput{CommandId: &id})
	return err
}

// runLost tells that nothing more can be learned of a command, which goes on.
func (p *program) runLost(err error, id string) error {
	p.report(fmt.Errorf("watching command %s: %w", id, err))
	p.hint("the command goes on; aws ssm list-command-invocations --command-id " + id + " shows how far it is")
	return &statusError{status: statusNoAccess}
}
