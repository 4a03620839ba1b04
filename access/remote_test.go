package access_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"sallyport.dev/access"
)

// Whatever a caller writes, policies see one form of it, or the session is refused.
func TestParseRemote(t *testing.T) {
	for _, test := range []struct{ host, port, want, address string }{
		{"db.internal", "5432", "db.internal", ""},
		{"DB.Internal", "5432", "db.internal", ""},
		{"db.internal.", "5432", "db.internal", ""},
		{"_pg._tcp.internal", "5432", "_pg._tcp.internal", ""},
		{"xn--bcher-kva.example", "443", "xn--bcher-kva.example", ""},
		{"3com.example", "443", "3com.example", ""},
		{"", "22", "localhost", "127.0.0.1"},
		{"LOCALHOST.", "22", "localhost", "127.0.0.1"},
		{"10.0.0.7", "80", "10.0.0.7", "10.0.0.7"},
		{"2001:DB8:0:0::1", "80", "2001:db8::1", "2001:db8::1"},
		{"::ffff:169.254.169.254", "80", "169.254.169.254", "169.254.169.254"},
		{"::FFFF:a9fe:a9fe", "80", "169.254.169.254", "169.254.169.254"},
		{"0:0:0:0:0:0:0:1", "80", "::1", "::1"},
	} {
		r, err := access.ParseRemote(test.host, test.port)
		address := ""
		if r.Address.IsValid() {
			address = r.Address.String()
		}
		if err != nil || r.Host != test.want || address != test.address || strconv.Itoa(r.Port) != test.port {
			t.Errorf("%q %q: got %+v (%v), want %q %q", test.host, test.port, r, err, test.want, test.address)
		}
	}
}

// Attacks: hosts and ports that somebody else would read in another way than we do.
func TestParseRemoteRefuses(t *testing.T) {
	for _, host := range []string{
		"2130706433", "017700000001", "0x7f000001", "0x7F.1", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.01", "127.0.0.1.",
		"0.0.0.0", "::", "::ffff:0.0.0.0", "0", "1.2.3.4.5", "256.0.0.1", "db.0x", "169.254.169.254.", "10.0.0.1/8",
		"[::1]", "::1%lo", "fe80::1%eth0", "169.254.169.254%1", "::1%25lo", ":::", "1:2", "::ffff:0x7f.1", "localhost%0",
		" db", "db ", "db\tinternal", "db\n", "db\x00.internal", "db..internal", ".db", ".", "..", "db..", "-db", "db-", "db/../x", "user@db", "db,other", "*", "",
		"ⓛocalhost", "db。internal", "１27.0.0.1", "ſerver", "\u212aafka", "db\u2028", "db\u200b", "caf\u00e9", "db\xff",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 200) + "b",
	} {
		if host == "" {
			continue // the node itself
		}
		if r, err := access.ParseRemote(host, "80"); err == nil {
			t.Errorf("%q: got %+v, want it refused", host, r)
		}
	}
	for _, port := range []string{"", "0", "65536", "080", "+80", "-80", " 80", "80 ", "80;id", "8e1", "0x50", "８０", "80\n", "99999999999999999999", "http"} {
		if r, err := access.ParseRemote("db", port); err == nil {
			t.Errorf("port %q: got %+v, want it refused", port, r)
		}
	}
}

// What is accepted has one form: reading that again changes nothing, and no address
// passes for a name.
func FuzzParseRemote(f *testing.F) {
	for _, host := range []string{"db.internal.", "::ffff:1.2.3.4", "LOCALHOST", "127.1", "fe80::1%eth0", "a.0x7f"} {
		f.Add(host, "80")
	}
	f.Fuzz(func(t *testing.T, host, port string) {
		r, err := access.ParseRemote(host, port)
		if err != nil {
			return
		}
		again, err := access.ParseRemote(r.Host, strconv.Itoa(r.Port))
		if err != nil || again != r {
			t.Errorf("%q: got %+v, then %+v (%v)", host, r, again, err)
		}
		if addr, err := netip.ParseAddr(r.Host); (err == nil) != (r.Address.IsValid() && r.Host != "localhost") || err == nil && addr != r.Address {
			t.Errorf("%q: got %+v", host, r)
		}
	})
}
