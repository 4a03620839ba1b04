package authorizedkeys

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// blob joins strings as a key's binary form does.
func blob(parts ...string) string {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return base64.StdEncoding.EncodeToString(b)
}

var good = "ssh-ed25519 " + blob("ssh-ed25519", strings.Repeat("k", 32))

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  Key
		want string // "" for a refusal
	}{
		{"a key", Key{"alice", "APKA1", good}, good + " alice APKA1"},
		{"a name with a line of its own", Key{"alice\nssh-ed25519 AAAA", "x", good}, good + " alice?ssh-ed25519 AAAA x"},
		{"a name in other letters", Key{"ålice\u2028\x1b[31m\r", "x", good}, good + " ?lice??[31m? x"},
		{"a long name", Key{strings.Repeat("a", 1000), "x", good}, good + " " + strings.Repeat("a", maxComment)},
		{"options before the key", Key{PublicKey: `command="id" ` + good}, ""},
		{"options as the type", Key{PublicKey: `restrict,` + good}, ""},
		{"a second line", Key{PublicKey: good + "\n" + good}, ""},
		{"a comment", Key{PublicKey: good + " comment"}, ""},
		{"a tab", Key{PublicKey: strings.Replace(good, " ", "\t", 1)}, ""},
		{"a newline in base64, which decoders skip", Key{PublicKey: good[:40] + "\n" + good[40:]}, good + " "},
		{"not base64", Key{PublicKey: "ssh-ed25519 ????"}, ""},
		{"nothing", Key{}, ""},
		{"a DSA key", Key{PublicKey: "ssh-dss " + blob("ssh-dss", "p")}, ""},
		{"a certificate", Key{PublicKey: "ssh-ed25519-cert-v01@openssh.com " + blob("ssh-ed25519-cert-v01@openssh.com")}, ""},
		{"another type inside", Key{PublicKey: "ssh-rsa " + blob("ssh-ed25519", "k")}, ""},
		{"cut short", Key{PublicKey: "ssh-rsa " + base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x07ssh-r"))}, ""},
		{"huge", Key{PublicKey: "ssh-rsa " + blob("ssh-rsa", strings.Repeat("x", maxKey))}, ""},
	} {
		got, err := Line(tt.key)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

// FuzzLine: whatever goes in, what comes out is one line with one key and no options,
// as sshd's parser reads it.
func FuzzLine(f *testing.F) {
	f.Add("alice", "APKA1", good)
	f.Add("a\nb", `command="x" `, "restrict "+good)
	f.Fuzz(func(t *testing.T, user, id, key string) {
		line, err := Line(Key{user, id, key})
		if err != nil {
			return
		}
		if strings.ContainsAny(line, "\n\r\x00") {
			t.Fatalf("%q is more than a line", line)
		}
		pub, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return // strings, but no key: sshd passes over it
		}
		if len(options) > 0 || len(rest) > 0 || !bytes.HasPrefix([]byte(line), []byte(pub.Type()+" ")) {
			t.Fatalf("%q has options %q, rest %q", line, options, rest)
		}
	})
}
