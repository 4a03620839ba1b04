package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Tokens are kept for start URLs of the server that one signs in at, and no other.
func TestSSOStarts(t *testing.T) {
	const config = `[default]
region = us-east-1
[profile a]
sso_start_url = https://sallyport.example/start
sso_region = eu-west-1
sso_role_name = Ops
[profile again]
sso_start_url=https://sallyport.example/start
sso_region=eu-west-1
[profile aws]
sso_start_url = https://d-1234567890.awsapps.com/start
sso_region = us-east-1
[profile evil]
sso_start_url = https://sallyport.example.evil.example/start
sso_region = us-east-1
[profile no-region]
sso_start_url = https://sallyport.example/other
[sso-session "mine"]
sso_start_url = https://SALLYPORT.example/start
sso_region = us-east-1
[sso-session plain]
sso_start_url = http://sallyport.example/start
sso_region = us-east-1
`
	want := []ssoStart{
		{"https://sallyport.example/start", "https://sallyport.example/start", "eu-west-1"},
		{"mine", "https://SALLYPORT.example/start", "us-east-1"},
	}
	if diff := cmp.Diff(want, ssoStarts(config, "https://sallyport.example"), cmp.AllowUnexported(ssoStart{})); diff != "" {
		t.Error(diff)
	}
}

func TestPasswordLines(t *testing.T) {
	for in, want := range map[string][2]string{
		"old one\nnew one\n": {"old one", "new one"}, "a\r\nb": {"a", "b"}, " a \n b \nc": {" a ", " b "},
	} {
		old, password, err := passwordLines(strings.NewReader(in))
		if err != nil || [2]string{old, password} != want {
			t.Errorf("%q: got %q, %q, %v", in, old, password, err)
		}
	}
	for _, in := range []string{"", "one\n", strings.Repeat("x", 5000)} {
		if _, _, err := passwordLines(strings.NewReader(in)); err == nil {
			t.Errorf("%.10q: got no error", in)
		}
	}
}

// A QR code reads the same on dark and light terminals: the light parts are painted.
func TestTerminalQR(t *testing.T) {
	got, err := terminalQR("otpauth://totp/Sallyport:carol?secret=ABC")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "\x1b[30;107m") || !strings.HasSuffix(line, "\x1b[0m") {
			t.Fatalf("got line %q", line)
		}
	}
	if len(lines) > 24 {
		t.Errorf("got %d lines, which is more than a terminal shows", len(lines))
	}
}
