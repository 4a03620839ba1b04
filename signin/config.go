package signin

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"sallyport.dev/internal/loopback"
)

// Provider is an OpenID provider, and what its claims mean here.
type Provider struct {
	Name   string // in URLs, sign-ins and the audit log; letters, digits and dashes
	Title  string // what the button says; Name unless given
	Issuer string // https, or http on loopback
	// ClientID and ClientSecret are what the provider knows us by; the secret is empty for
	// a public client.
	ClientID, ClientSecret string
	Scopes                 []string // beside openid
	// UserClaim is the claim that a new person's user name is made of; preferred_username
	// unless given. Of the claim email the provider must say that it has verified it.
	UserClaim string
	// GroupsClaim is the claim that lists groups; empty for none.
	GroupsClaim string
	// Groups are claimed groups that are those of the same name here, and GroupPrefix,
	// unless empty, is put before the names of all others. GroupNames maps names here to
	// what is claimed. What none of these names, the provider has no say in.
	Groups      []string
	GroupPrefix string
	GroupNames  map[string]string
	// Tags are keys of tags to claims; the claim email counts only where verified.
	Tags    map[string]string
	Require map[string][]string // claims to values, of which a person must have one
	// TrustFactors takes the provider's word (amr) for a second factor.
	TrustFactors bool
	// CAFile holds PEM certificates to trust besides the system's; optional.
	CAFile string
}

var (
	providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	groupName    = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	tagKey       = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,128}$`)
)

// Check fills in defaults and names the first mistake.
func (p *Provider) Check() error {
	if p.Title == "" {
		p.Title = p.Name
	}
	if p.UserClaim == "" {
		p.UserClaim = "preferred_username"
	}
	u, err := url.Parse(p.Issuer)
	switch {
	case !providerName.MatchString(p.Name):
		return fmt.Errorf("oidc %q: want lower-case letters, digits and dashes, 32 at most", p.Name)
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("oidc %q: issuer: %q is not a URL", p.Name, p.Issuer)
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback.Is(u.Hostname())):
		return fmt.Errorf("oidc %q: issuer: %q: want https://, or http:// on a loopback address", p.Name, p.Issuer)
	case p.ClientID == "":
		return fmt.Errorf("oidc %q: client_id: missing", p.Name)
	case p.GroupsClaim == "" && (len(p.Groups) > 0 || p.GroupPrefix != "" || len(p.GroupNames) > 0):
		return fmt.Errorf("oidc %q: groups_claim: missing, though groups are allowed", p.Name)
	}
	return p.checkNames()
}

func (p *Provider) checkNames() error {
	for _, g := range slices.Concat(p.Groups, mapKeys(p.GroupNames)) {
		if !groupName.MatchString(g) {
			return fmt.Errorf("oidc %q: group %q is no name of a group", p.Name, g)
		}
	}
	if p.GroupPrefix != "" && !groupName.MatchString(p.GroupPrefix) {
		return fmt.Errorf("oidc %q: group_prefix: %q is no beginning of a group's name", p.Name, p.GroupPrefix)
	}
	for key := range p.Tags {
		if !tagKey.MatchString(key) || strings.HasPrefix(strings.ToLower(key), "aws:") {
			return fmt.Errorf("oidc %q: tag %q is no key of a tag", p.Name, key)
		}
	}
	return nil
}

func mapKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Limits of what is waiting.
const (
	pairingLife   = 10 * time.Minute // of a device code
	codeLife      = time.Minute      // of an authorisation code
	beginLife     = 10 * time.Minute // of a visit to a provider
	pollEvery     = 5 * time.Second
	maxPairings   = 10_000 // waiting, in all: a hundred networks at rateDevice
	maxCredential = time.Hour
)
