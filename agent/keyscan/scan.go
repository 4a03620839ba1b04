package keyscan

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Bounds of a scan. What is beyond them is left out, and the report says so.
const (
	maxAccounts = 2000
	maxFile     = 256 << 10 // bytes
	// maxFileKeys bounds the keys of one file, so that nobody fills the report alone and
	// hides the keys of others.
	maxFileKeys = 100
	// MaxKeys is how many keys are reported at most.
	MaxKeys = 1000
)

// Key is a key that lets somebody in.
type Key struct {
	Login       string // whose file it is
	File        string // path
	Fingerprint string // SHA256:…
	Type        string // ssh-ed25519, …
	Comment     string
	Authority   bool // it signs certificates that let in (option cert-authority)
}

// Places are where a scan looks. The zero value stands for the machine's own.
type Places struct {
	Passwd string // /etc/passwd
	SSHD   string // /etc/ssh/sshd_config
}

// Scan reads the authorized_keys files of all accounts. Files that cannot be read are
// left out; more is whether anything was left out for its size.
func Scan(p Places) (keys []Key, more bool, err error) {
	accounts, more, err := readAccounts(cmp.Or(p.Passwd, "/etc/passwd"))
	if err != nil {
		return nil, false, fmt.Errorf("looking for authorized keys: %w", err)
	}
	patterns := filePatterns(cmp.Or(p.SSHD, "/etc/ssh/sshd_config"))
	seen := map[string]bool{} // several accounts may share a home
	for _, a := range accounts {
		for _, pattern := range patterns {
			path := a.expand(pattern)
			if path == "" || seen[path+"\x00"+a.login] {
				continue
			}
			seen[path+"\x00"+a.login] = true
			found, cut := readKeys(a, path)
			keys, more = append(keys, found...), more || cut
			if len(keys) > MaxKeys {
				return keys[:MaxKeys], true, nil
			}
		}
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(strings.Compare(a.Login, b.Login), strings.Compare(a.File, b.File), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	return slices.Compact(keys), more, nil
}

type account struct {
	login, home string
	uid         uint32
}

// readAccounts reads the accounts of a passwd file.
func readAccounts(path string) (all []account, more bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 4<<20))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 7 || fields[0] == "" || !filepath.IsAbs(fields[5]) || fields[5] == "/" || fields[5] == "/nonexistent" {
			continue
		}
		uid, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		if len(all) == maxAccounts {
			return all, true, nil
		}
		all = append(all, account{fields[0], fields[5], uint32(uid)})
	}
	return all, false, lines.Err()
}

// filePatterns are those of AuthorizedKeysFile, sshd's own unless its configuration has
// others. Sections of Match count, too: they let in as well.
func filePatterns(config string) []string {
	patterns := []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}
	text, _, err := readFile(config, 0)
	if err != nil {
		return patterns
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.EqualFold(fields[0], "AuthorizedKeysFile") {
			for _, f := range fields[1:] {
				found = append(found, strings.Trim(f, `"`))
			}
		}
	}
	if len(found) == 0 {
		return patterns
	}
	return found
}

// expand makes a path of a pattern; empty for none.
func (a account) expand(pattern string) string {
	if pattern == "none" {
		return ""
	}
	path := strings.NewReplacer("%h", a.home, "%u", a.login, "%%", "%").Replace(pattern)
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.home, path)
	}
	return filepath.Clean(path)
}

// errOdd marks a file that sshd would not read.
var errOdd = errors.New("not a regular file")

// readFile reads a regular file, as much as there may be of it. The file may be a user's,
// uid: a link of theirs leads no further than they could read themselves, and what is no
// file is not opened, as opening some devices does things.
func readFile(path string, uid uint32) (text []byte, cut bool, err error) {
	f, err := open(path, uid)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(text) > maxFile {
		text, cut = text[:maxFile], true
	}
	return text, cut, err
}

// readKeys reads the keys of a file.
func readKeys(a account, path string) (keys []Key, cut bool) {
	text, cut, err := readFile(path, a.uid)
	if err != nil {
		return nil, false
	}
	for line := range bytes.Lines(text) {
		key, comment, options, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			continue // not a key, nor for sshd
		}
		if len(keys) == maxFileKeys {
			return keys, true
		}
		keys = append(keys, Key{
			Login: a.login, File: path, Fingerprint: ssh.FingerprintSHA256(key), Type: key.Type(), Comment: comment,
			Authority: slices.Contains(options, "cert-authority"),
		})
	}
	return keys, cut
}
