package shell

import (
	"crypto/rand"
	"os"
	"strings"
)

const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// environ builds a session's environment from nothing: what the agent was started
// with (its secrets, LD_PRELOAD and the like) must not reach a person's shell.
func environ(u User) []string {
	return []string{
		"HOME=" + u.Home,
		"USER=" + u.Name,
		"LOGNAME=" + u.Name,
		"SHELL=" + u.Shell,
		"PATH=" + path(u),
		"TERM=xterm-256color",
		"LANG=" + language(),
	}
}

// markName is the environment variable that a session's processes are known by when
// the session ends.
const markName = "SALLYPORT_SESSION"

// newMark returns an environment entry that no other session has.
func newMark() string { return markName + "=" + rand.Text() }

// markOf returns the mark in an environment, empty if there is none.
func markOf(env []string) string {
	for _, entry := range env {
		if strings.HasPrefix(entry, markName+"=") {
			return entry
		}
	}
	return ""
}

func path(u User) string {
	if u.UID == 0 {
		return rootPath
	}
	return userPath
}

// language is the node's language if the agent was told one; the check keeps a path
// (which the C library would read a file from) out of it.
func language() string {
	if l := os.Getenv("LANG"); l != "" && !strings.ContainsAny(l, "/\x00\n") {
		return l
	}
	return "C.UTF-8"
}
