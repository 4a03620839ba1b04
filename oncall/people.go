package oncall

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport.dev/identity"
)

// someone is on duty, as the source knows them: by e-mail address, or by a name.
type someone struct{ email, name string }

func (o someone) String() string {
	if o.email != "" {
		return o.email
	}
	return o.name
}

// with adds what another has; its own goes first.
func (p People) with(more People) People {
	names := maps.Clone(more.Names)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, p.Names)
	out := People{EmailTag: more.EmailTag, Names: map[string]string{}}
	if out.EmailTag == "" {
		out.EmailTag = p.EmailTag
	}
	if out.EmailTag == "" {
		out.EmailTag = "Email"
	}
	for k, v := range names {
		out.Names[strings.ToLower(k)] = v
	}
	return out
}

// users matches people with users. People who are no users are left out; if there is
// none left, that is an error.
func (s *Sources) users(ctx context.Context, found []someone, p People) ([]string, error) {
	if len(found) == 0 {
		return nil, nil
	}
	all, err := s.config.Directory.Users(ctx, identity.Page{Limit: maxUsers})
	if err != nil {
		return nil, fmt.Errorf("looking up users: %w", err)
	}
	known := newRegister(all, p)
	var names []string
	var unknown []string
	for _, o := range found {
		name, err := known.find(o)
		if err != nil {
			return nil, err
		}
		if name == "" {
			unknown = append(unknown, o.String())
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("on duty is %s, who is no user here: neither by the tag %s nor by the configured names", clip(strings.Join(unknown, ", ")), p.EmailTag)
	}
	return names, nil
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// register finds users by what they are called elsewhere.
type register struct {
	people People
	names  map[string]string   // by lower-case name
	emails map[string][]string // by lower-case address
}

func newRegister(users []identity.User, p People) register {
	r := register{people: p, names: map[string]string{}, emails: map[string][]string{}}
	for _, u := range users {
		if u.Disabled {
			continue
		}
		r.names[strings.ToLower(u.Name)] = u.Name
		for _, key := range u.Tags.Keys() {
			if !strings.EqualFold(key, p.EmailTag) {
				continue
			}
			for _, address := range u.Tags.Values(key) {
				address = strings.ToLower(address)
				r.emails[address] = append(r.emails[address], u.Name)
			}
		}
	}
	return r
}

// find returns the name of a user, or nothing. Two users with one address are an error:
// nobody is told apart by it.
func (r register) find(o someone) (string, error) {
	for _, key := range []string{o.email, o.name} {
		key = strings.ToLower(strings.TrimSpace(key))
		if key == "" {
			continue
		}
		if name, ok := r.people.Names[key]; ok {
			return r.names[strings.ToLower(name)], nil
		}
		switch found := r.emails[key]; {
		case len(found) > 1:
			return "", fmt.Errorf("%s is the address of %d users: %s", key, len(found), strings.Join(found, ", "))
		case len(found) == 1:
			return found[0], nil
		}
		if name := r.names[key]; name != "" {
			return name, nil
		}
	}
	return "", nil
}
