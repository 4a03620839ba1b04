package member

import (
	"net/http"

	"sallyport.dev/factor"
	"sallyport.dev/signin"
	"sallyport.dev/signin/local"
	"sallyport.dev/ssoportal"
)

// Local lets people sign in with a password that is kept here.
type Local struct {
	// Enabled is true unless set: the block turns passwords on.
	Enabled *bool `hcl:"enabled,optional"`
	// RequireFactor makes everybody who signs in with a password have a second factor;
	// who has none enrols one at the next sign-in.
	RequireFactor bool `hcl:"require_factor,optional"`
}

func (l *Local) enabled() bool { return l != nil && (l.Enabled == nil || *l.Enabled) }

// newFactors keeps passwords and second factors. Without a sign_in block there are
// one-time codes for keys alone.
func (m *Member) newFactors() (*factor.Keeper, error) {
	c := factor.Config{
		Store: m.Store, People: m.Store, Sealer: m.Key, Realm: m.cfg.Realm(), Logger: m.log, Now: m.cfg.Now,
	}
	if m.cfg.SignIn != nil {
		c.URL = m.cfg.SignIn.URL
	}
	return factor.New(c)
}

// people are the pages by which people sign in, and AWS's sign-in portal.
type people struct {
	portal *ssoportal.Portal
	local  *local.Method
}

// newPeople adds to a service of sign-ins the local password, second factors and the
// programs of AWS; there is none without a service.
func (m *Member) newPeople(s *signin.Service, k *factor.Keeper) people {
	if s == nil {
		return people{}
	}
	l := m.cfg.SignIn.Local
	p := people{
		portal: ssoportal.New(ssoportal.Config{
			SignIns: s, Account: m.cfg.Account, Sealer: m.Key, Audit: m.Audit, Logger: m.log, Now: m.cfg.Now,
		}),
		local: local.New(local.Config{
			SignIns: s, Factors: k, People: m.Store, Realm: m.cfg.Realm(), Audit: m.Audit, Sealer: m.Key, Logger: m.log, Now: m.cfg.Now,
			Passwords: l.enabled(), RequireFactor: l != nil && l.RequireFactor,
		}),
	}
	if l.enabled() {
		s.Add(p.local)
	}
	s.SetStepUp(p.local.StepUpURL)
	s.SetClients(p.portal)
	return p
}

// handlers are the pages and endpoints, by patterns of http.ServeMux.
func (p people) handlers() (map[string]http.Handler, error) {
	if p.portal == nil {
		return nil, nil
	}
	return merge(p.portal.Handlers(), p.local.Handlers())
}

// setRoles says who gives roles to people of the portal.
func (p people) setRoles(r ssoportal.Roles) {
	if p.portal != nil {
		p.portal.SetRoles(r)
	}
}
