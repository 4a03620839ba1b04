package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sallyport.dev/client"
)

// maxSettings bounds the settings file, in bytes.
const maxSettings = 256 << 10

// settingsVariable names another settings file than the user's own.
const settingsVariable = "SALLYPORT_CONFIG"

// settings are what a person, or an organisation for its people, sets for the command
// line: ~/.config/sallyport/config.hcl, or the file that SALLYPORT_CONFIG names.
type settings struct {
	Menu *menuSettings `hcl:"menu,block"`
	Tags []tagRule     `hcl:"tag,block"`
}

// menuSettings are the tags by which "sallyport menu" drills down, in order.
type menuSettings struct {
	Dimensions []dimension `hcl:"dimension,block"`
}

// dimension is one step of the menu: a tag key, in the organisation's own words.
type dimension struct {
	Key string `hcl:"key,label"`
	// Title is what the step is called; the key unless given.
	Title string `hcl:"title,optional"`
	// Missing is what nodes without the tag are found under; "no TITLE" unless given.
	Missing string `hcl:"missing,optional"`
	// Order are values that come first, in this order; others follow by the alphabet.
	Order []string `hcl:"order,optional"`
}

// tagRule is what a node's tag must be like, which "sallyport doctor" checks.
type tagRule struct {
	Key      string   `hcl:"key,label"`
	Required bool     `hcl:"required,optional"`
	Values   []string `hcl:"values,optional"`  // allowed; any unless given
	Pattern  string   `hcl:"pattern,optional"` // a regular expression for the whole value

	pattern *regexp.Regexp
}

// defaultDimensions are those of the menu when nothing is configured. A dimension that
// no node bears is left out of the menu.
var defaultDimensions = []dimension{{Key: "Platform"}, {Key: "Environment"}}

// dimensions returns what the menu drills down by.
func (s *settings) dimensions() []dimension {
	if s.Menu == nil {
		return defaultDimensions
	}
	return s.Menu.Dimensions
}

// adopt takes what the server says of what is not set here. A pattern that is none is
// the server's mistake, and is left out.
func (s *settings) adopt(told *client.GetStatusOutput) {
	if s.Menu == nil && len(told.Menu) > 0 {
		s.Menu = &menuSettings{}
		for _, d := range told.Menu {
			s.Menu.Dimensions = append(s.Menu.Dimensions, dimension(d))
		}
	}
	if s.Tags != nil {
		return
	}
	for _, r := range told.TagRules {
		rule := tagRule{Key: r.Key, Required: r.Required, Values: r.Values, Pattern: r.Pattern}
		if pattern, err := regexp.Compile("^(?:" + r.Pattern + ")$"); r.Pattern != "" && err == nil {
			rule.pattern = pattern
		}
		s.Tags = append(s.Tags, rule)
	}
}

func (d dimension) title() string {
	if d.Title != "" {
		return d.Title
	}
	return d.Key
}

func (d dimension) missing() string {
	if d.Missing != "" {
		return d.Missing
	}
	return "no " + d.title()
}

// settingsFile is where the settings are.
func (p *program) settingsFile() (string, error) {
	if file := p.getenv(settingsVariable); file != "" {
		return file, nil
	}
	dir := p.getenv("XDG_CONFIG_HOME")
	if dir == "" || !filepath.IsAbs(dir) {
		var err error
		if dir, err = os.UserConfigDir(); err != nil {
			return "", fmt.Errorf("finding the settings: %w", err)
		}
	}
	return filepath.Join(dir, "sallyport", "config.hcl"), nil
}

// settings reads the settings; a file that is not there is an empty one, unless it was
// asked for by name.
func (p *program) settings() (*settings, error) {
	file, err := p.settingsFile()
	if err != nil {
		return nil, err
	}
	text, err := readSmall(file, maxSettings)
	if errors.Is(err, os.ErrNotExist) && p.getenv(settingsVariable) == "" {
		return &settings{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the settings: %w", err)
	}
	return parseSettings(file, text)
}

func parseSettings(file string, text []byte) (*settings, error) {
	f, diags := hclsyntax.ParseConfig(text, file, hcl.InitialPos)
	s := &settings{}
	if !diags.HasErrors() {
		diags = gohcl.DecodeBody(f.Body, nil, s)
	}
	if diags.HasErrors() {
		return nil, fmt.Errorf("reading the settings: %s", client.Clean(diags[0].Error()))
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("reading the settings: %s: %w", file, err)
	}
	return s, nil
}

// check names what makes no sense.
func (s *settings) check() error {
	if s.Menu != nil {
		var keys []string
		for _, d := range s.Menu.Dimensions {
			if d.Key == "" || slices.Contains(keys, d.Key) {
				return fmt.Errorf("menu: dimension %q: want a tag key, each once", d.Key)
			}
			keys = append(keys, d.Key)
		}
	}
	for i, r := range s.Tags {
		if r.Key == "" {
			return errors.New("tag \"\": want a tag key")
		}
		if r.Pattern == "" {
			continue
		}
		pattern, err := regexp.Compile("^(?:" + r.Pattern + ")$")
		if err != nil {
			return fmt.Errorf("tag %q: pattern: %w", r.Key, err)
		}
		s.Tags[i].pattern = pattern
	}
	return nil
}

// broken tells what is wrong with tags by the rule, empty if nothing is.
func (r tagRule) broken(tags map[string]string) string {
	text, ok := tags[r.Key]
	switch {
	case !ok && r.Required:
		return "no tag " + r.Key
	case !ok:
		return ""
	}
	for _, v := range tagValues(text) {
		if len(r.Values) > 0 && !slices.Contains(r.Values, v) {
			return fmt.Sprintf("%s=%s: allowed are %s", r.Key, v, strings.Join(r.Values, ", "))
		}
		if r.pattern != nil && !r.pattern.MatchString(v) {
			return fmt.Sprintf("%s=%s: want %s", r.Key, v, r.Pattern)
		}
	}
	return ""
}

// tagValues are the values of a tag, which may hold several.
func tagValues(text string) []string {
	var values []string
	for v := range strings.SplitSeq(text, ",") {
		values = append(values, strings.TrimSpace(v))
	}
	return values
}

// readSmall reads a file of at most limit bytes.
func readSmall(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", file, limit)
	}
	return text, err
}
