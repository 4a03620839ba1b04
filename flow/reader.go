package flow

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"sallyport.dev/internal/nested"
)

const (
	maxList = 1000 // entries of one list
	maxLine = 4096 // bytes of one string, but the rules'
)

// reader reads one block. It notes what was asked for, so that done can complain about
// everything else.
type reader struct {
	problems *problems
	typ      string
	what     string // as mistakes call it
	at       hcl.Range
	labels   []string
	body     *hclsyntax.Body
	args     []string
	blocks   []string
}

// readBody parses a file. Values are literals: there are no variables, functions or
// loops, and so nothing that could grow.
func readBody(p *problems, file string, source []byte) *hclsyntax.Body {
	at := hcl.Range{Filename: file}
	if len(source) > maxFile {
		p.add(at, "the file has %d bytes; at most %d", len(source), maxFile)
		return nil
	}
	if err := nested.Check(file, source); err != nil { // before the recursive parser
		p.add(at, "%v", err)
		return nil
	}
	parsed, diags := hclsyntax.ParseConfig(source, file, hcl.InitialPos)
	if diags.HasErrors() {
		p.diagnostics(file, diags)
		return nil
	}
	return parsed.Body.(*hclsyntax.Body)
}

func newReader(p *problems, b *hclsyntax.Block) *reader {
	what := b.Type
	for _, l := range b.Labels {
		what += ` "` + l + `"`
	}
	return &reader{problems: p, typ: b.Type, what: what, at: b.DefRange(), labels: b.Labels, body: b.Body}
}

// label returns the block's one label.
func (r *reader) label() string {
	if len(r.labels) != 1 {
		r.wrong(r.at, `want one name: %s "NAME" { … }`, r.typ)
		return ""
	}
	return r.labels[0]
}

// wrong notes a mistake in the block.
func (r *reader) wrong(at hcl.Range, format string, args ...any) {
	r.problems.add(at, r.what+": "+format, args...)
}

// done complains about what nobody asked for.
func (r *reader) done() {
	for name, a := range r.body.Attributes {
		if slices.Contains(r.args, name) {
			continue
		}
		if slices.Contains(r.blocks, name) {
			r.wrong(a.NameRange, "%s is a block: %s { … }", name, name)
			continue
		}
		r.wrong(a.NameRange, "unknown argument %q%s", name, r.allowed())
	}
	for _, b := range r.body.Blocks {
		if slices.Contains(r.blocks, b.Type) {
			continue
		}
		if slices.Contains(r.args, b.Type) {
			r.wrong(b.TypeRange, "%s is an argument: %s = …", b.Type, b.Type)
			continue
		}
		r.wrong(b.TypeRange, "unknown block %q%s", b.Type, r.allowed())
	}
}

func (r *reader) allowed() string {
	var said []string
	if len(r.args) > 0 {
		said = append(said, "arguments are "+strings.Join(r.args, ", "))
	}
	if len(r.blocks) > 0 {
		said = append(said, "blocks are "+strings.Join(r.blocks, ", "))
	}
	return "; " + strings.Join(said, "; ")
}

// all returns the blocks of a type.
func (r *reader) all(name string, most int) []*reader {
	r.blocks = append(r.blocks, name)
	var out []*reader
	for _, b := range r.body.Blocks {
		if b.Type != name {
			continue
		}
		if len(out) == most {
			r.wrong(b.DefRange(), "more than %d %s blocks", most, name)
			break
		}
		sub := newReader(r.problems, b)
		sub.what = r.what + ": " + sub.what
		out = append(out, sub)
	}
	return out
}

// one returns the only block of a type, or nil.
func (r *reader) one(name string) *reader {
	all := r.all(name, 1)
	if len(all) == 0 {
		return nil
	}
	if len(all[0].labels) > 0 {
		all[0].wrong(all[0].at, "takes no name")
	}
	return all[0]
}

// value returns an argument, which is a literal, and where it stands.
func (r *reader) value(name string) (cty.Value, hcl.Range, bool) {
	r.args = append(r.args, name)
	a, ok := r.body.Attributes[name]
	if !ok {
		return cty.NilVal, r.at, false
	}
	at := a.Expr.Range()
	at.Start.Line = a.NameRange.Start.Line
	if !literal(a.Expr) {
		r.wrong(at, "%s: want a plain value; flow files have no variables, functions or templates ($${ writes ${)", name)
		return cty.NilVal, at, false
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		r.problems.diagnostics(at.Filename, diags)
		return cty.NilVal, at, false
	}
	if v.IsNull() || !v.IsWhollyKnown() {
		return cty.NilVal, at, false
	}
	return v, at, true
}

// literal reports whether an expression is written out.
func literal(e hclsyntax.Expression) bool {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return true
	case *hclsyntax.TemplateExpr:
		return !slices.ContainsFunc(e.Parts, func(p hclsyntax.Expression) bool {
			_, ok := p.(*hclsyntax.LiteralValueExpr)
			return !ok
		})
	case *hclsyntax.TupleConsExpr:
		return !slices.ContainsFunc(e.Exprs, func(x hclsyntax.Expression) bool { return !literal(x) })
	case *hclsyntax.ObjectConsExpr:
		return !slices.ContainsFunc(e.Items, func(i hclsyntax.ObjectConsItem) bool {
			return !literalKey(i.KeyExpr) || !literal(i.ValueExpr)
		})
	case *hclsyntax.UnaryOpExpr:
		_, ok := e.Val.(*hclsyntax.LiteralValueExpr)
		return ok
	}
	return false
}

func literalKey(e hclsyntax.Expression) bool {
	key, ok := e.(*hclsyntax.ObjectConsKeyExpr)
	if !ok {
		return literal(e)
	}
	if key.ForceNonLiteral {
		return false
	}
	return hcl.ExprAsKeyword(key.Wrapped) != "" || literal(key.Wrapped)
}

func (r *reader) text(name string) string {
	v, at, ok := r.value(name)
	if !ok {
		return ""
	}
	return r.asText(name, at, v, maxLine)
}

func (r *reader) asText(name string, at hcl.Range, v cty.Value, most int) string {
	if v.IsNull() || v.Type() != cty.String {
		r.wrong(at, "%s: want text in quotes", name)
		return ""
	}
	if s := v.AsString(); len(s) <= most {
		return s
	}
	r.wrong(at, "%s: more than %d bytes", name, most)
	return ""
}

// texts returns a list; one text alone is a list of it.
func (r *reader) texts(name string) []string {
	v, at, ok := r.value(name)
	if !ok {
		return nil
	}
	return r.asTexts(name, at, v)
}

func (r *reader) asTexts(name string, at hcl.Range, v cty.Value) []string {
	if v.Type() == cty.String {
		return []string{r.asText(name, at, v, maxLine)}
	}
	if !v.Type().IsTupleType() {
		r.wrong(at, `%s: want a list of texts: ["…", "…"]`, name)
		return nil
	}
	if v.LengthInt() > maxList {
		r.wrong(at, "%s: more than %d entries", name, maxList)
		return nil
	}
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		s := r.asText(name, at, e, maxLine)
		if s != "" && slices.Contains(out, s) {
			r.wrong(at, "%s: %q stands there twice", name, s)
		}
		out = append(out, s)
	}
	return out
}

// plain is like texts, for values of fields: numbers and booleans may go without quotes.
func (r *reader) plain(name string) []string {
	v, at, ok := r.value(name)
	if !ok {
		return nil
	}
	if !v.Type().IsTupleType() {
		return []string{r.asPlain(name, at, v)}
	}
	if v.LengthInt() > maxList {
		r.wrong(at, "%s: more than %d entries", name, maxList)
		return nil
	}
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		out = append(out, r.asPlain(name, at, e))
	}
	return out
}

func (r *reader) asPlain(name string, at hcl.Range, v cty.Value) string {
	switch {
	case v.IsNull():
	case v.Type() == cty.Bool && v.True():
		return "true"
	case v.Type() == cty.Bool:
		return "false"
	case v.Type() == cty.Number && v.AsBigFloat().IsInt() && v.AsBigFloat().MantExp(nil) < 64:
		return v.AsBigFloat().Text('f', 0)
	case v.Type() == cty.String:
		return r.asText(name, at, v, maxLine)
	}
	r.wrong(at, "%s: want text, whole numbers or booleans", name)
	return ""
}

// sets returns an object of lists: { Team = ["payments", "search"], Env = "prod" }.
func (r *reader) sets(name string) map[string][]string {
	v, at, ok := r.value(name)
	if !ok {
		return nil
	}
	if !v.Type().IsObjectType() || v.LengthInt() > maxList {
		r.wrong(at, `%s: want { KEY = ["VALUE", …], … }`, name)
		return nil
	}
	var out map[string][]string
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if out == nil {
			out = map[string][]string{}
		}
		key := k.AsString()
		out[key] = r.asTexts(name+"."+key, at, e)
		if key == "" || len(out[key]) == 0 {
			r.wrong(at, "%s: want a key and at least one value", name)
		}
	}
	return out
}

func (r *reader) flag(name string) bool {
	v := r.flagOrNone(name)
	return v != nil && *v
}

// flagOrNone is flag where leaving it out is something else than false.
func (r *reader) flagOrNone(name string) *bool {
	v, at, ok := r.value(name)
	if !ok {
		return nil
	}
	if v.Type() != cty.Bool {
		r.wrong(at, "%s: want true or false", name)
		return nil
	}
	on := v.True()
	return &on
}

// number returns a whole number within bounds, or otherwise unless there is one.
func (r *reader) number(name string, otherwise, least, most int) int {
	v, at, ok := r.value(name)
	if !ok {
		return otherwise
	}
	if v.Type() == cty.Number {
		if n, exact := v.AsBigFloat().Int64(); exact == 0 && v.AsBigFloat().IsInt() && n >= int64(least) && n <= int64(most) {
			return int(n)
		}
	}
	r.wrong(at, "%s: want a whole number from %d to %d", name, least, most)
	return otherwise
}

// duration returns a duration within bounds, or otherwise unless there is one.
func (r *reader) duration(name string, otherwise, least, most time.Duration) time.Duration {
	v, at, ok := r.value(name)
	if !ok {
		return otherwise
	}
	d, err := ParseDuration(r.asText(name, at, v, maxLine))
	if err != nil {
		r.wrong(at, "%s: %v", name, err)
		return otherwise
	}
	if d < least || d > most {
		r.wrong(at, "%s: want from %s to %s", name, FormatDuration(least), FormatDuration(most))
		return otherwise
	}
	return d
}

// choice returns one of the allowed texts, or the first unless there is one.
func (r *reader) choice(name string, allowed ...string) string {
	v, at, ok := r.value(name)
	if !ok {
		return allowed[0]
	}
	s := r.asText(name, at, v, maxLine)
	if !slices.Contains(allowed, s) {
		r.wrong(at, "%s: %q is not known; want %s", name, s, oneOf(allowed))
		return allowed[0]
	}
	return s
}

// where is where an argument stands, or else the block.
func (r *reader) where(name string) hcl.Range {
	if a, ok := r.body.Attributes[name]; ok {
		return a.NameRange
	}
	return r.at
}
