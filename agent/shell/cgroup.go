package shell

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// SessionLimits bound what all programs of one session may use together. Zero fields
// have no bound. They need control groups of version 2 (OpenCgroups).
type SessionLimits struct {
	MemoryMax int64 // bytes; beyond them the kernel ends programs of the session
	PidsMax   int   // processes and threads
	CPUMax    int   // per cent of one processor
}

// ParseLimits reads the limits of a configuration: bytes with K, M, G or T (of 1024) or
// none, a number of processes, and per cent with or without the sign. Errors name the
// key.
func ParseLimits(memory string, pids int, cpu string) (SessionLimits, error) {
	l := SessionLimits{PidsMax: pids}
	if pids != 0 && pids < minPids {
		return l, fmt.Errorf("pids_max: %d is less than %d, with which no session starts", pids, minPids)
	}
	var err error
	if l.MemoryMax, err = parseBytes(memory); err != nil {
		return l, fmt.Errorf("memory_max: %w", err)
	}
	if cpu != "" {
		l.CPUMax, err = strconv.Atoi(strings.TrimSuffix(cpu, "%"))
		if err != nil || l.CPUMax < 1 || l.CPUMax > 1e6 {
			return l, fmt.Errorf("cpu_max: %q is not a percentage like 150%%", cpu)
		}
	}
	return l, nil
}

// The least that a session is given: with less none starts.
const (
	minMemory = 16 << 20
	minPids   = 20
)

func parseBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits, unit := s, int64(1)
	if i := strings.IndexByte("KMGT", s[len(s)-1]); i >= 0 {
		digits, unit = s[:len(s)-1], 1<<(10*(i+1))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62/unit || n*unit < minMemory {
		return 0, fmt.Errorf("%q is not a size of at least 16M, like 512M or 2G", s)
	}
	return n * unit, nil
}

// files are the control files of the limits and what to write into them.
func (l SessionLimits) files() map[string]string {
	files := make(map[string]string)
	if l.MemoryMax > 0 {
		files["memory.max"] = strconv.FormatInt(l.MemoryMax, 10)
		files["memory.swap.max"] = "0"
	}
	if l.PidsMax > 0 {
		files["pids.max"] = strconv.Itoa(l.PidsMax)
	}
	if l.CPUMax > 0 {
		files["cpu.max"] = fmt.Sprintf("%d 100000", l.CPUMax*1000)
	}
	return files
}

// controllers are what the limits need of the kernel.
func (l SessionLimits) controllers() []string {
	var names []string
	for name := range l.files() {
		name, _, _ = strings.Cut(name, ".")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
