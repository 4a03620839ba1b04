package frontdoor

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport.dev/identity"
)

// maxUser bounds the SSH user name, in bytes: a user of 64, a login of 32, and a node's
// name of at most 256.
const maxUser = 360

// userName is what an SSH user name says: [PERSON[+LOGIN]@]NODE.
type userName struct {
	person string // as registered, or that of a role session; "" for the key's owner
	login  string // on the node; "" for the one that the person gets by default
	node   string // id or name
}

// loginPattern is what logins look like. A + before anything else belongs to the
// person: names of users may hold one.
var loginPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?$`)

var errUserName = errors.New("the SSH user name must be NODE, PERSON@NODE or PERSON+LOGIN@NODE")

// parseUser reads an SSH user name.
func parseUser(user string) (userName, error) {
	if err := checkText(user, maxUser); err != nil {
		return userName{}, fmt.Errorf("%w: %w", errUserName, err)
	}
	i := strings.LastIndexByte(user, '@')
	u := userName{node: user[i+1:]}
	if u.node == "" {
		return userName{}, errUserName
	}
	if i < 0 {
		return u, nil
	}
	u.person = user[:i]
	if j := strings.LastIndexByte(u.person, '+'); j >= 0 {
		if login := u.person[j+1:]; login == "" || loginPattern.MatchString(login) {
			u.person, u.login = u.person[:j], login
		}
	}
	return u, nil
}

// checkText refuses what has no place in a name: it would end up in logs and on
// screens.
func checkText(s string, most int) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > most:
		return fmt.Errorf("it has %d bytes, %d are allowed", len(s), most)
	case !utf8.ValidString(s):
		return errors.New("it is not UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("it holds a control character")
	}
	return nil
}

// innerLogin is the login that the user name of a connection to NODE.SUFFIX means: none
// where it is the person's own name, _ or -. (OpenSSH takes no user name that begins
// with -.)
func innerLogin(user string, p identity.Principal) (string, error) {
	switch {
	case user == "_" || user == "-" || strings.EqualFold(user, p.Name) || p.SessionName != "" && user == p.SessionName:
		return "", nil
	case !loginPattern.MatchString(user):
		return "", fmt.Errorf("the SSH user name must be a login of the node, your own name, or _ for the node's default")
	}
	return user, nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

// nodeOfHost returns the node that a host name under the suffix stands for.
func nodeOfHost(host, suffix string) (string, bool) {
	if suffix == "" {
		return "", false
	}
	host = strings.TrimSuffix(host, ".")
	cut := len(host) - len(suffix) - 1
	if cut < 1 || host[cut] != '.' || !strings.EqualFold(host[cut+1:], suffix) {
		return "", false
	}
	name := host[:cut]
	return name, hostPattern.MatchString(name)
}
