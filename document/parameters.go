package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Types of parameters.
const (
	ParameterString     = "String"
	ParameterStringList = "StringList"
	ParameterBoolean    = "Boolean"
	ParameterInteger    = "Integer"
	ParameterStringMap  = "StringMap"
	ParameterMapList    = "MapList"
)

var parameterTypes = []string{
	ParameterString, ParameterStringList, ParameterBoolean,
	ParameterInteger, ParameterStringMap, ParameterMapList,
}

// InterpolationEnv makes the agent pass a parameter to a command document's script
// as the environment variable SSM_NAME instead of pasting it into the text.
const InterpolationEnv = "ENV_VAR"

// Parameter is what a document says of one parameter. Zero limits do not limit.
type Parameter struct {
	Name              string
	Type              string
	Description       string
	DisplayType       string
	InterpolationType string
	Default           json.RawMessage // nil if it must be given
	AllowedPattern    string
	AllowedValues     []string
	MinChars          int
	MaxChars          int
	MinItems          int
	MaxItems          int
	pattern           *regexp.Regexp // the whole value must match
	patternSize       int
}

const (
	// maxParameters is how many parameters a document may have (the documented quota).
	maxParameters = 200
	// maxPatterns bounds the patterns of a document, in steps of the machines that they
	// are compiled to: repetitions make large ones out of short texts.
	maxPatterns = 50_000
)

// ParameterError is a parameter that does not fit its document.
type ParameterError struct {
	Name    string
	Problem string
}

func (e *ParameterError) Error() string {
	return fmt.Sprintf("parameter %q: %s", e.Name, e.Problem)
}

// errParameterStore is the problem of a value that refers to a parameter store.
var errParameterStore = errors.New("refers to the parameter store ({{ssm:…}}), which is not available")

var parameterName = regexp.MustCompile(`^[A-Za-z0-9]{1,255}$`)

// checkParameters reads the definitions.
func (d *Document) checkParameters(n *node, path string) error {
	if err := anyObject(n, path); err != nil {
		return err
	}
	dropNulls(n)
	if len(n.keys) > maxParameters {
		return n.fault(path, "has %d parameters; at most %d are allowed", len(n.keys), maxParameters)
	}
	d.Parameters = make(map[string]Parameter, len(n.keys))
	patterns := 0
	for _, name := range n.keys {
		at := joined(path, name)
		if !parameterName.MatchString(name) {
			return n.field(name).fault(at, "names of parameters are letters and digits only")
		}
		p := Parameter{Name: name}
		if err := p.read(n.field(name), at); err != nil {
			return err
		}
		if p.InterpolationType != "" && d.Type == TypeSession {
			return n.field(name).fault(at+".interpolationType", "is for command documents only")
		}
		if patterns += p.patternSize; patterns > maxPatterns {
			return n.field(name).fault(at+".allowedPattern", "makes the patterns of the document too large")
		}
		d.Parameters[name] = p
	}
	return nil
}

func (p *Parameter) read(n *node, path string) error {
	err := object(n, path, map[string]rule{
		"type":              p.readType,
		"description":       into(&p.Description),
		"displayType":       into(&p.DisplayType),
		"interpolationType": p.readInterpolation,
		"default":           anyValue,
		"allowedPattern":    p.readPattern,
		"allowedValues":     p.readAllowed,
		"minChars":          limit(&p.MinChars),
		"maxChars":          limit(&p.MaxChars),
		"minItems":          limit(&p.MinItems),
		"maxItems":          limit(&p.MaxItems),
	})
	if err != nil {
		return err
	}
	if err := required(n, path, "type"); err != nil {
		return err
	}
	if err := p.checkLimits(n, path); err != nil {
		return err
	}
	return p.readDefault(n.field("default"), path+".default")
}

func into(s *string) rule {
	return func(n *node, path string) error {
		err := text(n, path)
		*s = n.text
		return err
	}
}

func limit(i *int) rule {
	return func(n *node, path string) error {
		v, err := strconv.Atoi(n.text)
		if err != nil || v < 0 || (n.kind != kindNumber && n.kind != kindText) {
			return n.fault(path, "must be a whole number")
		}
		n.kind, *i = kindNumber, v
		return nil
	}
}

// readType accepts the types' names in any case, as AWS's own examples write them.
func (p *Parameter) readType(n *node, path string) error {
	for _, t := range parameterTypes {
		if n.kind == kindText && strings.EqualFold(n.text, t) {
			n.text, p.Type = t, t
			return nil
		}
	}
	return n.fault(path, "must be one of %s", strings.Join(parameterTypes, ", "))
}

func (p *Parameter) readInterpolation(n *node, path string) error {
	p.InterpolationType = n.text
	return oneOf(InterpolationEnv)(n, path)
}

// readPattern compiles the pattern so that it must match the whole value. The agent
// is content with a match anywhere, which would let `[a-z]+` pass `x; reboot`.
func (p *Parameter) readPattern(n *node, path string) error {
	if err := text(n, path); err != nil {
		return err
	}
	parsed, err := syntax.Parse(n.text, syntax.Perl)
	if err != nil {
		return n.fault(path, "%v", err)
	}
	if p.patternSize = steps(parsed); p.patternSize > maxPatterns {
		return n.fault(path, "is too large once its repetitions are written out")
	}
	re, err := regexp.Compile(`\A(?:` + n.text + `)\z`)
	if err != nil {
		return n.fault(path, "%v", err)
	}
	p.AllowedPattern, p.pattern = n.text, re
	return nil
}

// steps is about how large the machine of a pattern is.
func steps(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)/2
	for _, sub := range re.Sub {
		n += steps(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, maxPatterns+1)
}

func (p *Parameter) readAllowed(n *node, path string) error {
	if n.kind != kindList || len(n.items) == 0 {
		return n.fault(path, "must be a list of at least one value")
	}
	for i, item := range n.items {
		switch item.kind {
		case kindText, kindNumber, kindBool:
			p.AllowedValues = append(p.AllowedValues, item.text)
		default:
			return item.fault(indexed(path, i), "must be a plain value, not %s", item.kind)
		}
	}
	return nil
}

func (p *Parameter) checkLimits(n *node, path string) error {
	if p.MaxChars > 0 && p.MinChars > p.MaxChars {
		return n.fault(path, "minChars %d exceeds maxChars %d", p.MinChars, p.MaxChars)
	}
	if p.MaxItems > 0 && p.MinItems > p.MaxItems {
		return n.fault(path, "minItems %d exceeds maxItems %d", p.MinItems, p.MaxItems)
	}
	return nil
}

// readDefault checks the default's type, and its value as the agent will: against
// the pattern, matched anywhere.
func (p *Parameter) readDefault(n *node, path string) error {
	if n == nil {
		return nil
	}
	if err := p.defaultType(n, path); err != nil {
		return err
	}
	if p.AllowedPattern != "" {
		loose := regexp.MustCompile(p.AllowedPattern) // compiled before
		for _, v := range texts(n) {
			if !loose.MatchString(v) {
				return n.fault(path, "does not match allowedPattern %s", p.AllowedPattern)
			}
		}
	}
	p.Default = n.json()
	return nil
}

func (p *Parameter) defaultType(n *node, path string) error {
	switch p.Type {
	case ParameterString:
		if n.kind == kindBool {
			n.kind = kindText
		}
		return text(n, path)
	case ParameterBoolean:
		return flag(n, path)
	case ParameterInteger:
		var i int
		return limitSigned(&i)(n, path)
	case ParameterStringMap:
		return anyObject(n, path)
	}
	if n.kind == kindText { // one item, written without its list
		n.items, n.kind, n.text = []*node{{kind: kindText, text: n.text}}, kindList, ""
	}
	if n.kind != kindList {
		return n.fault(path, "must be a list, not %s", n.kind)
	}
	return nil
}

func limitSigned(i *int) rule {
	return func(n *node, path string) error {
		v, err := strconv.Atoi(n.text)
		if err != nil {
			return n.fault(path, "must be a whole number")
		}
		n.kind, *i = kindNumber, v
		return nil
	}
}

// texts returns the strings that an agent tests against a pattern.
func texts(n *node) []string {
	if n.kind != kindList {
		return []string{textOf(n)}
	}
	var out []string
	for _, item := range n.items {
		out = append(out, textOf(item))
	}
	return out
}

// textOf returns a plain value's text, or the JSON of another.
func textOf(n *node) string {
	if n.kind == kindList || n.kind == kindObject {
		return string(n.json())
	}
	return n.text
}

// Fill checks the parameters of a request, which come as lists of strings, and
// returns them as the agent wants them: a string for String, a list for StringList,
// and so on, with defaults for those not given. Errors are of type *ParameterError.
func (d *Document) Fill(params map[string][]string) (map[string]json.RawMessage, error) {
	for _, name := range sortedKeys(params) {
		if _, ok := d.Parameters[name]; !ok {
			return nil, &ParameterError{name, d.unknown()}
		}
	}
	values := make(map[string]json.RawMessage, len(d.Parameters))
	for _, name := range sortedKeys(d.Parameters) {
		p := d.Parameters[name]
		given, ok := params[name]
		if !ok {
			if p.Default == nil {
				return nil, &ParameterError{name, "is required"}
			}
			values[name] = p.Default
			continue
		}
		v, err := p.value(given)
		if err == nil {
			err = d.checkReferences(given)
		}
		if err != nil {
			return nil, &ParameterError{name, err.Error()}
		}
		values[name] = v
	}
	return values, nil
}

// checkReferences refuses values that hold placeholders of parameters: an agent that
// replaces one parameter after the other would put a second value into the first.
func (d *Document) checkReferences(given []string) error {
	for _, v := range given {
		for _, m := range placeholder.FindAllStringSubmatch(v, -1) {
			if _, ok := d.Parameters[m[1]]; ok {
				return fmt.Errorf("value %s refers to parameter %s; values hold no placeholders", short(v), m[1])
			}
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (d *Document) unknown() string {
	if len(d.Parameters) == 0 {
		return "is not known: document " + d.Name + " takes no parameters"
	}
	return "is not known: document " + d.Name + " takes " + strings.Join(sortedKeys(d.Parameters), ", ")
}

// value checks the strings given for p and returns them in the agent's form.
func (p *Parameter) value(given []string) (json.RawMessage, error) {
	if p.Type != ParameterStringList && p.Type != ParameterMapList && len(given) != 1 {
		return nil, fmt.Errorf("takes one value, got %d", len(given))
	}
	for _, v := range given {
		if err := p.checkText(v); err != nil {
			return nil, err
		}
	}
	switch p.Type {
	case ParameterStringList:
		return p.list(given)
	case ParameterBoolean:
		return p.boolean(given[0])
	case ParameterInteger:
		return p.integer(given[0])
	case ParameterStringMap:
		return p.stringMap(given[0])
	case ParameterMapList:
		return p.mapList(given)
	}
	return appendText(nil, given[0]), nil
}

// checkText applies the rules that hold for every single value.
func (p *Parameter) checkText(v string) error {
	chars := utf8.RuneCountInString(v)
	switch {
	case !utf8.ValidString(v):
		return errors.New("is not UTF-8 text")
	case strings.ContainsRune(v, 0):
		return errNUL
	case parameterStore.MatchString(v):
		return errParameterStore
	case p.pattern != nil && !p.pattern.MatchString(v):
		return fmt.Errorf("value %s %s", short(v), p.mismatch())
	case len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, v):
		return fmt.Errorf("value %s is not one of %s", short(v), strings.Join(p.AllowedValues, ", "))
	case chars < p.MinChars:
		return fmt.Errorf("value has %d characters; at least %d are needed", chars, p.MinChars)
	case p.MaxChars > 0 && chars > p.MaxChars:
		return fmt.Errorf("value has %d characters; at most %d are allowed", chars, p.MaxChars)
	}
	return nil
}

// Patterns of the built-in documents that forward ports.
const (
	portPattern      = `^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$`
	localPortPattern = `^([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$`
)

// mismatch words that a value does not match the pattern, in plain words for those that
// nobody should have to read.
func (p *Parameter) mismatch() string {
	switch p.AllowedPattern {
	case portPattern:
		return "is not a port from 1 to 65535"
	case localPortPattern:
		return "is not a port from 1 to 65535, nor 0 for any free one"
	}
	return "does not match allowedPattern " + p.AllowedPattern
}

// short quotes a value for an error, cutting what is long.
func short(v string) string {
	if r := []rune(v); len(r) > 64 {
		return strconv.Quote(string(r[:64])) + "…"
	}
	return strconv.Quote(v)
}

func (p *Parameter) checkItems(n int) error {
	if n < p.MinItems {
		return fmt.Errorf("has %d items; at least %d are needed", n, p.MinItems)
	}
	if p.MaxItems > 0 && n > p.MaxItems {
		return fmt.Errorf("has %d items; at most %d are allowed", n, p.MaxItems)
	}
	return nil
}

func (p *Parameter) list(given []string) (json.RawMessage, error) {
	if err := p.checkItems(len(given)); err != nil {
		return nil, err
	}
	n := &node{kind: kindList}
	for _, v := range given {
		n.items = append(n.items, &node{kind: kindText, text: v})
	}
	return n.json(), nil
}

func (p *Parameter) boolean(v string) (json.RawMessage, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return nil, fmt.Errorf("value %s is not true or false", short(v))
	}
	return json.RawMessage(strconv.FormatBool(b)), nil
}

func (p *Parameter) integer(v string) (json.RawMessage, error) {
	i, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("value %s is not a whole number", short(v))
	}
	return json.RawMessage(strconv.FormatInt(i, 10)), nil
}

func (p *Parameter) stringMap(v string) (json.RawMessage, error) {
	n, err := jsonValue(v)
	if err != nil || n.kind != kindObject {
		return nil, fmt.Errorf("value %s is not a JSON object", short(v))
	}
	return n.json(), nil
}

// mapList takes objects one per value, or all in one JSON list.
func (p *Parameter) mapList(given []string) (json.RawMessage, error) {
	n := &node{kind: kindList}
	for _, v := range given {
		item, err := jsonValue(v)
		if err != nil {
			return nil, fmt.Errorf("value %s is not a JSON object", short(v))
		}
		if item.kind == kindList && len(given) == 1 {
			n = item
			break
		}
		n.items = append(n.items, item)
	}
	for _, item := range n.items {
		if item.kind != kindObject {
			return nil, fmt.Errorf("holds %s where an object belongs", item.kind)
		}
	}
	if err := p.checkItems(len(n.items)); err != nil {
		return nil, err
	}
	return n.json(), nil
}

func jsonValue(v string) (*node, error) {
	if len(v) > MaxSize {
		return nil, errors.New("too long")
	}
	return parseJSON([]byte(v))
}
