package document

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// MaxSize bounds the text of a document, in bytes (the documented quota).
const MaxSize = 64 << 10

// Types of documents.
const (
	TypeSession = "Session"
	TypeCommand = "Command"
)

// Session types (docs/protocol.md §26.1).
const (
	StandardStream         = "Standard_Stream"
	Port                   = "Port"
	InteractiveCommands    = "InteractiveCommands"
	NonInteractiveCommands = "NonInteractiveCommands"
)

// Preferences is the name of the document that sessions use when they name none,
// and whose inputs are the preferences of the others.
const Preferences = "SSM-SessionManagerRunShell"

// defaultIdle is how long a session may be idle unless its document says otherwise.
const defaultIdle = 20 * time.Minute

// Error is a mistake in the text of a document. Line and column count from 1 and
// are 0 where they are not known.
type Error struct {
	Document     string // name
	Path         string // inputs.runAsEnabled
	Line, Column int
	Problem      string
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "document %q: ", e.Document)
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d, column %d: ", e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Document is a parsed and checked document.
type Document struct {
	Name          string
	Type          string // TypeSession, TypeCommand, or one of those of approval.go
	SchemaVersion string
	Description   string
	SessionType   string // of session documents
	Inputs        Inputs // of session documents
	Parameters    map[string]Parameter
	Approval      *Approval // of documents of TypeManualApproval
	root          *node
	content       string // of opaque documents
}

// Inputs are the preferences of a session.
type Inputs struct {
	S3BucketName                string       `json:"s3BucketName"`
	S3KeyPrefix                 string       `json:"s3KeyPrefix"`
	S3EncryptionEnabled         bool         `json:"s3EncryptionEnabled"`
	CloudWatchLogGroupName      string       `json:"cloudWatchLogGroupName"`
	CloudWatchEncryptionEnabled bool         `json:"cloudWatchEncryptionEnabled"`
	CloudWatchStreamingEnabled  bool         `json:"cloudWatchStreamingEnabled"`
	KMSKeyID                    string       `json:"kmsKeyId"`
	RunAsEnabled                bool         `json:"runAsEnabled"`
	RunAsDefaultUser            string       `json:"runAsDefaultUser"`
	ShellProfile                ShellProfile `json:"shellProfile"`
	IdleSessionTimeout          string       `json:"idleSessionTimeout"` // minutes
	MaxSessionDuration          string       `json:"maxSessionDuration"` // minutes
}

// ShellProfile is typed into a shell when it starts.
type ShellProfile struct {
	Linux   string `json:"linux"`
	MacOS   string `json:"macos"` // read by our agent only
	Windows string `json:"windows"`
}

// Parse reads a document in JSON or YAML. It refuses what an agent would refuse,
// often without a word, and keys that mean nothing; values of the wrong type whose
// meaning is clear ("true" for true) are put right. Errors are of type *Error.
func Parse(name string, b []byte) (*Document, error) {
	root, err := parseTree(b)
	if err == nil {
		err = checkCharacters(root, "")
	}
	if err == nil {
		var d *Document
		if d, err = check(name, root); err == nil {
			return d, nil
		}
	}
	if e, ok := err.(*Error); ok {
		e.Document = name
		return nil, e
	}
	return nil, fmt.Errorf("document %q: %w", name, err)
}

func check(name string, root *node) (*Document, error) {
	if root.kind != kindObject {
		return nil, root.fault("", "a document is an object, not %s", root.kind)
	}
	version := root.field("schemaVersion")
	if version == nil {
		return nil, root.fault("schemaVersion", `is missing; "1.0" for session documents, "2.2" for command documents`)
	}
	if err := text(version, "schemaVersion"); err != nil {
		return nil, err
	}
	d := &Document{Name: name, SchemaVersion: version.text, root: root}
	switch version.text {
	case "1.0":
		d.Type = TypeSession
		return d, d.checkSession()
	case "1.2", "2.0", "2.2":
		if root.field("sessionType") != nil {
			return nil, version.fault("schemaVersion", `must be "1.0": the document has a sessionType, as those of sessions have`)
		}
		d.Type = TypeCommand
		return d, d.checkCommand()
	}
	return nil, version.fault("schemaVersion", `must be "1.0" for session documents or "1.2", "2.0" or "2.2" for command documents`)
}

func (d *Document) checkSession() error {
	err := object(d.root, "", map[string]rule{
		"schemaVersion": text,
		"description":   text,
		"sessionType":   oneOf(StandardStream, Port, InteractiveCommands, NonInteractiveCommands),
		"inputs":        checkInputs,
		"parameters":    d.checkParameters,
		"properties":    anyObject,
	})
	if err != nil {
		return err
	}
	if err := required(d.root, "", "sessionType"); err != nil {
		return err
	}
	d.SessionType = d.root.field("sessionType").text
	if err := checkProperties(d.root, d.SessionType); err != nil {
		return err
	}
	return d.finish()
}

// finish reads the checked tree into fields and looks at what refers to parameters.
func (d *Document) finish() error {
	if n := d.root.field("description"); n != nil {
		d.Description = n.text
	}
	for _, section := range []string{"inputs", "properties", "mainSteps", "runtimeConfig"} {
		if n := d.root.field(section); n != nil {
			if err := d.checkPlaceholders(n, section); err != nil {
				return err
			}
		}
	}
	return d.readInputs()
}

func (d *Document) readInputs() error {
	d.Inputs = Inputs{}
	n := d.root.field("inputs")
	if n == nil {
		return nil
	}
	return json.Unmarshal(n.json(), &d.Inputs)
}

// Content returns the document as JSON in the form that agents accept; an opaque one as
// a string.
func (d *Document) Content() json.RawMessage {
	if d.root == nil {
		return appendText(nil, d.content)
	}
	return d.root.json()
}

// YAML returns the document as YAML.
func (d *Document) YAML() ([]byte, error) { return yaml.JSONToYAML(d.Content()) }

// JSON returns the document as indented JSON, for people.
func (d *Document) JSON() ([]byte, error) { return json.MarshalIndent(d.Content(), "", "  ") }

// IdleTimeout is how long a session may be idle: 1 to 60 minutes, 20 unless set.
func (d *Document) IdleTimeout() time.Duration {
	if m := minutesOf(d.Inputs.IdleSessionTimeout); m > 0 {
		return m
	}
	return defaultIdle
}

// MaxDuration is how long a session may last: 1 to 1440 minutes, 0 for no limit.
func (d *Document) MaxDuration() time.Duration { return minutesOf(d.Inputs.MaxSessionDuration) }

// WithPreferences returns d with the inputs of prefs where d has none, as sessions
// other than shells take them over. Shell profiles are for shells only. Documents
// that are not for sessions, or have inputs of their own throughout, are unchanged.
func (d *Document) WithPreferences(prefs *Document) *Document {
	from := prefs.root.field("inputs")
	if d.Type != TypeSession || d.SessionType == StandardStream || from == nil {
		return d
	}
	out := *d
	out.root = d.root.clone()
	to := out.root.field("inputs")
	if to == nil {
		to = newObject()
		out.root.set("inputs", to)
	}
	for _, key := range from.keys {
		if old := to.field(key); key != "shellProfile" && (old == nil || old.text == "") {
			to.set(key, from.field(key).clone())
		}
	}
	_ = out.readInputs() // both were checked
	return &out
}

// WithRunAs returns d with run-as switched on, for a session that has a login although
// the document asks for none.
func (d *Document) WithRunAs() *Document {
	if d.Inputs.RunAsEnabled {
		return d
	}
	out := *d
	out.root = d.root.clone()
	inputs := out.root.field("inputs")
	if inputs == nil {
		inputs = newObject()
		out.root.set("inputs", inputs)
	}
	enabled := &node{}
	enabled.setBool(true)
	inputs.set("runAsEnabled", enabled)
	out.Inputs.RunAsEnabled = true
	return &out
}

// outputs are the inputs that say where the server writes the text of a session.
var outputs = []string{
	"s3BucketName", "s3KeyPrefix", "s3EncryptionEnabled",
	"cloudWatchLogGroupName", "cloudWatchEncryptionEnabled", "cloudWatchStreamingEnabled",
}

// WithoutOutputs returns d without the inputs that say where the text of a session is
// written: the server does it, and an agent that read them would try to, too.
func (d *Document) WithoutOutputs() *Document {
	inputs := d.root.field("inputs")
	if inputs == nil {
		return d
	}
	out := *d
	out.root = d.root.clone()
	inputs = out.root.field("inputs")
	for _, key := range outputs {
		delete(inputs.fields, key)
	}
	inputs.keys = slices.DeleteFunc(inputs.keys, func(key string) bool { return slices.Contains(outputs, key) })
	_ = out.readInputs() // they were checked
	return &out
}

// Platforms lists the platforms that d is for, in AWS's words: Linux, MacOS, Windows.
func (d *Document) Platforms() []string {
	all := map[string]string{"linux": "Linux", "macos": "MacOS", "windows": "Windows"}
	out := []string{}
	for key, name := range all {
		if d.Type == TypeManualApproval || d.Type == TypeAutoApproval {
			break // it runs nowhere
		}
		commands := d.SessionType == InteractiveCommands || d.SessionType == NonInteractiveCommands
		if !commands || d.root.field("properties").field(key) != nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
