package flow

import (
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

var targetKinds = [...]string{
	string(TargetNodes), string(TargetRole), string(TargetGroup), string(TargetPermissionSet), string(TargetAWSGroup),
}

var (
	nodeForm          = regexp.MustCompile(`^m?i-[0-9a-f]{8,17}$`)
	loginForm         = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}$`)
	accountForm       = regexp.MustCompile(`^[0-9]{12}$`)
	instanceForm      = regexp.MustCompile(`^arn:aws[a-z-]*:sso:::instance/(sso)?ins-[A-Za-z0-9.-]{16}$`)
	permissionSetForm = regexp.MustCompile(`^arn:aws[a-z-]*:sso:::permissionSet/(sso)?ins-[A-Za-z0-9.-]{16}/ps-[A-Za-z0-9.-]{16}$`)
	identityStoreForm = regexp.MustCompile(`^(d-[0-9a-f]{10}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	regionForm        = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	profileForm       = regexp.MustCompile(`^[\w@.+=:-]{0,64}$`)
)

// targets reads the flow's own targets and the shared ones that it names.
func (p *parser) targets(r *reader) []Target {
	var out []Target
	add := func(at *reader, t Target) {
		if slices.ContainsFunc(out, func(o Target) bool { return o.Name == t.Name }) {
			at.wrong(at.at, "there are two targets named %q", t.Name)
			return
		}
		out = append(out, t)
	}
	for _, b := range r.all("target", maxTargets) {
		if t, ok := p.target(b); ok {
			add(b, t)
		}
	}
	for _, name := range r.texts("targets") {
		shared, ok := p.shared[name]
		if !ok {
			r.wrong(r.where("targets"), "targets: there is no shared target %q%s", name, p.sharedNames())
			continue
		}
		add(r, shared.target)
	}
	if len(out) > maxTargets {
		r.wrong(r.at, "more than %d targets", maxTargets)
	}
	return out
}

func (p *parser) sharedNames() string {
	if len(p.shared) == 0 {
		return `; want a top-level block target "KIND" "NAME" { … }`
	}
	names := make([]string, 0, len(p.shared))
	for name := range p.shared {
		names = append(names, name)
	}
	slices.Sort(names)
	return "; there are " + allOf(names)
}

// sharedTarget reads a target that stands outside flows.
func (p *parser) sharedTarget(b *hclsyntax.Block) {
	r := newReader(&p.problems, b)
	t, ok := p.target(r)
	if !ok {
		return
	}
	if first, ok := p.shared[t.Name]; ok {
		r.wrong(r.at, "is already at %s:%d", first.at.Filename, first.at.Start.Line)
		return
	}
	if len(p.shared) == maxList {
		r.wrong(r.at, "more than %d shared targets", maxList)
		return
	}
	p.shared[t.Name] = sharedTarget{t, r.at}
}

// target reads a target "KIND" "NAME" block.
func (p *parser) target(r *reader) (Target, bool) {
	if len(r.labels) != 2 {
		r.wrong(r.at, `want target "KIND" "NAME" { … } with a kind of %s`, oneOf(targetKinds[:]))
		return Target{}, false
	}
	t := Target{Kind: TargetKind(r.labels[0]), Name: r.labels[1], Label: r.text("label")}
	if !validName(t.Name) {
		r.wrong(r.at, "want a name of up to %d letters, digits, dots, dashes and underscores", maxName)
		return Target{}, false
	}
	switch t.Kind {
	case TargetNodes:
		t.Nodes = p.nodes(r)
	case TargetRole:
		t.Role = p.name(r, "role")
	case TargetGroup:
		t.Group = p.name(r, "group")
	case TargetPermissionSet:
		t.PermissionSet = p.permissionSet(r)
	case TargetAWSGroup:
		t.AWSGroup = &AWSGroup{Group: p.name(r, "group"), UserField: p.userField(r), Profile: p.form(r, "profile", profileForm, "a profile's name")}
	default:
		r.wrong(r.at, "%q is no kind of target; want %s", t.Kind, oneOf(targetKinds[:]))
		return Target{}, false
	}
	r.done()
	return t, true
}

func (p *parser) nodes(r *reader) *Nodes {
	n := &Nodes{
		IDs:       r.texts("ids"),
		Names:     r.texts("names"),
		Tags:      r.sets("tags"),
		Documents: r.texts("documents"),
		Login:     p.form(r, "login", loginForm, "the name of an OS user"),
		Commands:  r.flag("commands"),
	}
	if n.selectsNothing() {
		r.wrong(r.at, `selects no nodes; want ids, names or tags (names = ["*"] for all that have a name)`)
	}
	for _, id := range n.IDs {
		if !nodeForm.MatchString(id) {
			r.wrong(r.where("ids"), "ids: %q is no node id such as i-0123456789abcdef0", id)
		}
	}
	for _, name := range slices.Concat(n.Names, n.Documents) {
		if name == "" || len(name) > 256 {
			r.wrong(r.at, "names and documents have 1 to 256 characters")
		}
	}
	return n
}

func (p *parser) permissionSet(r *reader) *PermissionSet {
	return &PermissionSet{
		InstanceARN:      p.need(r, "instance_arn", instanceForm, "arn:aws:sso:::instance/ssoins-…"),
		PermissionSetARN: p.need(r, "permission_set_arn", permissionSetForm, "arn:aws:sso:::permissionSet/ssoins-…/ps-…"),
		Account:          p.need(r, "account", accountForm, "twelve digits, in quotes"),
		IdentityStore:    p.need(r, "identity_store", identityStoreForm, "d-0123456789"),
		Region:           p.need(r, "region", regionForm, "a region such as eu-central-1"),
		UserField:        p.userField(r),
		Profile:          p.form(r, "profile", profileForm, "a profile's name"),
	}
}

// userField is the person's attribute that is their name in AWS.
func (p *parser) userField(r *reader) string {
	s := r.text("user_field")
	if s == "" {
		return "name"
	}
	if key, ok := strings.CutPrefix(s, "tag:"); s != "name" && (!ok || key == "") {
		r.wrong(r.where("user_field"), `user_field: %q; want "name" or "tag:KEY"`, s)
	}
	return s
}

// name is a needed name of a role or group.
func (p *parser) name(r *reader, arg string) string {
	return p.need(r, arg, userForm, "a name")
}

// need is an argument that must be there and look right.
func (p *parser) need(r *reader, arg string, form *regexp.Regexp, want string) string {
	s := r.text(arg)
	if s == "" {
		r.wrong(r.at, "%s is required: %s", arg, want)
		return ""
	}
	return p.looks(r, arg, s, form, want)
}

// form is an argument that must look right if it is there.
func (p *parser) form(r *reader, arg string, form *regexp.Regexp, want string) string {
	s := r.text(arg)
	if s == "" {
		return ""
	}
	return p.looks(r, arg, s, form, want)
}

func (p *parser) looks(r *reader, arg, s string, form *regexp.Regexp, want string) string {
	if !form.MatchString(s) {
		r.wrong(r.where(arg), "%s: got %q, want %s", arg, s, want)
	}
	return s
}
