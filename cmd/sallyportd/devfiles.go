package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sallyport.dev/member"
)

// accessKey is a long-lived key of a sample user.
type accessKey struct {
	id, secret string
}

// devFiles are the files that let a shell talk to the dev server.
type devFiles struct {
	dir  string
	url  string
	keys map[string]accessKey // by user
}

func (d devFiles) write() error {
	for _, step := range []func() error{d.writeConfig, d.writeCredentials, d.writeEnv, d.writeBin} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (d devFiles) path(names ...string) string {
	return filepath.Join(append([]string{d.dir}, names...)...)
}

func (d devFiles) writeConfig() error {
	var b strings.Builder
	for _, u := range sampleUsers {
		fmt.Fprintf(&b, "[profile %s]\nregion = %s\n\n", u.name, devRegion)
	}
	// The aws CLI caches a role's credentials by what it asked for, in the person's home.
	// The external id, which the role does not mind, keeps those of another dev folder
	// from being used here.
	for _, p := range []struct{ profile, user string }{{"frontend-ssh", "alice"}, {"carol-frontend", "carol"}} {
		fmt.Fprintf(&b, "[profile %s]\nregion = %s\nrole_arn = arn:aws:iam::%s:role/%s\nsource_profile = %s\nrole_session_name = %s\nexternal_id = dev-%s\n\n",
			p.profile, devRegion, devAccount, sampleRole, p.user, p.user, d.keys[p.user].id)
	}
	return writeFile(d.path("aws", "config"), b.String(), 0o600)
}

func (d devFiles) writeCredentials() error {
	var b strings.Builder
	for _, u := range sampleUsers {
		k := d.keys[u.name]
		fmt.Fprintf(&b, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n\n", u.name, k.id, k.secret)
	}
	return writeFile(d.path("aws", "credentials"), b.String(), 0o600)
}

func (d devFiles) writeEnv() error {
	var b strings.Builder
	b.WriteString("# Source this file: it points this shell's AWS tools at the dev server.\n")
	b.WriteString("unset AWS_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN\n")
	for _, v := range [][2]string{
		{"AWS_CONFIG_FILE", d.path("aws", "config")},
		{"AWS_SHARED_CREDENTIALS_FILE", d.path("aws", "credentials")},
		{"AWS_ENDPOINT_URL", d.url},
		{"AWS_REGION", devRegion},
		{"AWS_DEFAULT_REGION", devRegion},
		{"AWS_ACCOUNT_ID", devAccount},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	// Our folder comes first, also when another dev server's was put before it since.
	b.WriteString(strings.ReplaceAll(`PATH=:${PATH}:
case $PATH in *:BIN:*) PATH=${PATH%%:BIN:*}:${PATH#*:BIN:} ;; esac
PATH=${PATH#:} PATH=${PATH%:}
export PATH=BIN${PATH:+:"$PATH"}
`, "BIN", shellQuote(d.path("bin"))))
	return writeFile(d.path("env"), b.String(), 0o600)
}

// writeBin puts a copy of this program into DIR/bin under the client's names. A
// copy, because the program that "go run" builds is gone when it ends.
func (d devFiles) writeBin() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	bin := d.path("bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return err
	}
	if err := copyProgram(self, filepath.Join(bin, "sallyportd")); err != nil {
		return fmt.Errorf("copying the client to %s: %w", bin, err)
	}
	for _, name := range []string{"sallyport", "session-manager-plugin"} {
		link := filepath.Join(bin, name)
		if target, err := os.Readlink(link); err == nil && target == "sallyportd" {
			continue
		}
		os.Remove(link)
		if err := os.Symlink("sallyportd", link); err != nil {
			return err
		}
	}
	return nil
}

func copyProgram(from, to string) error {
	if a, err := os.Stat(from); err == nil {
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			return nil
		}
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.OpenFile(to+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	if _, err := io.Copy(tmp, src); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// writeFile replaces a file atomically.
func writeFile(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// shellQuote quotes s for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// places says where things are; those that --with moved are not in the folder.
func places(r member.Recordings, dir string) string {
	if r.Store == filepath.Join(dir, "recordings") && r.Key == filepath.Join(dir, "recordings.key") {
		return "State, keys and recordings are in " + dir
	}
	return fmt.Sprintf("State and keys are in %s\nRecordings are in %s, their keys wrapped by %s", dir, r.Store, r.Key)
}

func printTour(out io.Writer, o devOptions, dir string, m *member.Member) {
	env := o.dir + "/env"
	if !filepath.IsAbs(env) && !strings.HasPrefix(env, ".") {
		env = "./" + env
	}
	fmt.Fprintf(out, `Sallyport dev server at %s, account %s, region %s
%s
`, m.PlainURL(), devAccount, devRegion, places(m.Recordings(), dir))
	if url := m.AdminURL(); url != "" {
		fmt.Fprintf(out, "Metrics at %s/metrics\n", url)
	}
	if url := m.TLSURL(); url != "" {
		fmt.Fprintf(out, "TLS for other agents at %s, trusted through %s\n", url, filepath.Join(dir, "ca.crt"))
	}
	if o.nodes < len(sampleNodes) {
		return
	}
	if m.SSHAddress() != "" {
		fmt.Fprintf(out, "SSH at %s\n", m.SSHAddress())
	}
	fmt.Fprintf(out, `
In another shell (AWS_ENDPOINT_URL needs aws-cli 1.29 or 2.13; with an older one add
--endpoint-url %s to every aws command):

  . %s

  # a shell on frontend-1; exit or Ctrl-D leaves it
  aws --profile frontend-ssh ssm start-session --target %s
  # backend-1 refuses, and says why
  aws --profile frontend-ssh ssm start-session --target %s
  sallyport --profile frontend-ssh why StartSession backend-1

  # the same with our own client, by name
  sallyport --profile alice nodes
  sallyport --profile alice connect frontend-1

  # carol has no access: she asks, bob decides, and the same command works
  sallyport --profile carol request --duration 30m --reason 'the build is broken'
  sallyport --profile bob approve
  aws --profile carol-frontend ssm start-session --target %s
  # or where she works: it asks, waits, and becomes the shell
  sallyport --profile carol connect frontend-1

%s  # what happened
  sallyport --profile admin sessions
  sallyport --profile alice play
  sallyport --profile admin audit

`, m.PlainURL(), shellQuoteIfNeeded(env), sampleNodes[0].id, sampleNodes[1].id, sampleNodes[0].id, sshTour(o, m))
}

func shellQuoteIfNeeded(s string) string {
	if strings.ContainsAny(s, " '\"$`\\!*?[](){};&|<>~#") {
		return shellQuote(s)
	}
	return s
}
