package document

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rule checks a value and may bring it into the form that agents accept.
type rule func(n *node, path string) error

// object checks the fields of n, each by its rule; null fields are dropped, fields
// without a rule are refused.
func object(n *node, path string, rules map[string]rule) error {
	if n.kind != kindObject {
		return n.fault(path, "must be an object, not %s", n.kind)
	}
	dropNulls(n)
	for _, key := range n.keys {
		check, ok := rules[key]
		if !ok {
			return n.field(key).fault(joined(path, key), "is not known here; known are %s", listed(rules))
		}
		if err := check(n.field(key), joined(path, key)); err != nil {
			return err
		}
	}
	return nil
}

func dropNulls(n *node) {
	n.keys = slices.DeleteFunc(n.keys, func(key string) bool {
		null := n.fields[key].kind == kindNull
		if null {
			delete(n.fields, key)
		}
		return null
	})
}

func listed(rules map[string]rule) string {
	var names []string
	for name := range rules {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func required(n *node, path string, keys ...string) error {
	for _, key := range keys {
		if n.field(key) == nil {
			return n.fault(joined(path, key), "is missing")
		}
	}
	return nil
}

func anyValue(*node, string) error { return nil }

func anyObject(n *node, path string) error {
	if n.kind != kindObject {
		return n.fault(path, "must be an object, not %s", n.kind)
	}
	return nil
}

// text accepts a string; a number becomes one, as YAML writes ports and versions.
func text(n *node, path string) error {
	switch n.kind {
	case kindNumber:
		n.kind = kindText
	case kindText:
	default:
		return n.fault(path, "must be a string, not %s", n.kind)
	}
	return nil
}

// flag accepts a boolean; what the agent reads as one becomes one.
func flag(n *node, path string) error {
	if n.kind == kindBool {
		return nil
	}
	if n.kind == kindText && n.text == "" {
		n.setBool(false)
		return nil
	}
	b, err := strconv.ParseBool(n.text)
	if n.kind != kindText || err != nil {
		return n.fault(path, "must be true or false")
	}
	n.setBool(b)
	return nil
}

// flagOrPlaceholder accepts what flag does, or a parameter in its place.
func flagOrPlaceholder(n *node, path string) error {
	if n.kind == kindText && solePlaceholder(n.text) != "" {
		return nil
	}
	return flag(n, path)
}

func oneOf(allowed ...string) rule {
	return func(n *node, path string) error {
		if n.kind != kindText || !slices.Contains(allowed, n.text) {
			return n.fault(path, "must be one of %s", strings.Join(allowed, ", "))
		}
		return nil
	}
}

// minutes accepts a whole number from 1 to most, or "" for none.
func minutes(most int) rule {
	return func(n *node, path string) error {
		if err := text(n, path); err != nil {
			return err
		}
		m, err := strconv.Atoi(n.text)
		if n.text != "" && (err != nil || m < 1 || m > most) {
			return n.fault(path, "must be a number of minutes from 1 to %d", most)
		}
		return nil
	}
}

func minutesOf(s string) time.Duration {
	m, _ := strconv.Atoi(s) // checked by minutes, or empty
	return time.Duration(m) * time.Minute
}

func checkInputs(n *node, path string) error {
	return object(n, path, map[string]rule{
		"s3BucketName":                text,
		"s3KeyPrefix":                 text,
		"s3EncryptionEnabled":         flag,
		"cloudWatchLogGroupName":      text,
		"cloudWatchEncryptionEnabled": flag,
		"cloudWatchStreamingEnabled":  flag,
		"kmsKeyId":                    text,
		"runAsEnabled":                flag,
		"runAsDefaultUser":            text,
		"keepDetached":                flag, // ours (docs/protocol.md §28.5)
		"shellProfile":                checkShellProfile,
		"idleSessionTimeout":          minutes(60),
		"maxSessionDuration":          minutes(1440),
	})
}

func checkShellProfile(n *node, path string) error {
	return object(n, path, map[string]rule{"linux": text, "macos": text, "windows": text})
}

func checkProperties(root *node, sessionType string) error {
	n := root.field("properties")
	switch sessionType {
	case StandardStream:
		if n != nil && len(n.keys) > 0 {
			return n.fault("properties", "a %s document has none", StandardStream)
		}
		return nil
	case Port:
		if n == nil {
			return root.fault("properties", "is missing")
		}
		return checkPort(n)
	}
	if n == nil {
		return root.fault("properties", "is missing")
	}
	return checkCommands(n)
}

func checkPort(n *node) error {
	const path = "properties"
	if err := object(n, path, map[string]rule{
		"portNumber":          port,
		"host":                text,
		"unixSocket":          socket,
		"type":                oneOf("LocalPortForwarding"),
		"localPortNumber":     text,
		"localUnixSocket":     text,
		"localConnectionType": text,
	}); err != nil {
		return err
	}
	if n.field("unixSocket") == nil {
		return required(n, path, "portNumber")
	}
	for _, key := range []string{"portNumber", "host"} {
		if other := n.field(key); other != nil {
			return other.fault(joined(path, key), "excludes unixSocket")
		}
	}
	return nil
}

// maxSocket is how long the path of a unix socket may be, in bytes.
const maxSocket = 107

// socket accepts the path of a unix socket on the node, which our agent reaches, or a
// parameter. There is one way to write a path, so that patterns and policies hold.
func socket(n *node, at string) error {
	if err := text(n, at); err != nil {
		return err
	}
	plain := path.IsAbs(n.text) && path.Clean(n.text) == n.text && n.text != "/"
	if !placeholder.MatchString(n.text) && (!plain || len(n.text) > maxSocket) {
		return n.fault(at, "must be an absolute path of at most %d bytes without ., .. and double slashes", maxSocket)
	}
	return nil
}

func port(n *node, path string) error {
	if err := text(n, path); err != nil {
		return err
	}
	p, err := strconv.Atoi(n.text)
	if solePlaceholder(n.text) == "" && (err != nil || p < 1 || p > 65535 || strconv.Itoa(p) != n.text) {
		return n.fault(path, "must be a port from 1 to 65535 or a parameter")
	}
	return nil
}

func checkCommands(n *node) error {
	const path = "properties"
	if err := object(n, path, map[string]rule{
		"linux": checkPlatform, "windows": checkPlatform, "macos": checkPlatform,
	}); err != nil {
		return err
	}
	if len(n.keys) == 0 {
		return n.fault(path, "must say what to run on linux, macos or windows")
	}
	return nil
}

func checkPlatform(n *node, path string) error {
	if err := object(n, path, map[string]rule{
		"commands":              text,
		"runAsElevated":         flagOrPlaceholder,
		"separateOutputStream":  flagOrPlaceholder,
		"stdOutSeparatorPrefix": separator,
		"stdErrSeparatorPrefix": separator,
	}); err != nil {
		return err
	}
	if err := required(n, path, "commands"); err != nil {
		return err
	}
	if strings.TrimSpace(n.field("commands").text) == "" {
		return n.field("commands").fault(path+".commands", "must not be blank")
	}
	return nil
}

// separators is what agents accept before each piece of output.
var separators = regexp.MustCompile(`^[A-Za-z0-9\r\n_:-]{0,30}$`)

func separator(n *node, path string) error {
	if err := text(n, path); err != nil {
		return err
	}
	if solePlaceholder(n.text) == "" && !separators.MatchString(n.text) {
		return n.fault(path, "must be at most 30 letters, digits, line ends, or any of _ : -")
	}
	return nil
}

// checkCommand looks at a command document as far as the server depends on it; the
// agent's plugins check the rest.
func (d *Document) checkCommand() error {
	rules := map[string]rule{
		"schemaVersion": text,
		"description":   text,
		"parameters":    d.checkParameters,
		"assumeRole":    text,
		"outputs":       anyValue,
		"files":         anyValue,
		"variables":     anyValue,
	}
	work := "mainSteps"
	rules["mainSteps"] = checkSteps
	if d.SchemaVersion == "1.2" {
		work = "runtimeConfig"
		delete(rules, "mainSteps")
		rules["runtimeConfig"] = anyObject
	}
	if err := object(d.root, "", rules); err != nil {
		return err
	}
	if err := required(d.root, "", work); err != nil {
		return err
	}
	return d.finish()
}

var (
	actionName = regexp.MustCompile(`^aws:[A-Za-z]+$`)
	stepName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
)

func checkSteps(n *node, path string) error {
	if n.kind != kindList || len(n.items) == 0 {
		return n.fault(path, "must be a list of at least one step")
	}
	seen := map[string]bool{}
	for i, step := range n.items {
		if err := checkStep(step, indexed(path, i)); err != nil {
			return err
		}
		name := step.field("name")
		if seen[name.text] {
			return name.fault(indexed(path, i)+".name", "%q is the name of an earlier step", name.text)
		}
		seen[name.text] = true
	}
	return nil
}

func checkStep(n *node, path string) error {
	err := object(n, path, map[string]rule{
		"action":         matching(actionName),
		"name":           matching(stepName),
		"description":    text,
		"inputs":         anyObject,
		"settings":       anyObject,
		"precondition":   anyObject,
		"onFailure":      text,
		"onSuccess":      text,
		"timeoutSeconds": anyValue,
		"maxAttempts":    anyValue,
		"isCritical":     anyValue,
		"isEnd":          anyValue,
		"nextStep":       text,
		"finallyStep":    flag,
	})
	if err != nil {
		return err
	}
	return required(n, path, "action", "name")
}

func matching(re *regexp.Regexp) rule {
	return func(n *node, path string) error {
		if n.kind != kindText || !re.MatchString(n.text) {
			return n.fault(path, "must match %s", re)
		}
		return nil
	}
}
