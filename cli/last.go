package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sallyport.dev/client"
)

// maxState bounds the state file, in bytes, and maxRemembered what is in it.
const (
	maxState      = 64 << 10
	maxRemembered = 50
)

// choice is the node that was connected to last, and where in the menu it was found.
type choice struct {
	NodeID string   `json:"node"`
	Name   string   `json:"name,omitempty"`
	Path   []string `json:"path,omitempty"` // values of the menu's dimensions
}

// state is the file of what is remembered: the last choice for each deployment.
type state struct {
	Last map[string]choice `json:"last"`
}

// stateFile is where choices are remembered.
func (p *program) stateFile() (string, error) {
	dir := p.getenv("XDG_STATE_HOME")
	if dir == "" || !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "sallyport", "last.json"), nil
}

// place names the deployment and the person of this run: what was chosen elsewhere, or
// as somebody else, is no help here.
func (p *program) place() string {
	profile := p.flags.profile
	if profile == "" {
		profile = p.getenv("AWS_PROFILE")
	}
	region := p.flags.region
	if p.connected != nil {
		region = p.connected.Region()
	}
	return p.endpoint() + " " + region + " " + profile
}

// last returns what was chosen last here; ok is false if nothing was.
func (p *program) last() (c choice, ok bool) {
	s, err := p.readState()
	if err != nil {
		p.logger().Debug("reading the last choice", "error", err)
		return c, false
	}
	c, ok = s.Last[p.place()]
	return c, ok && nodeID.MatchString(c.NodeID)
}

// readState reads the file, which must be a plain one: a link might lead anywhere, and a
// pipe would wait forever.
func (p *program) readState() (state, error) {
	var s state
	file, err := p.stateFile()
	if err != nil {
		return s, err
	}
	info, err := os.Lstat(file)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if !info.Mode().IsRegular() {
		return s, fmt.Errorf("%s is no plain file", file)
	}
	text, err := readSmall(file, maxState)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// remember notes a choice. That it cannot is no reason not to connect.
func (p *program) remember(n client.Node, path []string) {
	if err := p.writeChoice(choice{NodeID: n.NodeID, Name: n.Name, Path: path}); err != nil {
		p.logger().Debug("remembering the choice", "error", err)
	}
}

func (p *program) writeChoice(c choice) error {
	s, err := p.readState()
	if err != nil || s.Last == nil || len(s.Last) > maxRemembered {
		s = state{Last: map[string]choice{}}
	}
	if old := s.Last[p.place()]; old.NodeID == c.NodeID && c.Path == nil {
		return nil
	}
	s.Last[p.place()] = c
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := p.stateFile()
	if err != nil {
		return err
	}
	return replacePrivate(file, text)
}

// replacePrivate puts text where file is, for its owner alone. A link or a pipe there is
// replaced, never followed.
func replacePrivate(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if info, err := os.Lstat(file); err == nil && !info.Mode().IsRegular() {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	_, err := replaceFile(file, text, 0o600)
	return err
}
