package cli

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"sallyport.dev/client"
)

// cacheSSO keeps a token of the sign-in where AWS's command line looks for one, for the
// profiles and sso-sessions whose sso_start_url is on the server, as aws sso login would.
// It returns the names that it was kept for. Start URLs of other servers, AWS's own among
// them, are left alone.
func (p *program) cacheSSO(ctx context.Context, api *client.API, in *signedIn) ([]string, error) {
	path, err := p.awsConfigFile()
	if err != nil {
		return nil, err
	}
	text, err := readSmall(path, maxAWSConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	starts := ssoStarts(string(text), in.Endpoint)
	if len(starts) == 0 {
		return nil, nil
	}
	token, err := api.SSOToken(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range starts {
		if _, err := client.SaveSSOToken("", s.name, s.url, s.region, *token); err != nil {
			return names, err
		}
		names = append(names, s.name)
	}
	return names, nil
}

// ssoStart is an sso-session, by its name, or the start URL of profiles without one.
type ssoStart struct{ name, url, region string }

var configHead = regexp.MustCompile(`^\[[ \t]*(sso-session[ \t]+)?(.*?)[ \t]*\]`)

// ssoStarts finds the start URLs of a configuration file that are on a server.
func ssoStarts(text, endpoint string) []ssoStart {
	var all []ssoStart
	var now ssoStart
	session := false
	end := func() {
		if now.name = strings.Trim(now.name, `"'`); !session {
			now.name = now.url
		}
		if now.name != "" && now.region != "" && sameHost(now.url, endpoint) && !slices.Contains(all, now) {
			all = append(all, now)
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if m := configHead.FindStringSubmatch(line); m != nil {
			end()
			now, session = ssoStart{name: m[2]}, m[1] != ""
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(key) {
		case "sso_start_url":
			now.url = strings.TrimSpace(value)
		case "sso_region":
			now.region = strings.TrimSpace(value)
		}
	}
	end()
	return all
}

// sameHost reports whether two URLs are of one server.
func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	return err == nil && err2 == nil && x.Host != "" && strings.EqualFold(x.Host, y.Host) && x.Scheme == y.Scheme
}
