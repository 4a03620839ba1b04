package server

import (
	"regexp"
	"slices"

	"sallyport.dev/document"
	"sallyport.dev/identity"
)

// Who a session is on the node.

// runAsTag is the principal's tag that names the logins of their sessions: the first
// is the default, and they may choose any of them.
const runAsTag = "SSMSessionRunAs"

// root is the login that only policy gives.
const root = "root"

// login is the OS user that a session asks for.
type login struct {
	name string // empty for the node's default
	own  bool   // the principal's tag or the document names it
}

// needsAction reports whether the login needs sallyport:RunAs.
func (l login) needsAction() bool { return l.name != "" && (!l.own || l.name == root) }

// loginName is what a login may be: what useradd takes. Digits alone are the id of
// some user, whose name would then be in no policy.
var loginName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}[$]?$`)

var onlyDigits = regexp.MustCompile(`^[0-9]+$`)

func checkLogin(name, whence string) error {
	if !loginName.MatchString(name) || onlyDigits.MatchString(name) {
		return ssmError("ValidationException", "%q, which %s gives, is not a login: it must be up to 32 letters, digits, dots, underscores and hyphens, and more than digits.", truncate(name, 64), whence)
	}
	return nil
}

// chooseLogin chooses among the logins of the principal's tag and of the document, and
// what the caller asks for. Where the document does not switch run-as on and nobody
// asks, it is the node's default.
func chooseLogin(p identity.Principal, inputs document.Inputs, asked string) (login, error) {
	granted := grantedLogins(p)
	if asked != "" {
		own := slices.Contains(granted, asked) || inputs.RunAsEnabled && inputs.RunAsDefaultUser == asked
		return login{asked, own}, checkLogin(asked, "RunAs")
	}
	if !inputs.RunAsEnabled {
		return login{}, nil
	}
	if len(granted) > 0 {
		return login{granted[0], true}, checkLogin(granted[0], "the tag "+runAsTag)
	}
	if inputs.RunAsDefaultUser != "" {
		return login{inputs.RunAsDefaultUser, true}, checkLogin(inputs.RunAsDefaultUser, "the document's runAsDefaultUser")
	}
	return login{}, ssmError("ValidationException", "The session runs as a login of the caller's (runAsEnabled), and there is none: neither the caller's tag %s nor the document's runAsDefaultUser names one.", runAsTag)
}

// grantedLogins are the logins that are the principal's: those of their tag.
func grantedLogins(p identity.Principal) []string {
	return slices.DeleteFunc(p.Tags.Values(runAsTag), func(name string) bool { return name == "" })
}
