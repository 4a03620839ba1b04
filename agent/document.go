package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"sallyport.dev/agent/forward"
	"sallyport.dev/wire"
)

// Session types (docs/protocol.md §26).
const (
	typeShell          = "Standard_Stream"
	typeInteractive    = "InteractiveCommands"
	typeNonInteractive = "NonInteractiveCommands"
	typePort           = "Port"
)

// sessionDocument is what the agent reads of a session document.
type sessionDocument struct {
	SchemaVersion string                   `json:"schemaVersion"`
	SessionType   string                   `json:"sessionType"`
	Inputs        map[string]any           `json:"inputs"`
	Parameters    map[string]parameterForm `json:"parameters"`
	Properties    any                      `json:"properties"`
}

type parameterForm struct {
	Default        any    `json:"default"`
	AllowedPattern string `json:"allowedPattern"`
}

// inputs are the session's preferences that concern the node.
type inputs struct {
	KMSKeyID         string   `json:"kmsKeyId"`
	RunAsEnabled     flexBool `json:"runAsEnabled"`
	RunAsDefaultUser string   `json:"runAsDefaultUser"`
	KeepDetached     flexBool `json:"keepDetached"` // ours (docs/protocol.md §28.5)
	ShellProfile     struct {
		Linux string `json:"linux"`
		MacOS string `json:"macos"`
	} `json:"shellProfile"`
}

// commandProperties are the properties of the two command types.
type commandProperties struct {
	Commands             any      `json:"commands"`
	RunAsElevated        bool     `json:"runAsElevated"`
	SeparateOutputStream flexBool `json:"separateOutputStream"`
	StdOutPrefix         string   `json:"stdOutSeparatorPrefix"`
	StdErrPrefix         string   `json:"stdErrSeparatorPrefix"`
}

// flexBool is a boolean that documents also write as a string.
type flexBool bool

// UnmarshalJSON accepts true, "true" (as strconv.ParseBool knows it) and "".
func (f *flexBool) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		*f = false
		return nil
	case bool:
		*f = flexBool(v)
		return nil
	case string:
		if v == "" {
			*f = false
			return nil
		}
		if on, err := strconv.ParseBool(v); err == nil {
			*f = flexBool(on)
			return nil
		}
	}
	return fmt.Errorf("%s is neither true nor false", b)
}

// plan is a session document with its parameters filled in.
type plan struct {
	sessionType string
	in          inputs
	command     commandProperties
	commands    string
	port        forward.Properties // of a Port session
	properties  json.RawMessage    // and all of them, for the client
}

// readPlan reads the document of a session. Errors are for the person who started it.
func readPlan(start wire.StartSession) (plan, error) {
	var doc sessionDocument
	if err := json.Unmarshal(start.DocumentContent, &doc); err != nil {
		return plan{}, fmt.Errorf("invalid session document: %w", err)
	}
	if doc.SchemaVersion != "1.0" {
		return plan{}, fmt.Errorf("session document schema version %q is not supported: it must be 1.0", doc.SchemaVersion)
	}
	values, err := parameterValues(doc.Parameters, start.Parameters)
	if err != nil {
		return plan{}, err
	}
	p := plan{sessionType: doc.SessionType}
	if err := convert(fill(map[string]any(doc.Inputs), values), &p.in); err != nil {
		return plan{}, fmt.Errorf("invalid inputs in session document: %w", err)
	}
	if p.encrypted() && start.Exec != nil {
		// Going on in the clear would break the promise the document makes.
		return plan{}, errors.New("the session document demands encryption with a KMS key, which sessions of an SSH server's kind do not have")
	}
	switch p.sessionType {
	case typeShell:
		return p, nil
	case typeInteractive, typeNonInteractive:
		if start.Exec != nil && start.Exec.Subsystem != "" {
			return p, nil // the agent serves it itself
		}
		return p, p.readCommand(fill(doc.Properties, values))
	case typePort:
		return p, p.readPort(fill(doc.Properties, values))
	}
	return plan{}, fmt.Errorf("session type %q is not supported", p.sessionType)
}

func (p *plan) readCommand(properties any) error {
	var byPlatform map[string]any
	if err := convert(properties, &byPlatform); err != nil {
		return fmt.Errorf("invalid format in session properties: %w", err)
	}
	if err := convert(byPlatform[platform()], &p.command); err != nil {
		return fmt.Errorf("invalid format in session properties: %w", err)
	}
	commands, err := oneString(p.command.Commands)
	if err != nil {
		return fmt.Errorf("invalid format in session properties: commands: %w", err)
	}
	if strings.TrimSpace(commands) == "" {
		return errors.New("commands cannot be empty in session properties")
	}
	p.commands = commands
	return nil
}

// readPort reads the properties of a Port session, which the client gets to see as well.
func (p *plan) readPort(properties any) error {
	if err := convert(properties, &p.port); err != nil {
		return fmt.Errorf("invalid format in session properties: %w", err)
	}
	return convert(properties, &p.properties)
}

func platform() string {
	if runtime.GOOS == "darwin" {
		return "macos"
	}
	return "linux"
}

// oneString reads a string, also as the only element of a list: the API carries
// parameters as lists.
func oneString(v any) (string, error) {
	if list, ok := v.([]any); ok && len(list) == 1 {
		v = list[0]
	}
	switch s := v.(type) {
	case nil:
		return "", nil
	case string:
		return s, nil
	}
	return "", errors.New("must be a string")
}

// convert reads v, decoded JSON, into the form of out.
func convert(v, out any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

// parameterValues returns the value of each declared parameter, checked against its
// pattern: the server checks as well, but it is this machine that runs the result.
func parameterValues(forms map[string]parameterForm, given map[string]json.RawMessage) (map[string]any, error) {
	values := make(map[string]any)
	for name, form := range forms {
		v := form.Default
		if raw, ok := given[name]; ok {
			if err := json.Unmarshal(raw, &v); err != nil {
				return nil, fmt.Errorf("parameter %s: %w", name, err)
			}
		}
		if v == nil {
			return nil, fmt.Errorf("parameter %s has no value", name)
		}
		if err := form.check(v); err != nil {
			return nil, fmt.Errorf("parameter %s: %w", name, err)
		}
		values[name] = v
	}
	return values, nil
}

func (f parameterForm) check(v any) error {
	if f.AllowedPattern == "" {
		return nil
	}
	re, err := regexp.Compile(f.AllowedPattern)
	if err != nil {
		return fmt.Errorf("allowedPattern: %w", err)
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, e := range list {
		if !re.MatchString(text(e)) {
			return fmt.Errorf("value does not match %s", f.AllowedPattern)
		}
	}
	return nil
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

var (
	placeholder     = regexp.MustCompile(`\{\{\s*([a-zA-Z0-9]+)\s*\}\}`)
	solePlaceholder = regexp.MustCompile(`^\{\{\s*([a-zA-Z0-9]+)\s*\}\}$`)
)

// fill replaces {{ name }} in every string of v. A string that is nothing but one
// placeholder becomes the value itself, of whatever type. Values are not searched
// for placeholders in their turn.
func fill(v any, values map[string]any) any {
	switch v := v.(type) {
	case string:
		return fillString(v, values)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = fill(e, values)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = fill(e, values)
		}
		return out
	}
	return v
}

func fillString(s string, values map[string]any) any {
	if m := solePlaceholder.FindStringSubmatch(s); m != nil {
		if v, ok := values[m[1]]; ok {
			return v
		}
		return s
	}
	return placeholder.ReplaceAllStringFunc(s, func(p string) string {
		v, ok := values[placeholder.FindStringSubmatch(p)[1]]
		if !ok {
			return p
		}
		return strings.ReplaceAll(text(v), "$$", "$")
	})
}
