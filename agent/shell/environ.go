package shell

import (
	"crypto/rand"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// markName is the environment variable that a session's processes are known by when
// the session ends.
const markName = "SALLYPORT_SESSION"

// newMark returns an environment entry that no other session has.
func newMark() string { return markName + "=" + rand.Text() }

// Bounds of what a client may put into an environment.
const (
	maxVariables   = 128
	maxEnvironSize = 64 << 10 // bytes of names and values together
)

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// clientEnviron are the variables of a client that a session takes, in the order of their
// names. The gateway has let them through by a list of its own; what could change which
// program runs, or as whom, is refused here as well.
func clientEnviron(vars map[string]string) []string {
	var env []string
	size := 0
	for _, name := range sortedKeys(vars) {
		value := vars[name]
		if !variableForm.MatchString(name) || strings.Contains(value, "\x00") || dangerous(name) {
			continue
		}
		if size += len(name) + len(value) + 2; size > maxEnvironSize || len(env) == maxVariables {
			break
		}
		env = append(env, name+"="+value)
	}
	return env
}

// dangerousPrefixes and dangerousNames are variables with which loaders, shells and
// interpreters run code of the setter's choice, and those that say who one is.
var (
	dangerousPrefixes = []string{
		"LD_", "DYLD_", "_RLD", "BASH_", "PYTHON", "PERL", "RUBY", "NODE_", "LUA_", "MALLOC_", "GIT_SSH", "GIT_EXEC", "GIT_ASKPASS", "GIT_EDITOR", "GIT_PAGER",
		"GIT_CONFIG", "GIT_EXTERNAL", "GIT_PROXY", "SALLYPORT_", "SUDO_", "TERMINFO",
	}
	dangerousNames = []string{
		"PATH", "IFS", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "CDPATH", "GLOBIGNORE", "PROMPT_COMMAND", "FPATH", "ZDOTDIR",
		"HOME", "USER", "LOGNAME", "SHELL", "MAIL", "TERM", "TERMCAP", "TERMPATH", "SSH_AUTH_SOCK", "SSH_TTY", "XAUTHORITY",
		"GCONV_PATH", "GLIBC_TUNABLES", "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "NIS_PATH", "NLSPATH",
		"RES_OPTIONS", "RESOLV_HOST_CONF", "TMPDIR", "TZDIR", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS",
		"LESSOPEN", "LESSCLOSE", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "KRB5_CONFIG", "KRB5CCNAME", "OPENSSL_CONF",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME",
	}
)

func dangerous(name string) bool {
	upper := strings.ToUpper(name)
	return slices.Contains(dangerousNames, upper) ||
		slices.ContainsFunc(dangerousPrefixes, func(p string) bool { return strings.HasPrefix(upper, p) })
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// merge puts what a session adds over what its login gave: a name is there once.
func merge(base, over []string) []string {
	var out []string
	for _, entry := range base {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(over, func(o string) bool { return strings.HasPrefix(o, name+"=") }) {
			out = append(out, entry)
		}
	}
	return append(out, over...)
}
