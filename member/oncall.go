package member

import (
	"fmt"
	"net/url"
	"os"
	"slices"

	"sallyport.dev/oncall"
)

// OnCall is the block on_call "SOURCE": how a source of on-call schedules is asked. Which
// schedules there are the flow files say (docs/approval-documents.md).
type OnCall struct {
	// Source is pagerduty, opsgenie or ical.
	Source string `hcl:"source,label"`
	// TokenFile holds the token of the service's API.
	TokenFile string `hcl:"token_file,optional"`
	// URL is that of the service's API where it is not the usual one:
	// https://api.eu.pagerduty.com, https://api.eu.opsgenie.com.
	URL string `hcl:"url,optional"`
	// Dir is the folder of calendars that schedules may name as files.
	Dir string `hcl:"dir,optional"`
	// Hosts are those of calendar URLs that may have private addresses.
	Hosts []string `hcl:"hosts,optional"`
	// EmailTag is the tag of users that holds their e-mail addresses; Email by default.
	EmailTag string `hcl:"email_tag,optional"`
	// People are users by what the source calls them.
	People map[string]string `hcl:"people,optional"`
}

func (o OnCall) people() oncall.People { return oncall.People{EmailTag: o.EmailTag, Names: o.People} }

// checkOnCall names what is wrong with the blocks.
func checkOnCall(blocks []OnCall) error {
	var seen []string
	for _, o := range blocks {
		if slices.Contains(seen, o.Source) {
			return fmt.Errorf("on_call %q: is given twice", o.Source)
		}
		seen = append(seen, o.Source)
		if err := o.check(); err != nil {
			return fmt.Errorf("on_call %q: %w", o.Source, err)
		}
	}
	return nil
}

func (o OnCall) check() error {
	switch o.Source {
	case oncall.PagerDuty, oncall.Opsgenie:
		return o.checkService()
	case oncall.Calendar:
		return o.checkCalendars()
	}
	return fmt.Errorf("want %s, %s or %s", oncall.PagerDuty, oncall.Opsgenie, oncall.Calendar)
}

func (o OnCall) checkService() error {
	if o.Dir != "" || len(o.Hosts) > 0 {
		return fmt.Errorf("dir and hosts are for %s", oncall.Calendar)
	}
	if o.TokenFile == "" {
		return fmt.Errorf("token_file: missing")
	}
	if o.URL == "" {
		return nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("url: %q is not https://HOST", o.URL)
	}
	// The token would be read on the way.
	if u.Scheme == "http" && loopbackOnly(u.Host) != nil {
		return fmt.Errorf("url: %q is plain HTTP, which is for this machine only", o.URL)
	}
	return nil
}

func (o OnCall) checkCalendars() error {
	if o.TokenFile != "" || o.URL != "" {
		return fmt.Errorf("token_file and url are for services; schedules have the URLs of calendars")
	}
	if o.Dir == "" {
		return nil
	}
	if info, err := os.Stat(o.Dir); err != nil {
		return fmt.Errorf("dir: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("dir: %q is no folder", o.Dir)
	}
	return nil
}

// onCall returns what asks the sources of the configuration.
func (m *Member) onCall() *oncall.Sources {
	c := oncall.Config{Directory: m.Store, Now: m.cfg.Now}
	for _, o := range m.cfg.OnCall {
		switch o.Source {
		case oncall.PagerDuty:
			c.PagerDuty = &oncall.Service{URL: o.URL, TokenFile: o.TokenFile, People: o.people()}
		case oncall.Opsgenie:
			c.Opsgenie = &oncall.Service{URL: o.URL, TokenFile: o.TokenFile, People: o.people()}
		case oncall.Calendar:
			c.Calendars = &oncall.Calendars{Dir: o.Dir, Hosts: o.Hosts, People: o.people()}
		}
	}
	return oncall.New(c)
}
