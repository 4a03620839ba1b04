package document

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

var (
	placeholder    = regexp.MustCompile(`{{\s*([A-Za-z0-9]+)\s*}}`)
	wholeValue     = regexp.MustCompile(`^{{\s*([A-Za-z0-9]+)\s*}}$`)
	parameterStore = regexp.MustCompile(`{{\s*ssm:`)
)

// solePlaceholder returns the parameter that s consists of, or "".
func solePlaceholder(s string) string {
	if m := wholeValue.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// checkPlaceholders refuses references to parameters that are not declared, which
// the agent would pass on as they stand, and to the parameter store.
func (d *Document) checkPlaceholders(n *node, path string) error {
	for i, item := range n.items {
		if err := d.checkPlaceholders(item, indexed(path, i)); err != nil {
			return err
		}
	}
	for _, key := range n.keys {
		if err := d.checkPlaceholders(n.field(key), joined(path, key)); err != nil {
			return err
		}
	}
	if n.kind != kindText {
		return nil
	}
	if parameterStore.MatchString(n.text) {
		return n.fault(path, "%v", errParameterStore)
	}
	for _, m := range placeholder.FindAllStringSubmatch(n.text, -1) {
		if _, ok := d.Parameters[m[1]]; !ok {
			return n.fault(path, "refers to parameter %q, which the document does not declare", m[1])
		}
	}
	return nil
}

// maxResolved bounds what the parameters that are put into a document come to, in bytes:
// a short document can name a long one very often.
const maxResolved = 4 * MaxSize

// substitution puts values in place of placeholders.
type substitution struct {
	values map[string]*node
	left   int // bytes that may still be put in
}

// put replaces the placeholders in every string below n as the agent does
// (docs/protocol.md §26.3): a string that is nothing but a placeholder becomes the
// value itself, of whatever type; elsewhere the value's text is put in. What is put
// in is not looked at again.
func (s *substitution) put(n *node, path string) error {
	for i, item := range n.items {
		if err := s.put(item, indexed(path, i)); err != nil {
			return err
		}
	}
	for _, key := range n.keys {
		if err := s.put(n.field(key), joined(path, key)); err != nil {
			return err
		}
	}
	if n.kind != kindText {
		return nil
	}
	if !s.affords(n.text) {
		return n.fault(path, "becomes too long: parameters may add %d bytes to a document", maxResolved)
	}
	s.fill(n)
	return nil
}

// affords takes what the placeholders of a text come to out of what is left, if that is
// enough.
func (s *substitution) affords(text string) bool {
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if v := s.values[m[1]]; v != nil {
			s.left -= len(textOf(v))
		}
		if s.left < 0 {
			return false
		}
	}
	return true
}

func (s *substitution) fill(n *node) {
	if v := s.values[solePlaceholder(n.text)]; v != nil {
		line, col := n.line, n.col
		*n = *v.clone()
		n.line, n.col = line, col
		return
	}
	n.text = placeholder.ReplaceAllStringFunc(n.text, func(name string) string {
		v := s.values[solePlaceholder(name)]
		if v == nil {
			return name
		}
		return strings.ReplaceAll(textOf(v), "$$", "$")
	})
}

// Resolved is a session document with its parameters put in.
type Resolved struct {
	SessionType string
	Inputs      Inputs
	Properties  json.RawMessage // null if there are none; passed to the client for Port
	Port        *PortProperties
	Commands    map[string]*CommandProperties // by platform: linux, macos, windows
}

// PortProperties say what a Port session connects.
type PortProperties struct {
	PortNumber          string `json:"portNumber"`
	Host                string `json:"host"`
	UnixSocket          string `json:"unixSocket"` // on the node; instead of host and port
	Type                string `json:"type"`
	LocalPortNumber     string `json:"localPortNumber"`
	LocalUnixSocket     string `json:"localUnixSocket"`
	LocalConnectionType string `json:"localConnectionType"`
}

// CommandProperties say what a command session runs on one platform.
type CommandProperties struct {
	Commands              string `json:"commands"`
	RunAsElevated         bool   `json:"runAsElevated"`
	SeparateOutputStream  bool   `json:"separateOutputStream"`
	StdOutSeparatorPrefix string `json:"stdOutSeparatorPrefix"`
	StdErrSeparatorPrefix string `json:"stdErrSeparatorPrefix"`
}

// Resolve puts values, as Fill returns them, into a session document. Parameters
// that have no value take their defaults.
func (d *Document) Resolve(values map[string]json.RawMessage) (*Resolved, error) {
	nodes, err := d.nodes(values)
	if err != nil {
		return nil, err
	}
	parameters := &substitution{values: nodes, left: maxResolved}
	root := d.root.clone()
	out := &Resolved{SessionType: d.SessionType, Properties: json.RawMessage("null")}
	if n := root.field("inputs"); n != nil {
		if err := parameters.put(n, "inputs"); err != nil {
			return nil, d.named(err)
		}
		if err := recheck(n, "inputs", checkInputs, &out.Inputs); err != nil {
			return nil, d.named(err)
		}
	}
	n := root.field("properties")
	if n == nil {
		return out, nil
	}
	if err := parameters.put(n, "properties"); err != nil {
		return nil, d.named(err)
	}
	if err := checkProperties(root, d.SessionType); err != nil {
		return nil, d.named(err)
	}
	if err := filled(n); err != nil {
		return nil, d.named(err)
	}
	out.Properties = n.json()
	return out, d.named(out.read(n, d.SessionType))
}

// filled refuses a port or a socket that is still a placeholder: one that a value
// brought in.
func filled(n *node) error {
	for _, key := range []string{"portNumber", "unixSocket"} {
		if f := n.field(key); f != nil && placeholder.MatchString(f.text) {
			return f.fault("properties."+key, "holds a placeholder for which there is no value")
		}
	}
	return nil
}

func (r *Resolved) read(n *node, sessionType string) error {
	switch sessionType {
	case Port:
		return json.Unmarshal(r.Properties, &r.Port)
	case InteractiveCommands, NonInteractiveCommands:
		for _, key := range n.keys {
			if err := typed(n.field(key)); err != nil {
				return err
			}
		}
		return json.Unmarshal(n.json(), &r.Commands)
	}
	return nil
}

// typed makes booleans of the flags that parameters gave as text.
func typed(platform *node) error {
	for _, key := range []string{"runAsElevated", "separateOutputStream"} {
		if f := platform.field(key); f != nil {
			if err := flag(f, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func recheck(n *node, path string, check rule, v any) error {
	if err := check(n, path); err != nil {
		return err
	}
	return json.Unmarshal(n.json(), v)
}

func (d *Document) named(err error) error {
	if e, ok := err.(*Error); ok {
		e.Document = d.Name
	}
	return err
}

func (d *Document) nodes(values map[string]json.RawMessage) (map[string]*node, error) {
	out := make(map[string]*node, len(d.Parameters))
	for name, p := range d.Parameters {
		raw, ok := values[name]
		if !ok {
			raw = p.Default
		}
		if raw == nil {
			continue
		}
		n, err := parseJSON(raw)
		if err != nil {
			return nil, &ParameterError{name, err.Error()}
		}
		out[name] = n
	}
	return out, nil
}

// Lint returns what is allowed but unwise: a parameter pasted into a command line
// with nothing that limits what it may hold, so that whoever may use the document
// may run anything. A command that is nothing but a parameter says so itself.
func (d *Document) Lint() []string {
	var out []string
	for _, platform := range []string{"linux", "macos", "windows"} {
		n := d.root.field("properties").field(platform).field("commands")
		if n == nil || solePlaceholder(n.text) != "" {
			continue
		}
		for _, m := range placeholder.FindAllStringSubmatch(n.text, -1) {
			p := d.Parameters[m[1]]
			if p.AllowedPattern == "" && len(p.AllowedValues) == 0 && (p.Type == ParameterString || p.Type == ParameterStringList) {
				out = append(out, "properties."+platform+".commands: parameter "+strconv.Quote(p.Name)+
					" has neither allowedPattern nor allowedValues, so its value can add commands")
			}
		}
	}
	return out
}
