package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	configfiles "sallyport.dev/apply/files"
	"sallyport.dev/internal/nested"
)

// World is what files say there is to be, but for flows, which package flow reads.
// Members that are nil are not said and left as they are.
type World struct {
	Users     map[string]*User
	Groups    map[string]*Group
	Roles     map[string]*Role
	Policies  map[string]*Policy
	Documents map[string]*Document
}

// User is a user as files say.
type User struct {
	Name     string             `hcl:"name,label"`
	Path     string             `hcl:"path,optional"`
	Tags     *map[string]string `hcl:"tags,optional"`
	Groups   *[]string          `hcl:"groups,optional"`
	Policies *[]string          `hcl:"policies,optional"` // names or ARNs
	Boundary *string            `hcl:"permissions_boundary,optional"`
	Inline   []Inline           `hcl:"inline_policy,block"`
}

// Group is a group as files say.
type Group struct {
	Name     string    `hcl:"name,label"`
	Path     string    `hcl:"path,optional"`
	Members  *[]string `hcl:"members,optional"`
	Policies *[]string `hcl:"policies,optional"`
	Inline   []Inline  `hcl:"inline_policy,block"`
}

// Role is a role as files say.
type Role struct {
	Name        string             `hcl:"name,label"`
	Path        string             `hcl:"path,optional"`
	Description *string            `hcl:"description,optional"`
	Trust       string             `hcl:"trust"`                 // JSON
	MaxDuration string             `hcl:"max_duration,optional"` // 1h to 12h
	Tags        *map[string]string `hcl:"tags,optional"`
	Policies    *[]string          `hcl:"policies,optional"`
	Boundary    *string            `hcl:"permissions_boundary,optional"`
	Inline      []Inline           `hcl:"inline_policy,block"`

	maxDuration time.Duration // 0: not said
}

// Policy is a managed policy as files say.
type Policy struct {
	Name        string `hcl:"name,label"`
	Path        string `hcl:"path,optional"`
	Description string `hcl:"description,optional"` // of new ones; IAM does not change it
	Document    string `hcl:"document"`             // JSON
}

// Inline is a policy inside of its owner.
type Inline struct {
	Name     string `hcl:"name,label"`
	Document string `hcl:"document"`
}

// Document is an SSM document as files say.
type Document struct {
	Name    string `hcl:"name,label"`
	Type    string `hcl:"type,optional"`   // Session unless given
	Format  string `hcl:"format,optional"` // JSON unless given
	Content string `hcl:"content"`
}

type file struct {
	Users     []*User     `hcl:"user,block"`
	Groups    []*Group    `hcl:"group,block"`
	Roles     []*Role     `hcl:"role,block"`
	Policies  []*Policy   `hcl:"policy,block"`
	Documents []*Document `hcl:"document,block"`
	Remain    hcl.Body    `hcl:",remain"` // package flow's, which knows what else there may be
}

// Parse reads the configuration files among files. Errors name file and line.
func Parse(files map[string][]byte) (*World, error) {
	if err := configfiles.Check(files); err != nil {
		return nil, err
	}
	w := &World{
		Users: map[string]*User{}, Groups: map[string]*Group{}, Roles: map[string]*Role{},
		Policies: map[string]*Policy{}, Documents: map[string]*Document{},
	}
	b := &budget{left: maxEvaluated}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, configfiles.Suffix) {
			continue
		}
		errs = append(errs, w.read(name, files, b))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return w, w.check()
}

func (w *World) read(name string, files map[string][]byte, b *budget) error {
	if err := nested.Check(name, files[name]); err != nil { // before the recursive parser
		return fmt.Errorf("%s: %w", name, err)
	}
	parsed, diags := hclsyntax.ParseConfig(files[name], name, hcl.InitialPos)
	if !diags.HasErrors() {
		diags = noLoops(parsed.Body)
	}
	if diags.HasErrors() {
		return diags.Errs()[0]
	}
	var f file
	if diags := gohcl.DecodeBody(parsed.Body, functions(path.Dir(name), files, b), &f); diags.HasErrors() {
		return firstErrors(diags)
	}
	err := firstError(
		put(w.Users, "user", name, f.Users, func(u *User) string { return u.Name }),
		put(w.Groups, "group", name, f.Groups, func(g *Group) string { return g.Name }),
		put(w.Roles, "role", name, f.Roles, func(r *Role) string { return r.Name }),
		put(w.Policies, "policy", name, f.Policies, func(p *Policy) string { return p.Name }),
	)
	return firstError(err, put(w.Documents, "document", name, f.Documents, func(d *Document) string { return d.Name }))
}

// maxTold bounds how much of what is wrong in a file is told at a time.
const maxTold = 10

// firstErrors are the errors of a file, a line each: who has several files to write, or
// arguments to mend, does so at once.
func firstErrors(diags hcl.Diagnostics) error {
	at := func(d *hcl.Diagnostic) int {
		if d.Subject == nil {
			return 0
		}
		return d.Subject.Start.Byte
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return at(a) - at(b) })
	var errs []error
	for i, d := range diags {
		// What no function gave is no text, either.
		follows := i > 0 && at(d) == at(diags[i-1]) && d.Summary == "Unsuitable value type"
		if d.Severity == hcl.DiagError && !follows && len(errs) < maxTold {
			errs = append(errs, d)
		}
	}
	return errors.Join(errs...)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// put enters what a file says; names count once, whatever their case, as in IAM.
func put[T any](into map[string]*T, kind, file string, all []*T, name func(*T) string) error {
	for _, one := range all {
		for have := range into {
			if strings.EqualFold(have, name(one)) {
				return fmt.Errorf("%s: %s %q is there twice", file, kind, name(one))
			}
		}
		into[name(one)] = one
	}
	return nil
}

// maxEvaluated bounds what the functions of all files return together, in bytes: a file may
// be named often, and what is encoded again and again doubles each time.
const maxEvaluated = 16 << 20

// budget is what is left of it.
type budget struct{ left int }

func (b *budget) spend(text string) (cty.Value, error) {
	if len(text) > b.left {
		return cty.NilVal, fmt.Errorf("file and jsonencode make more than %d bytes of all files", maxEvaluated)
	}
	b.left -= len(text)
	return cty.StringVal(text), nil
}

// noLoops refuses loops, whose variables could make a small file grow without end.
func noLoops(body hcl.Body) hcl.Diagnostics {
	return hclsyntax.VisitAll(body.(*hclsyntax.Body), func(n hclsyntax.Node) hcl.Diagnostics {
		if _, loop := n.(*hclsyntax.ForExpr); !loop {
			return nil
		}
		at := n.Range()
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No loops", Detail: "for is not supported here: write out what it would make.", Subject: &at}}
	})
}

// functions are those of expressions: file(NAME) beside the file in dir, and jsonencode.
func functions(dir string, files map[string][]byte, b *budget) *hcl.EvalContext {
	read := function.New(&function.Spec{
		Params: []function.Parameter{{Name: "name", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name := path.Join(dir, args[0].AsString())
			text, ok := files[name]
			if !ok {
				return cty.NilVal, fmt.Errorf("there is no file %s among those that are applied", name)
			}
			return b.spend(string(text))
		},
	})
	encode := function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowNull: true}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text, err := stdlib.JSONEncode(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			return b.spend(text.AsString())
		},
	})
	return &hcl.EvalContext{Functions: map[string]function.Function{"file": read, "jsonencode": encode}}
}

// check finds what does not go together.
func (w *World) check() error {
	for _, name := range slices.Sorted(maps.Keys(w.Users)) {
		if err := w.checkUser(w.Users[name]); err != nil {
			return fmt.Errorf("user %q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Groups)) {
		if err := checkOwner(w.Groups[name].Path, w.Groups[name].Inline); err != nil {
			return fmt.Errorf("group %q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Roles)) {
		if err := w.Roles[name].check(); err != nil {
			return fmt.Errorf("role %q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Policies)) {
		p := w.Policies[name]
		if err := firstError(checkPath(p.Path), checkJSON("document", p.Document)); err != nil {
			return fmt.Errorf("policy %q: %w", name, err)
		}
	}
	return nil
}

// checkUser refuses memberships that are said from both ends, which may differ.
func (w *World) checkUser(u *User) error {
	if u.Groups != nil {
		for _, name := range *u.Groups {
			if g := saidOf(w.Groups, name); g != nil && g.Members != nil {
				return fmt.Errorf("groups: group %q lists its members itself; say a membership at one end", name)
			}
		}
	}
	return checkOwner(u.Path, u.Inline)
}

func checkOwner(path string, inline []Inline) error {
	seen := map[string]bool{}
	for _, p := range inline {
		if seen[strings.ToLower(p.Name)] {
			return fmt.Errorf("inline_policy %q is there twice", p.Name)
		}
		seen[strings.ToLower(p.Name)] = true
		if err := checkJSON("inline_policy "+p.Name, p.Document); err != nil {
			return err
		}
	}
	return checkPath(path)
}

func checkPath(p string) error {
	if p != "" && (!strings.HasPrefix(p, "/") || !strings.HasSuffix(p, "/")) {
		return fmt.Errorf("path: %q does not begin and end with a slash", p)
	}
	return nil
}

func checkJSON(what, text string) error {
	if !json.Valid([]byte(text)) {
		return fmt.Errorf("%s: not JSON: give file(\"NAME.json\") or jsonencode({…})", what)
	}
	return nil
}

func (r *Role) check() error {
	if err := firstError(checkOwner(r.Path, r.Inline), checkJSON("trust", r.Trust)); err != nil {
		return err
	}
	if r.MaxDuration == "" {
		return nil
	}
	d, err := time.ParseDuration(r.MaxDuration)
	if err != nil || d < time.Hour || d > 12*time.Hour || d%time.Second != 0 {
		return fmt.Errorf("max_duration: %q is not a duration from 1h to 12h", r.MaxDuration)
	}
	r.maxDuration = d
	return nil
}
