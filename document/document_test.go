package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sallyport.dev/internal/vectors"
)

const shell = `{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`

func parse(t *testing.T, text string) *Document {
	t.Helper()
	d, err := Parse("Example", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseJSONAndYAMLAlike(t *testing.T) {
	fromYAML := parse(t, `---
schemaVersion: '1.0'
description: A forward
sessionType: Port
parameters:
  portNumber:
    type: string
    default: 22
    allowedPattern: ^[0-9]+$
properties:
  portNumber: "{{ portNumber }}"
  localPortNumber: 0
`)
	fromJSON := parse(t, `{
		"schemaVersion": "1.0", "description": "A forward", "sessionType": "Port",
		"parameters": {"portNumber": {"type": "String", "default": "22", "allowedPattern": "^[0-9]+$"}},
		"properties": {"portNumber": "{{ portNumber }}", "localPortNumber": "0"}
	}`)
	if diff := cmp.Diff(string(fromJSON.Content()), string(fromYAML.Content())); diff != "" {
		t.Errorf("content (-json +yaml):\n%s", diff)
	}
	if got, want := fromYAML.SessionType, Port; got != want {
		t.Errorf("session type: got %q, want %q", got, want)
	}
}

// The agent takes some fields as booleans only and loses a session over a string.
func TestParsePutsRight(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"string for a strict boolean": {
			`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"cloudWatchStreamingEnabled":"true","runAsEnabled":"T","s3EncryptionEnabled":""}}`,
			`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"cloudWatchStreamingEnabled":true,"runAsEnabled":true,"s3EncryptionEnabled":false}}`,
		},
		"number for minutes": {
			`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":60}}`,
			`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":"60"}}`,
		},
		"null as absent": {
			`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"kmsKeyId":null},"description":null}`,
			`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{}}`,
		},
		"string for runAsElevated, shell signs kept": {
			`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"a && b <c","runAsElevated":"true"}}}`,
			`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"a && b <c","runAsElevated":true}}}`,
		},
		"port number as a number": {
			`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":22}}`,
			`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"22"}}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, string(parse(t, tt.in).Content())); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
		})
	}
}

func manyParameters() string {
	var all []string
	for i := range 201 {
		all = append(all, fmt.Sprintf(`"p%d":{"type":"String"}`, i))
	}
	return strings.Join(all, ",")
}

func manyPatterns() string {
	var all []string
	for i := range 60 {
		all = append(all, fmt.Sprintf(`"p%d":{"type":"String","allowedPattern":"(x{10}){100}"}`, i))
	}
	return strings.Join(all, ",")
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	tests := map[string]struct{ in, want string }{
		"empty":                   {``, `is empty`},
		"not an object":           {`hello`, `line 1, column 1: a document is an object, not a string`},
		"cut off":                 {"{\n  \"schemaVersion\": ", `line 2, column 20: schemaVersion: the text ends too early`},
		"missing comma":           {"{\"schemaVersion\": \"1.0\"\n \"sessionType\": \"Port\"}", `line 2, column 2: `},
		"text after":              {shell + `{}`, `unexpected text after the document`},
		"duplicate key":           {`{"schemaVersion":"1.0","schemaVersion":"1.0"}`, `line 1, column 24: schemaVersion: is given twice`},
		"duplicate in YAML":       {"schemaVersion: '1.0'\nschemaVersion: '1.0'\n", `line 2, column 1: schemaVersion: is given twice`},
		"bad YAML":                {"a: [", `yaml: line 1`},
		"two YAML documents":      {"a: b\n---\nc: d\n", `holds more than one YAML document`},
		"alias":                   {"a: &x b\nc: *x\n", `line 1, column 4: a: YAML anchors and aliases are not allowed`},
		"merge key":               {"<<: {a: b}\n", `keys must be plain words`},
		"YAML tag":                {"a: !!binary aGk=\n", `YAML tag !!binary is not allowed`},
		"not a number":            {"a: .nan\n", `no number that JSON can hold`},
		"not UTF-8":               {"{\"a\":\"\xff\"}", `is not UTF-8 text`},
		"too deep":                {deep, `is nested too deeply`},
		"too large":               {`{"a":"` + strings.Repeat("x", MaxSize) + `"}`, `at most 65536 are allowed`},
		"no version":              {`{"sessionType":"Port"}`, `schemaVersion: is missing`},
		"other version":           {`{"schemaVersion":"0.3"}`, `schemaVersion: must be "1.0"`},
		"version of commands":     {`{"schemaVersion":"2.2","sessionType":"Port"}`, `schemaVersion: must be "1.0": the document has a sessionType`},
		"no session type":         {`{"schemaVersion":"1.0"}`, `sessionType: is missing`},
		"other session type":      {`{"schemaVersion":"1.0","sessionType":"Shell"}`, `sessionType: must be one of Standard_Stream, Port, InteractiveCommands, NonInteractiveCommands`},
		"unknown key":             {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","input":{}}`, `input: is not known here; known are description, inputs,`},
		"misspelt input":          {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnable":true}}`, `inputs.runAsEnable: is not known here`},
		"not a boolean":           {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":"yes"}}`, `inputs.runAsEnabled: must be true or false`},
		"idle too long":           {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":"61"}}`, `inputs.idleSessionTimeout: must be a number of minutes from 1 to 60`},
		"duration zero":           {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"maxSessionDuration":"0"}}`, `inputs.maxSessionDuration: must be a number of minutes from 1 to 1440`},
		"shell properties":        {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","properties":{"linux":{}}}`, `properties: a Standard_Stream document has none`},
		"no port":                 {`{"schemaVersion":"1.0","sessionType":"Port","properties":{}}`, `properties.portNumber: is missing`},
		"port with a sign":        {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"+80"}}`, `must be a port from 1 to 65535`},
		"port with zeros":         {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"0080"}}`, `must be a port from 1 to 65535`},
		"socket and port":         {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"80","unixSocket":"/run/x"}}`, `properties.portNumber: excludes unixSocket`},
		"socket and host":         {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"unixSocket":"/run/x","host":"db"}}`, `properties.host: excludes unixSocket`},
		"relative socket":         {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"unixSocket":"run/x"}}`, `properties.unixSocket: must be an absolute path`},
		"socket by a detour":      {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"unixSocket":"/run/../x"}}`, `properties.unixSocket: must be an absolute path`},
		"NUL":                     {`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"a\u0000b"}}}`, `line 1, column 94: properties.linux.commands: holds the character U+0000`},
		"turned text":             {`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"a \u202e b"}}}`, `properties.linux.commands: holds the character U+202E`},
		"half a character":        {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","description":"\ud800"}`, `description: holds the character U+FFFD`},
		"pattern RE2 has not":     {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","allowedPattern":"(?=x)"}}}`, `parameters.a.allowedPattern: error parsing regexp: invalid or unsupported Perl syntax`},
		"pattern that breaks out": {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","allowedPattern":"x)|(?:.*"}}}`, `parameters.a.allowedPattern: error parsing regexp`},
		"enormous pattern":        {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","allowedPattern":"` + strings.Repeat("x{1000}", 60) + `"}}}`, `parameters.a.allowedPattern: is too large`},
		"many large patterns":     {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{` + manyPatterns() + `}}`, `allowedPattern: makes the patterns of the document too large`},
		"many parameters":         {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{` + manyParameters() + `}}`, `parameters: has 201 parameters; at most 200`},
		"port out of range":       {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"70000"}}`, `must be a port from 1 to 65535 or a parameter`},
		"no platform":             {`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{}}`, `must say what to run`},
		"blank command":           {`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":" "}}}`, `properties.linux.commands: must not be blank`},
		"elevated, not bool":      {`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"id","runAsElevated":"yes"}}}`, `properties.linux.runAsElevated: must be true or false`},
		"bad separator":           {`{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","properties":{"linux":{"commands":"id","stdOutSeparatorPrefix":"not allowed!"}}}`, `stdOutSeparatorPrefix: must be at most 30`},
		"undeclared":              {`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"{{ prot }}"}}`, `properties.portNumber: refers to parameter "prot", which the document does not declare`},
		"parameter store":         {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"shellProfile":{"linux":"echo {{ssm:secret}}"}}}`, `refers to the parameter store`},
		"parameter name":          {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a-b":{"type":"String"}}}`, `names of parameters are letters and digits only`},
		"parameter no type":       {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{}}}`, `parameters.a.type: is missing`},
		"parameter bad type":      {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"Text"}}}`, `parameters.a.type: must be one of String, StringList`},
		"pattern not RE2":         {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","allowedPattern":"(?!x)"}}}`, `parameters.a.allowedPattern: error parsing regexp`},
		"pattern escaping":        {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","allowedPattern":"a)|(?:.*"}}}`, `parameters.a.allowedPattern: error parsing regexp`},
		"default mismatch":        {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","allowedPattern":"^x$","default":"y"}}}`, `parameters.a.default: does not match allowedPattern ^x$`},
		"default wrong type":      {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"Boolean","default":"maybe"}}}`, `parameters.a.default: must be true or false`},
		"limits":                  {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","minChars":3,"maxChars":2}}}`, `minChars 3 exceeds maxChars 2`},
		"ENV_VAR in sessions":     {`{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"a":{"type":"String","interpolationType":"ENV_VAR"}}}`, `is for command documents only`},
		"no steps":                {`{"schemaVersion":"2.2"}`, `mainSteps: is missing`},
		"empty steps":             {`{"schemaVersion":"2.2","mainSteps":[]}`, `mainSteps: must be a list of at least one step`},
		"step without action":     {`{"schemaVersion":"2.2","mainSteps":[{"name":"a"}]}`, `mainSteps[0].action: is missing`},
		"step names twice":        {`{"schemaVersion":"2.2","mainSteps":[{"name":"a","action":"aws:runShellScript"},{"name":"a","action":"aws:runShellScript"}]}`, `mainSteps[1].name: "a" is the name of an earlier step`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("Example", []byte(tt.in))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got error %v, want *Error", err)
			}
			if !strings.HasPrefix(err.Error(), `document "Example": `) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

// A few kilobytes of aliases can stand for gigabytes; they are not expanded at all.
func TestParseYAMLBomb(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	start := time.Now()
	if _, err := Parse("bomb", []byte(bomb)); err == nil {
		t.Error("got no error, want aliases refused")
	}
	long := "a: &a " + strings.Repeat("x", 30000) + "\nb: [" + strings.Repeat("*a,", 10000) + "]\n"
	if _, err := Parse("bomb", []byte(long)); err == nil {
		t.Error("got no error, want aliases refused")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestTimeouts(t *testing.T) {
	d := parse(t, `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":"5","maxSessionDuration":"90"}}`)
	if d.IdleTimeout() != 5*time.Minute || d.MaxDuration() != 90*time.Minute {
		t.Errorf("got %v and %v, want 5m and 90m", d.IdleTimeout(), d.MaxDuration())
	}
	d = parse(t, shell)
	if d.IdleTimeout() != 20*time.Minute || d.MaxDuration() != 0 {
		t.Errorf("got %v and %v, want 20m and no limit", d.IdleTimeout(), d.MaxDuration())
	}
}

const forms = `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{
	"word":{"type":"String","allowedPattern":"[a-z]+","maxChars":5},
	"choice":{"type":"String","allowedValues":["one","two"],"default":"one"},
	"long":{"type":"String","minChars":3,"default":"abc"},
	"list":{"type":"StringList","minItems":1,"maxItems":2,"default":["a"]},
	"flag":{"type":"Boolean","default":false},
	"number":{"type":"Integer","default":3},
	"map":{"type":"StringMap","default":{}},
	"maps":{"type":"MapList","default":[]}
},"properties":{"linux":{"commands":"echo {{ word }} {{ list }}","runAsElevated":"{{ flag }}"}}}`

func TestFill(t *testing.T) {
	got, err := parse(t, forms).Fill(map[string][]string{
		"word": {"hello"}, "list": {"x", "y"}, "flag": {"True"}, "number": {"-7"},
		"map": {`{"k":"v"}`}, "maps": {`[{"a":1},{"b":2}]`},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"word": `"hello"`, "choice": `"one"`, "long": `"abc"`, "list": `["x","y"]`, "flag": `true`,
		"number": `-7`, "map": `{"k":"v"}`, "maps": `[{"a":1},{"b":2}]`,
	}
	for name, w := range want {
		if string(got[name]) != w {
			t.Errorf("%s: got %s, want %s", name, got[name], w)
		}
	}
}

func TestFillRefuses(t *testing.T) {
	tests := map[string]struct {
		params map[string][]string
		want   string
	}{
		"missing":         {nil, `parameter "word": is required`},
		"unknown":         {map[string][]string{"word": {"a"}, "wrod": {"a"}}, `parameter "wrod": is not known: document Example takes choice, flag,`},
		"two values":      {map[string][]string{"word": {"a", "b"}}, `parameter "word": takes one value, got 2`},
		"no value":        {map[string][]string{"word": {}}, `parameter "word": takes one value, got 0`},
		"too long":        {map[string][]string{"word": {"abcdef"}}, `parameter "word": value has 6 characters; at most 5 are allowed`},
		"not allowed":     {map[string][]string{"word": {"a"}, "choice": {"three"}}, `parameter "choice": value "three" is not one of one, two`},
		"too short":       {map[string][]string{"word": {"a"}, "long": {"é☃"}}, `parameter "long": value has 2 characters; at least 3 are needed`},
		"too few":         {map[string][]string{"word": {"a"}, "list": {}}, `parameter "list": has 0 items; at least 1 are needed`},
		"too many":        {map[string][]string{"word": {"a"}, "list": {"a", "b", "c"}}, `parameter "list": has 3 items; at most 2 are allowed`},
		"not a boolean":   {map[string][]string{"word": {"a"}, "flag": {"yes"}}, `parameter "flag": value "yes" is not true or false`},
		"not a number":    {map[string][]string{"word": {"a"}, "number": {"1e3"}}, `parameter "number": value "1e3" is not a whole number`},
		"not an object":   {map[string][]string{"word": {"a"}, "map": {"[]"}}, `parameter "map": value "[]" is not a JSON object`},
		"not objects":     {map[string][]string{"word": {"a"}, "maps": {"[1]"}}, `parameter "maps": holds a number where an object belongs`},
		"not UTF-8":       {map[string][]string{"word": {"a"}, "long": {"abc\xff"}}, `parameter "long": is not UTF-8 text`},
		"parameter store": {map[string][]string{"word": {"a"}, "long": {"{{ssm:root-password}}"}}, `parameter "long": refers to the parameter store`},

		// the pattern [a-z]+ occurs in each of these; it has to match all of it
		"command added":      {map[string][]string{"word": {"a;id"}}, `parameter "word": value "a;id" does not match allowedPattern [a-z]+`},
		"line added":         {map[string][]string{"word": {"a\nid"}}, `does not match allowedPattern`},
		"end of line":        {map[string][]string{"word": {"a\n"}}, `does not match allowedPattern`},
		"placeholder inside": {map[string][]string{"word": {"{{ long }}"}}, `does not match allowedPattern`},
	}
	d := parse(t, forms)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := d.Fill(tt.params)
			var e *ParameterError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want *ParameterError with %q", err, tt.want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	d := parse(t, forms)
	values, err := d.Fill(map[string][]string{"word": {"hi"}, "list": {"a b", "c"}, "flag": {"true"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Resolve(values)
	if err != nil {
		t.Fatal(err)
	}
	want := &CommandProperties{Commands: `echo hi ["a b","c"]`, RunAsElevated: true}
	if diff := cmp.Diff(want, got.Commands["linux"]); diff != "" {
		t.Errorf("linux (-want +got):\n%s", diff)
	}
}

// A value is pasted once: placeholders in it stay text. From callers they are refused,
// as other agents may replace one parameter after the other.
func TestResolveDoesNotRecurse(t *testing.T) {
	d := parse(t, `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{
		"a":{"type":"String"},"b":{"type":"String","default":"secret"}},
		"properties":{"linux":{"commands":"echo {{ a }}"}}}`)
	if _, err := d.Fill(map[string][]string{"a": {"{{ b }} $$x $y"}}); err == nil || !strings.Contains(err.Error(), "values hold no placeholders") {
		t.Errorf("got %v, want the placeholder refused", err)
	}
	if _, err := d.Fill(map[string][]string{"a": {"docker ps --format '{{ .ID }} {{ json . }}'"}}); err != nil {
		t.Errorf("a template that is none of ours: got %v", err)
	}
	got, err := d.Resolve(map[string]json.RawMessage{"a": json.RawMessage(`"{{ b }} $$x $y"`)})
	if err != nil {
		t.Fatal(err)
	}
	if want := "echo {{ b }} $x $y"; got.Commands["linux"].Commands != want {
		t.Errorf("got %q, want %q", got.Commands["linux"].Commands, want)
	}
}

// A document that names a parameter very often, and a long value, do not become a text
// that fills the memory; one long value is no trouble.
func TestResolveIsBounded(t *testing.T) {
	value := strings.Repeat("x", 65_535)
	for _, test := range []struct {
		times int
		ok    bool
	}{{1, true}, {3, true}, {12_000, false}} {
		d := parse(t, `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{"a":{"type":"String"}},
			"properties":{"linux":{"commands":"echo `+strings.Repeat("{{a}}", test.times)+`"}}}`)
		values, err := d.Fill(map[string][]string{"a": {value}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Resolve(values)
		if bad := (*Error)(nil); err != nil && (!errors.As(err, &bad) || bad.Path != "properties.linux.commands") {
			t.Errorf("%d times: got %v, want the place where it is too long", test.times, err)
		}
		if (err == nil) != test.ok {
			t.Errorf("%d times: got %v", test.times, err)
		} else if err == nil && len(got.Commands["linux"].Commands) != len("echo ")+test.times*len(value) {
			t.Errorf("%d times: got %d bytes", test.times, len(got.Commands["linux"].Commands))
		}
	}
}

// A value that fits its rules but not its place is refused where it is put in.
func TestResolveChecksAgain(t *testing.T) {
	d := parse(t, `{"schemaVersion":"1.0","sessionType":"Port","parameters":{"p":{"type":"String"}},"properties":{"portNumber":"{{ p }}"}}`)
	values, err := d.Fill(map[string][]string{"p": {"99999"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resolve(values); err == nil || !strings.Contains(err.Error(), "properties.portNumber: must be a port") {
		t.Errorf("got %v, want the port refused", err)
	}
}

func TestWithPreferences(t *testing.T) {
	prefs := parse(t, `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":true,"runAsDefaultUser":"ops","idleSessionTimeout":"7","shellProfile":{"linux":"date"}}}`)
	forward := parse(t, `{"schemaVersion":"1.0","sessionType":"Port","inputs":{"idleSessionTimeout":"9"},"properties":{"portNumber":"22"}}`)
	before := string(forward.Content())
	got := forward.WithPreferences(prefs)
	want := Inputs{RunAsEnabled: true, RunAsDefaultUser: "ops", IdleSessionTimeout: "9"}
	if diff := cmp.Diff(want, got.Inputs); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
	if after := string(forward.Content()); after != before {
		t.Errorf("the original changed to %s", after)
	}
	if d := parse(t, shell); d.WithPreferences(prefs) != d {
		t.Error("a shell document has its own inputs; want it unchanged")
	}
}

func TestLint(t *testing.T) {
	d := parse(t, `{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{
		"open":{"type":"String"},"closed":{"type":"String","allowedPattern":"^[a-z]+$"}},
		"properties":{"linux":{"commands":"tail {{ open }} {{ closed }}"},"macos":{"commands":"{{ open }}"}}}`)
	got := d.Lint()
	if len(got) != 1 || !strings.Contains(got[0], `properties.linux.commands: parameter "open"`) {
		t.Errorf("got %q, want one finding about the parameter open", got)
	}
}

func TestBuiltins(t *testing.T) {
	want := []string{
		"AWS-PasswordReset", "AWS-RunShellScript", "AWS-StartInteractiveCommand",
		"AWS-StartNonInteractiveCommand", "AWS-StartPortForwardingSession",
		"AWS-StartPortForwardingSessionToRemoteHost", "AWS-StartPortForwardingSessionToSocket",
		"AWS-StartSSHSession", "SSM-SessionManagerRunShell", "Sallyport-FileTransfer",
		"Sallyport-StartPortForwardingSessionToNodeSocket",
	}
	if diff := cmp.Diff(want, BuiltinNames()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, name := range want {
		d, ok := Builtin(name)
		if !ok {
			t.Fatalf("%s: missing", name)
		}
		if found := d.Lint(); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
		y, err := d.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(name, y)
		if err != nil {
			t.Fatalf("%s as YAML: %v", name, err)
		}
		if diff := cmp.Diff(asMap(t, d.Content()), asMap(t, again.Content())); diff != "" {
			t.Errorf("%s through YAML (-want +got):\n%s", name, diff)
		}
	}
	if _, ok := Builtin("AWS-Nothing"); ok {
		t.Error("AWS-Nothing: got a document")
	}
}

func TestBuiltinParameters(t *testing.T) {
	tests := map[string]struct {
		document string
		params   map[string][]string
		ok       bool
	}{
		"ssh, default port":      {"AWS-StartSSHSession", nil, true},
		"ssh, port 2222":         {"AWS-StartSSHSession", map[string][]string{"portNumber": {"2222"}}, true},
		"port 0":                 {"AWS-StartPortForwardingSession", map[string][]string{"portNumber": {"0"}}, false},
		"port 65535":             {"AWS-StartPortForwardingSession", map[string][]string{"portNumber": {"65535"}}, true},
		"port 65536":             {"AWS-StartPortForwardingSession", map[string][]string{"portNumber": {"65536"}}, false},
		"port not a number":      {"AWS-StartPortForwardingSession", map[string][]string{"portNumber": {"not-a-port"}}, false},
		"host name":              {"AWS-StartPortForwardingSessionToRemoteHost", map[string][]string{"host": {"db-1.internal"}}, true},
		"host address":           {"AWS-StartPortForwardingSessionToRemoteHost", map[string][]string{"host": {"fd00::1"}}, true},
		"host with spaces":       {"AWS-StartPortForwardingSessionToRemoteHost", map[string][]string{"host": {"a b"}}, false},
		"no command":             {"AWS-StartInteractiveCommand", nil, false},
		"password of a user":     {"AWS-PasswordReset", map[string][]string{"username": {"ec2-user"}}, true},
		"password with an order": {"AWS-PasswordReset", map[string][]string{"username": {"root; id"}}, false},
		"password of an option":  {"AWS-PasswordReset", map[string][]string{"username": {"--delete"}}, false},
		"script":                 {"AWS-RunShellScript", map[string][]string{"commands": {"id", "date"}, "executionTimeout": {"172800"}}, true},
		"script, too long":       {"AWS-RunShellScript", map[string][]string{"commands": {"id"}, "executionTimeout": {"172801"}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, _ := Builtin(tt.document)
			values, err := d.Fill(tt.params)
			if (err == nil) != tt.ok {
				t.Fatalf("got error %v, want ok %v", err, tt.ok)
			}
			if tt.ok && d.Type == TypeSession {
				if _, err := d.Resolve(values); err != nil {
					t.Errorf("resolving: %v", err)
				}
			}
		})
	}
}

// What AWS's CLI sent when the transcripts were made is taken, one lot per document.
func TestDocumentsOfTranscripts(t *testing.T) {
	for _, tr := range vectors.LoadAll(t, "../wire/testdata/vectors") {
		for _, l := range tr.Between("cli", "server") {
			var in struct {
				DocumentName string
				Parameters   map[string][]string
			}
			if l.Event != "http-request" || json.Unmarshal([]byte(l.Body), &in) != nil || in.DocumentName == "" {
				continue
			}
			d, ok := Builtin(in.DocumentName)
			if !ok {
				continue
			}
			_, err := d.Fill(in.Parameters)
			if refused := in.Parameters["portNumber"] != nil && in.Parameters["portNumber"][0] == "not-a-port"; (err != nil) != refused {
				t.Errorf("%s line %d: got error %v", tr.Name, l.N, err)
			}
		}
	}
}

// The guide's documents are good, and the guide shows them as they are.
func TestGuide(t *testing.T) {
	page, err := os.ReadFile("../docs/documents.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../docs/documents/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d files (%v)", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(filepath.Base(file), text)
		if err != nil {
			t.Error(err)
			continue
		}
		if found := d.Lint(); len(found) > 0 {
			t.Errorf("%s: %v", file, found)
		}
		if !strings.Contains(string(page), "\n"+string(text)+"```\n") {
			t.Errorf("%s is not shown in documents.md as it is", file)
		}
	}
}

func asMap(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(shell))
	f.Add([]byte(forms))
	f.Add([]byte("schemaVersion: '1.0'\nsessionType: Port\nproperties: {portNumber: 22}\n"))
	f.Add([]byte("a: &a [b]\nc: *a\n"))
	for _, name := range BuiltinNames() {
		b, err := os.ReadFile("builtin/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse("fuzz", b)
		if err != nil {
			return
		}
		// what was accepted is valid JSON and accepted again, unchanged
		again, err := Parse("fuzz", d.Content())
		if err != nil {
			if len(d.Content()) > MaxSize {
				return // escapes made it longer
			}
			t.Fatalf("%s: %v", d.Content(), err)
		}
		if string(again.Content()) != string(d.Content()) {
			t.Errorf("got %s, want %s", again.Content(), d.Content())
		}
		if values, err := d.Fill(nil); err == nil && d.Type == TypeSession {
			_, _ = d.Resolve(values)
		}
	})
}

// Whatever a parameter holds that fits its pattern, the command stays one.
func FuzzOneCommand(f *testing.F) {
	text, err := os.ReadFile("../docs/documents/deploy.json")
	if err != nil {
		f.Fatal(err)
	}
	d, err := Parse("Deploy", text)
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range []string{"1.2", "1.2; id", "1.2\n", "$(id)", "{{ version }}", "1.2\u2028", "１.２", "1.2\x00"} {
		f.Add("version", v)
	}
	whole := regexp.MustCompile(`\A/opt/shop/deploy [0-9]+\.[0-9]+\z`)
	f.Fuzz(func(t *testing.T, name, value string) {
		values, err := d.Fill(map[string][]string{name: {value}})
		if err != nil {
			return
		}
		r, err := d.Resolve(values)
		if err != nil {
			t.Fatalf("%q: filled, but not resolved: %v", value, err)
		}
		if command := r.Commands["linux"].Commands; !whole.MatchString(command) {
			t.Errorf("%q: got the command %q", value, command)
		}
	})
}

// Who gives a port that is none reads no regular expression, with any built-in document.
func TestPortsInWords(t *testing.T) {
	for _, name := range BuiltinNames() {
		d, _ := Builtin(name)
		for parameter, p := range d.Parameters {
			if !strings.HasSuffix(strings.ToLower(parameter), "portnumber") {
				continue
			}
			want := `value "99999" is not a port from 1 to 65535`
			if p.checkText("0") == nil {
				want += ", nor 0 for any free one"
			}
			if err := p.checkText("99999"); err == nil || err.Error() != want {
				t.Errorf("%s, %s: got %v, want %s", name, parameter, err, want)
			}
		}
	}
}

func TestWithoutOutputs(t *testing.T) {
	d, err := Parse("D", []byte(`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"s3BucketName":"b","s3KeyPrefix":"p","s3EncryptionEnabled":true,
		"cloudWatchLogGroupName":"g","cloudWatchEncryptionEnabled":true,"cloudWatchStreamingEnabled":true,"kmsKeyId":"k","runAsEnabled":true,"idleSessionTimeout":"5"}}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"kmsKeyId":"k","runAsEnabled":true,"idleSessionTimeout":"5"}}`
	if got := string(d.WithoutOutputs().Content()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d.Inputs.S3BucketName != "b" || !strings.Contains(string(d.Content()), "s3BucketName") {
		t.Error("the document itself has changed")
	}
}
