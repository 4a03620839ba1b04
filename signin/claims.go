package signin

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// claims are what a provider says of a person.
type claims map[string]any

const (
	// maxValues bounds the values of one claim.
	maxValues = 500
	// maxTagValue bounds the value of a tag, in characters, as IAM does.
	maxTagValue = 256
)

var (
	userName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	tagValue = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
)

// value finds a claim by its name, or by a path of names with dots, as
// realm_access.roles.
func (c claims) value(name string) (any, bool) {
	if v, ok := c[name]; ok {
		return v, true
	}
	first, rest, nested := strings.Cut(name, ".")
	inner, ok := c[first].(map[string]any)
	if !nested || !ok {
		return nil, false
	}
	return claims(inner).value(rest)
}

// text is a claim that is one text; empty for any other.
func (c claims) text(name string) string {
	v, _ := c.value(name)
	s, _ := v.(string)
	return s
}

// claimEmail is the claim of an address. People write it themselves at some providers, and
// it is worth something only where the provider says that it is theirs.
const claimEmail = "email"

func (c claims) emailVerified() bool { return c["email_verified"] == true }

// values are a claim's texts: one, or a list of them. A claim of another kind is an
// error, and so are too many. An address that the provider has not verified is none.
func (c claims) values(name string) ([]string, error) {
	v, ok := c.value(name)
	if !ok || v == nil || name == claimEmail && !c.emailVerified() {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) > maxValues {
		return nil, fmt.Errorf("the claim %q has %d values; %d are allowed", name, len(list), maxValues)
	}
	var all []string
	for _, v := range list {
		switch v := v.(type) {
		case string:
			all = append(all, v)
		case bool, float64:
			all = append(all, fmt.Sprint(v))
		default:
			return nil, fmt.Errorf("the claim %q is neither a text nor a list of texts", name)
		}
	}
	return all, nil
}

// satisfied reports whether the claims have all that the configuration asks for.
func (p *Provider) satisfied(c claims) bool {
	names := []string{p.UserClaim}
	if p.GroupsClaim != "" {
		names = append(names, p.GroupsClaim)
	}
	names = append(names, mapKeys(p.Require)...)
	for _, claim := range p.Tags {
		names = append(names, claim)
	}
	if slices.Contains(names, claimEmail) {
		names = append(names, "email_verified")
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		_, ok := c.value(name)
		return !ok
	})
}

// required checks that a person has one of the values of each required claim.
func (p *Provider) required(c claims) error {
	for _, name := range mapKeys(p.Require) {
		have, err := c.values(name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(have, func(v string) bool { return slices.Contains(p.Require[name], v) }) {
			return fmt.Errorf("the claim %q does not let you in here", name)
		}
	}
	return nil
}

// userName is what a new person is to be called.
func (p *Provider) userName(c claims) (string, error) {
	name := c.text(p.UserClaim)
	switch {
	case name == "":
		return "", fmt.Errorf("the provider gives no %s", p.UserClaim)
	case !userName.MatchString(name):
		return "", fmt.Errorf("the provider's %s is no name of a user: letters, digits and _+=,.@-, 64 at most", p.UserClaim)
	case p.UserClaim == claimEmail && !c.emailVerified():
		return "", errors.New("the provider has not verified the e-mail address")
	}
	return name, nil
}

// groups are the groups here that the claims name.
func (p *Provider) groups(c claims) ([]string, error) {
	if p.GroupsClaim == "" {
		return nil, nil
	}
	claimed, err := c.values(p.GroupsClaim)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range claimed {
		switch {
		case slices.Contains(p.Groups, name):
			names = append(names, name)
		case p.GroupPrefix != "" && groupName.MatchString(p.GroupPrefix+name):
			names = append(names, p.GroupPrefix+name)
		}
	}
	for _, name := range mapKeys(p.GroupNames) {
		if slices.Contains(claimed, p.GroupNames[name]) {
			names = append(names, name)
		}
	}
	return names, nil
}

// governs reports whether the provider has a say in who is in a group here.
func (p *Provider) governs(group string) bool {
	if p.GroupsClaim == "" {
		return false
	}
	named := func(name string) bool { return strings.EqualFold(name, group) }
	if slices.ContainsFunc(p.Groups, named) || slices.ContainsFunc(mapKeys(p.GroupNames), named) {
		return true
	}
	return p.GroupPrefix != "" && len(group) > len(p.GroupPrefix) && strings.EqualFold(group[:len(p.GroupPrefix)], p.GroupPrefix)
}

// tags are the tags that the claims make; empty values are of claims that are not there.
func (p *Provider) tags(c claims) (map[string]string, error) {
	tags := map[string]string{}
	for _, key := range mapKeys(p.Tags) {
		values, err := c.values(p.Tags[key])
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			// A comma would make several values of one.
			if !tagValue.MatchString(v) || strings.Contains(v, ",") {
				return nil, fmt.Errorf("the claim %q cannot be the tag %s: letters, digits, spaces and _.:/=+-@ only", p.Tags[key], key)
			}
		}
		value := strings.Join(values, ",")
		if len([]rune(value)) > maxTagValue {
			return nil, fmt.Errorf("the claim %q is too long for the tag %s: %d characters at most", p.Tags[key], key, maxTagValue)
		}
		tags[key] = value
	}
	return tags, nil
}

// secondFactors are the methods of RFC 8176 that are a second factor, as we call them.
var secondFactors = map[string]string{
	"hwk": "webauthn", "swk": "webauthn", "fido": "webauthn", "pop": "webauthn", "sc": "webauthn",
	"otp": "totp", "sms": "totp", "tel": "totp", "mfa": "totp",
}

// factor is the second factor that the provider saw, if its word is taken for it, and
// when. Without the time it counts for nothing: nobody knows how old it is. A time to come
// is now, or the factor would be new until then.
func (p *Provider) factor(c claims, now time.Time) (string, time.Time) {
	seconds, ok := c["auth_time"].(float64)
	if !p.TrustFactors || !ok {
		return "", time.Time{}
	}
	methods, err := c.values("amr")
	if err != nil {
		return "", time.Time{}
	}
	factor := ""
	for _, m := range methods {
		if f := secondFactors[m]; f == "webauthn" || factor == "" && f != "" {
			factor = f
		}
	}
	if factor == "" {
		return "", time.Time{}
	}
	if at := time.Unix(int64(seconds), 0); at.Before(now) {
		return factor, at.UTC()
	}
	return factor, now.UTC()
}
