package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/wire"
)

// pluginShell is the one plugin that this agent knows.
const pluginShell = "aws:runShellScript"

const (
	defaultStepTimeout = time.Hour
	maxStepTimeout     = 48 * time.Hour
	maxJobSteps        = 50
	// interpolateByEnvironment marks parameters that are handed to scripts as SSM_NAME
	// and not written into them.
	interpolateByEnvironment = "ENV_VAR"
)

// jobDocument is what the agent reads of a command document.
type jobDocument struct {
	SchemaVersion string                      `json:"schemaVersion"`
	Parameters    map[string]jobParameter     `json:"parameters"`
	MainSteps     []jobStep                   `json:"mainSteps"`     // from 2.0
	RuntimeConfig map[string]jobPluginSection `json:"runtimeConfig"` // 1.2
}

type jobParameter struct {
	parameterForm
	InterpolationType string `json:"interpolationType"`
}

type jobStep struct {
	Action       string              `json:"action"`
	Name         string              `json:"name"`
	Inputs       map[string]any      `json:"inputs"`
	Precondition map[string][]string `json:"precondition"`
	OnFailure    string              `json:"onFailure"`
	OnSuccess    string              `json:"onSuccess"`
}

type jobPluginSection struct {
	Properties any `json:"properties"` // an object, or a list of them
}

// step is one step of a command, with its parameters filled in.
type step struct {
	name, plugin string
	script       string
	dir          string
	timeout      time.Duration
	environment  map[string]string
	skip         string // why it is not for this machine
	unsupported  string // why it cannot be run
	// What happens after it: exit and successAndExit end the command.
	onFailure, onSuccess string
	finally              bool // runs whatever came before
}

// readJob reads the steps of a command. Errors are for the person who sent it.
func readJob(c wire.Command) ([]step, error) {
	var doc jobDocument
	if err := json.Unmarshal(c.DocumentContent, &doc); err != nil {
		return nil, fmt.Errorf("invalid command document: %w", err)
	}
	values, environment, err := doc.values(c.Parameters)
	if err != nil {
		return nil, err
	}
	sections, err := doc.steps()
	if err != nil {
		return nil, err
	}
	if len(sections) == 0 || len(sections) > maxJobSteps {
		return nil, fmt.Errorf("command document has %d steps, must have 1 to %d", len(sections), maxJobSteps)
	}
	var steps []step
	for _, s := range sections {
		one, err := s.read(values)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", s.Name, err)
		}
		one.environment = environment
		steps = append(steps, one)
	}
	return steps, nil
}

// steps returns the steps of either kind of document.
func (d jobDocument) steps() ([]jobStep, error) {
	switch d.SchemaVersion {
	case "2.0", "2.0.1", "2.0.2", "2.0.3", "2.2":
		return d.MainSteps, nil
	case "1.0", "1.2":
	default:
		return nil, fmt.Errorf("command document schema version %q is not supported", d.SchemaVersion)
	}
	var out []jobStep
	for plugin, section := range d.RuntimeConfig {
		var list []map[string]any
		if convert(section.Properties, &list) != nil {
			list = make([]map[string]any, 1)
			if err := convert(section.Properties, &list[0]); err != nil {
				return nil, fmt.Errorf("properties of %s: %w", plugin, err)
			}
		}
		for i, inputs := range list {
			name := plugin
			if len(list) > 1 {
				name = strconv.Itoa(i) + "." + plugin
			}
			out = append(out, jobStep{Action: plugin, Name: name, Inputs: inputs})
		}
	}
	slices.SortStableFunc(out, func(a, b jobStep) int { return strings.Compare(a.Action, b.Action) })
	return out, nil
}

// values returns what to put into the document's text, and what scripts get in their
// environment instead: text that nobody has put between quotes stays out of scripts.
func (d jobDocument) values(given map[string]json.RawMessage) (values map[string]any, environment map[string]string, err error) {
	forms := map[string]parameterForm{}
	for name, p := range d.Parameters {
		forms[name] = p.parameterForm
	}
	if values, err = parameterValues(forms, given); err != nil {
		return nil, nil, err
	}
	environment = map[string]string{}
	for name, p := range d.Parameters {
		if p.InterpolationType == interpolateByEnvironment {
			environment["SSM_"+name] = text(values[name])
			delete(values, name)
		}
	}
	return values, environment, nil
}

func (s jobStep) read(values map[string]any) (step, error) {
	out := step{name: s.Name, plugin: s.Action, onFailure: s.OnFailure, onSuccess: s.OnSuccess, timeout: defaultStepTimeout}
	if why, err := s.unmet(); err != nil || why != "" {
		out.skip = why
		return out, err
	}
	if s.Action != pluginShell {
		out.unsupported = "plugin " + s.Action + " is not supported by this agent: it runs " + pluginShell
		return out, nil
	}
	inputs, _ := fill(map[string]any(s.Inputs), values).(map[string]any) // of what it was given
	lines, err := lines(inputs["runCommand"])
	if err != nil {
		return out, fmt.Errorf("runCommand: %w", err)
	}
	out.script = strings.Join(lines, "\n") + "\n"
	if out.dir, err = oneString(inputs["workingDirectory"]); err != nil {
		return out, fmt.Errorf("workingDirectory: %w", err)
	}
	if strings.ContainsRune(out.script+out.dir, 0) {
		return out, errors.New("a script or directory holds a NUL")
	}
	if t := seconds(inputs["timeoutSeconds"]); t > 0 && t <= maxStepTimeout {
		out.timeout = t
	}
	out.after(inputs)
	return out, nil
}

// after reads what is to happen after a step, which AWS puts among its inputs.
func (s *step) after(inputs map[string]any) {
	if v, ok := inputs["onFailure"].(string); ok {
		s.onFailure = v
	}
	if v, ok := inputs["onSuccess"].(string); ok {
		s.onSuccess = v
	}
	s.finally = text(inputs["finallyStep"]) == "true"
}

// unmet says which precondition keeps a step from this machine. There is one kind:
// StringEquals of platformType and a platform.
func (s jobStep) unmet() (string, error) {
	for operator, args := range s.Precondition {
		if operator != "StringEquals" || len(args) != 2 || !slices.Contains(args, "platformType") {
			return "", fmt.Errorf("precondition must be StringEquals of platformType and a platform, not %s %q", operator, args)
		}
		want := args[1]
		if want == "platformType" {
			want = args[0]
		}
		if !strings.EqualFold(want, platformName()) {
			return "the step is for " + want, nil
		}
	}
	return "", nil
}

func platformName() string {
	if runtime.GOOS == "darwin" {
		return "MacOS"
	}
	return "Linux"
}

// lines reads a script: a string, or a list of strings and of lists of them.
func lines(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, e := range v {
			more, err := lines(e)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
		return out, nil
	case nil:
		return nil, errors.New("is missing")
	}
	return nil, errors.New("must be a list of strings")
}

// seconds reads a timeout, a number or its text; 0 for any other.
func seconds(v any) time.Duration {
	var n float64
	switch v := v.(type) {
	case float64:
		n = v
	case string:
		n, _ = strconv.ParseFloat(strings.TrimSpace(v), 64)
	}
	if !(n > 0 && n <= maxStepTimeout.Seconds()) {
		return 0
	}
	return time.Duration(n * float64(time.Second))
}
