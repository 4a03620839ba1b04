package shell

import (
	"bufio"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a login gives a session, PAM not being linked: read anew for each session, from
// files that only root may change. A file that is not there has nothing to say.
const (
	loginDefs    = "/etc/login.defs"
	environFile  = "/etc/environment"
	limitsFile   = "/etc/security/limits.conf"
	limitsDir    = "/etc/security/limits.d"
	groupFile    = "/etc/group"
	shadowFile   = "/etc/shadow"
	defaultUmask = 0o022
	maxFile      = 1 << 20 // of each file, in bytes
)

// localeFiles name the machine's language; the first that does counts.
var localeFiles = []string{"/etc/locale.conf", "/etc/default/locale"}

// login is what a user's login consists of besides credentials.
type login struct {
	env    []string
	path   string
	umask  int
	nice   int
	limits []limit
}

// login reads what u's login gives. Paths are below o.root, which only tests set.
func (o Options) login(u User) login {
	defs := readPairs(o.at(loginDefs), ' ')
	global := readPairs(o.at(environFile), '=')
	l := login{umask: o.umask(u, defs), path: loginPath(u, defs)}
	if p := global["PATH"]; p != "" {
		l.path = p
	}
	l.env = []string{
		"HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name, "SHELL=" + u.Shell, "PATH=" + l.path,
		"MAIL=" + filepath.Join("/var/mail", u.Name),
	}
	for _, name := range sortedKeys(global) {
		if !slices.Contains(loginNames, name) && variableForm.MatchString(name) {
			l.env = append(l.env, name+"="+global[name])
		}
	}
	for name, value := range o.language() {
		if global[name] == "" {
			l.env = append(l.env, name+"="+value)
		}
	}
	rules := o.limitRules()
	l.nice, l.limits = rules.of(u, o.groupNames(u))
	return l
}

// loginNames are the variables that say who one is: /etc/environment does not.
var loginNames = []string{"HOME", "USER", "LOGNAME", "SHELL", "PATH", "MAIL", "TERM"}

func (o Options) at(path string) string { return filepath.Join(o.root, path) }

// loginPath is the path of login.defs, else a usual one.
func loginPath(u User, defs map[string]string) string {
	key, usual := "ENV_PATH", userPath
	if u.UID == 0 {
		key, usual = "ENV_SUPATH", rootPath
	}
	if _, p, ok := strings.Cut(defs[key], "PATH="); ok && p != "" {
		return p
	}
	return usual
}

// umask is that of login.defs. Where every user has a group of their own, as
// USERGROUPS_ENAB says, the group may do what its only member may.
func (o Options) umask(u User, defs map[string]string) int {
	mask := defaultUmask
	if n, err := strconv.ParseUint(defs["UMASK"], 8, 9); err == nil {
		mask = int(n)
	}
	if defs["USERGROUPS_ENAB"] == "yes" && u.UID != 0 && o.groupName(u.GID) == u.Name {
		mask = mask&^0o070 | mask>>3&0o070
	}
	return mask
}

// language is what the machine's locale files say: LANG and LC_…, of which LANG is
// always there.
func (o Options) language() map[string]string {
	out := map[string]string{"LANG": "C.UTF-8"}
	for _, file := range localeFiles {
		pairs := readPairs(o.at(file), '=')
		if len(pairs) == 0 {
			continue
		}
		for name, value := range pairs {
			if (name == "LANG" || name == "LANGUAGE" || strings.HasPrefix(name, "LC_")) && value != "" {
				out[name] = value
			}
		}
		break
	}
	return out
}

// readPairs reads lines of a name and a value, with sep between them (' ' for any white
// space), comments from # on, and values in quotes or not. The last of a name counts.
func readPairs(path string, sep byte) map[string]string {
	pairs := make(map[string]string)
	for _, line := range readLines(path) {
		var name, value string
		if sep == ' ' {
			name, value, _ = strings.Cut(strings.Join(strings.Fields(line), " "), " ")
		} else {
			name, value, _ = strings.Cut(strings.TrimPrefix(line, "export "), string(sep))
		}
		if name = strings.TrimSpace(name); name != "" && !strings.Contains(value, "\x00") {
			pairs[name] = unquote(strings.TrimSpace(value))
		}
	}
	return pairs
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// readLines are the lines of a file without comments and empty ones.
func readLines(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var lines []string
	size := 0
	for s := bufio.NewScanner(f); s.Scan() && size < maxFile; {
		size += len(s.Text())
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// groupNames are the names of u's groups, as far as they have any.
func (o Options) groupNames(u User) []string {
	var names []string
	for _, gid := range append([]uint32{u.GID}, u.Groups...) {
		if name := o.groupName(gid); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (o Options) groupName(gid uint32) string {
	want := strconv.FormatUint(uint64(gid), 10)
	for _, line := range readLines(o.at(groupFile)) {
		if f := strings.Split(line, ":"); len(f) == 4 && f[2] == want {
			return f[0]
		}
	}
	if o.root != "" {
		return ""
	}
	g, err := user.LookupGroupId(want)
	if err != nil {
		return ""
	}
	return g.Name
}

// expired reports whether an account has ended, as chage -E lets it: the eighth field of
// its line in the shadow file, in days since 1970.
func (o Options) expired(name string, now time.Time) bool {
	for _, line := range readLines(o.at(shadowFile)) {
		f := strings.Split(line, ":")
		if len(f) < 8 || f[0] != name {
			continue
		}
		day, err := strconv.ParseInt(f[7], 10, 64)
		return err == nil && day >= 0 && now.Unix()/(24*60*60) >= day
	}
	return false
}
