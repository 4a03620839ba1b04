//go:build unix && !linux

package shell

import (
	"errors"
	"log/slog"
	"syscall"
)

// Cgroups are Linux's.
type Cgroups struct{}

// OpenCgroups says that there are no control groups on this system.
func OpenCgroups(SessionLimits, *slog.Logger) (*Cgroups, error) {
	return nil, errors.New("this system has no control groups")
}

// Close does nothing.
func (c *Cgroups) Close() {}

func (c *Cgroups) create(bool) *cgroup { return nil }

func (c *Cgroups) refused(error) {}

type cgroup struct{ kept bool }

func (g *cgroup) in(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }
func (g *cgroup) opened()                                           {}
func (g *cgroup) kill()                                             {}
func (g *cgroup) remove()                                           {}
func (g *cgroup) release()                                          {}
