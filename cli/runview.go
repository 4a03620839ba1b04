package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"

	"sallyport.dev/client"
)

// runView shows a command: what nodes said as they end, and on a terminal a line below
// that tells how far it is.
type runView struct {
	p     *program
	id    string
	terms []string // that select nodes
	total int
	nodes map[string]client.CommandNode // as last heard of, without outputs
	names map[string]int                // how many nodes bear a name
	held  []client.CommandNode          // ended, but not all names are known yet
	live  bool                          // standard error is a terminal
	plain bool                          // standard output is none, so that nothing is made visible in it
	drawn bool
	line  string
}

func (p *program) newRunView(id string, terms []string) *runView {
	return &runView{p: p, id: id, terms: terms, nodes: map[string]client.CommandNode{}, names: map[string]int{},
		live: isTerminal(p.stderr), plain: !isTerminal(p.stdout)}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// runNode is the contract of "run --json": one line per node as it ends.
type runNode struct {
	Type       string     `json:"type"` // node
	CommandID  string     `json:"command_id"`
	NodeID     string     `json:"node_id"`
	NodeName   string     `json:"node_name,omitempty"`
	Status     string     `json:"status"`                // Success, Failed, Cancelled, TimedOut
	Details    string     `json:"details"`               // beside these DeliveryTimedOut, ExecutionTimedOut, AccessDenied, Undeliverable, Terminated
	ExitStatus *int       `json:"exit_status,omitempty"` // of the last step that ran
	Stdout     string     `json:"stdout"`
	Stderr     string     `json:"stderr"`
	Trace      string     `json:"trace,omitempty"` // what the agent said of the whole
	Started    *time.Time `json:"started,omitempty"`
	Ended      *time.Time `json:"ended,omitempty"`
	Steps      []runStep  `json:"steps,omitempty"` // where there are several
}

type runStep struct {
	Name       string `json:"name"`
	Status     string `json:"status"`
	ExitStatus int    `json:"exit_status"`
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
}

// runSummary is the last line of "run --json".
type runSummary struct {
	Type      string         `json:"type"` // summary
	CommandID string         `json:"command_id"`
	Status    string         `json:"status"`
	Details   string         `json:"details"`
	Nodes     int            `json:"nodes"`
	Counts    map[string]int `json:"counts"` // nodes by details
}

// node takes what was heard of a node and shows its end, once it is known which names
// tell one node from another.
func (v *runView) node(n client.CommandNode) {
	before, known := v.nodes[n.NodeID]
	if !known {
		v.names[n.NodeName]++
	}
	v.nodes[n.NodeID] = client.CommandNode{NodeID: n.NodeID, NodeName: n.NodeName, Status: n.Status, StatusDetails: n.StatusDetails}
	if client.Ended(before.Status) || !client.Ended(n.Status) {
		return
	}
	v.held = append(v.held, n)
	if len(v.nodes) >= v.total {
		v.showHeld()
	}
}

func (v *runView) showHeld() {
	for _, n := range v.held {
		v.show(n)
	}
	v.held = nil
}

// show shows the end of a node.
func (v *runView) show(n client.CommandNode) {
	v.clear()
	if v.p.flags.json {
		if err := encodeJSON(v.p.stdout, v.json(n), ""); err != nil {
			v.p.logger().Debug("writing", "error", err)
		}
		return
	}
	v.outputs(n)
	if text := nodeEnd(n); text != "" || !v.live {
		fmt.Fprintf(v.p.stderr, "%s: %s\n", v.name(n), orSuccess(text))
	}
}

func orSuccess(s string) string {
	if s == "" {
		return "success"
	}
	return s
}

// name is what a node is called here: with its id where others are called the same, as
// nodes are that nobody named.
func (v *runView) name(n client.CommandNode) string {
	switch name := client.CleanLine(n.NodeName); {
	case name == "":
		return client.CleanLine(n.NodeID)
	case v.names[n.NodeName] > 1:
		return name + " " + client.CleanLine(n.NodeID)
	default:
		return name
	}
}

// outputs writes what a node said, every line with its name.
func (v *runView) outputs(n client.CommandNode) {
	for _, s := range n.Steps {
		v.lines(v.p.stdout, v.name(n), s.StandardOutput)
		v.lines(v.p.stderr, v.name(n), s.StandardError)
	}
}

func (v *runView) lines(w io.Writer, name, text string) {
	if text == "" {
		return
	}
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if !v.plain || w == v.p.stderr {
			line = visibleLine(line)
		}
		b.WriteString(name + ": " + line + "\n")
	}
	io.WriteString(w, b.String())
}

// visibleLine makes what acts on a terminal visible; spaces and tabs stay.
func visibleLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// nodeEnd says how a command ended on a node; nothing for success.
func nodeEnd(n client.CommandNode) string {
	switch n.StatusDetails {
	case "Success":
		return ""
	case "DeliveryTimedOut":
		return "not reached in time"
	case "ExecutionTimedOut":
		return "took too long"
	case "AccessDenied":
		return "you may not run commands here"
	case "Undeliverable":
		return "the node is gone"
	case "Terminated":
		return "not run, for too many others failed"
	case "Cancelled":
		return "cancelled"
	}
	text := strings.ToLower(client.CleanLine(n.StatusDetails))
	if code := lastExit(n); code != nil && *code != 0 {
		text += fmt.Sprintf(", exit status %d", *code)
	}
	if n.Trace != "" {
		text += ": " + client.CleanLine(n.Trace)
	}
	return text
}

// lastExit is the exit status of the last step that ended.
func lastExit(n client.CommandNode) *int {
	for i := len(n.Steps) - 1; i >= 0; i-- {
		if client.Ended(n.Steps[i].Status) {
			return &n.Steps[i].ExitStatus
		}
	}
	return nil
}

func (v *runView) json(n client.CommandNode) runNode {
	out := runNode{Type: "node", CommandID: v.id, NodeID: n.NodeID, NodeName: n.NodeName, Status: n.Status, Details: n.StatusDetails,
		ExitStatus: lastExit(n), Trace: n.Trace, Started: moment(n.Started), Ended: moment(n.Ended)}
	for _, s := range n.Steps {
		out.Stdout += s.StandardOutput
		out.Stderr += s.StandardError
		if len(n.Steps) > 1 {
			out.Steps = append(out.Steps, runStep{s.Name, s.Status, s.ExitStatus, s.StandardOutput, s.StandardError})
		}
	}
	return out
}

// draw renews the line that tells how far it is.
func (v *runView) draw() {
	if !v.live {
		return
	}
	done, failed, running := 0, 0, 0
	for _, n := range v.nodes {
		switch {
		case client.Ended(n.Status):
			done++
			if n.Status != "Success" {
				failed++
			}
		case n.Status == "InProgress" || n.Status == "Cancelling":
			running++
		}
	}
	line := fmt.Sprintf("%d of %d done", done, max(v.total, len(v.nodes)))
	if failed > 0 {
		line += fmt.Sprintf(", %d not well", failed)
	}
	line += fmt.Sprintf(", %d running, %d waiting", running, max(v.total, len(v.nodes))-done-running)
	if v.drawn && line == v.line {
		return
	}
	v.line, v.drawn = line, true
	fmt.Fprintf(v.p.stderr, "\r\x1b[K%s", line)
}

// clear takes the line away.
func (v *runView) clear() {
	if v.drawn {
		fmt.Fprint(v.p.stderr, "\r\x1b[K")
		v.drawn = false
	}
}

// finish writes the summary and turns it into the exit status.
func (v *runView) finish(end runEnd, cancelled bool) error {
	v.showHeld()
	v.clear()
	counts := map[string]int{}
	for _, n := range v.nodes {
		counts[n.StatusDetails]++
	}
	if v.p.flags.json {
		err := encodeJSON(v.p.stdout, runSummary{"summary", v.id, end.status, end.details, len(v.nodes), counts}, "")
		if err != nil {
			return err
		}
	} else {
		v.p.say("%s", v.summary(counts))
	}
	switch {
	case cancelled:
		return &statusError{status: statusInterrupted}
	case len(v.nodes) == 0 || counts["Success"] < len(v.nodes):
		return &statusError{status: statusRefused}
	}
	return nil
}

// summaryWords are what nodes by their details are called in summaries, in this order.
var summaryWords = []summaryWord{
	{"Success", "succeeded"},
	{"Failed", "failed"},
	{"ExecutionTimedOut", "took too long"},
	{"DeliveryTimedOut", "not reached"},
	{"Cancelled", "cancelled"},
	{"Terminated", "not run"},
	{"AccessDenied", "not allowed"},
	{"Undeliverable", "gone"},
}

type summaryWord struct{ details, word string }

func (v *runView) summary(counts map[string]int) string {
	if len(v.nodes) == 0 {
		return client.CleanLine("no node matches " + strings.Join(v.terms, " "))
	}
	text := fmt.Sprintf("%d nodes", len(v.nodes))
	if len(v.nodes) == 1 {
		text = "1 node"
	}
	var parts []string
	for _, w := range summaryWords {
		if n := counts[w.details]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, w.word))
		}
	}
	var others []string
	for details, n := range counts {
		if slices.ContainsFunc(summaryWords, func(w summaryWord) bool { return w.details == details }) {
			continue
		}
		others = append(others, fmt.Sprintf("%d %s", n, client.CleanLine(details)))
	}
	slices.Sort(others)
	return text + ": " + strings.Join(append(parts, others...), ", ") + " (command " + v.id + ")"
}
