package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// releaseProgram gives back the pages of the program itself that starting has mapped: the
// kernel maps sixteen for each one touched, most of which an idle agent never needs
// again. What it does need comes back from the page cache.
func releaseProgram() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range unchanged(f, self) {
		unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED) // advice: nothing is lost without
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unchanged lists the mappings of a file that cannot be written to and hold no page of
// their own: those are exactly the file's, while others (relocated when the program was
// loaded, for instance) would lose what is not in it.
func unchanged(smaps io.Reader, file string) []mapping {
	var all []mapping
	var m mapping
	candidate := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		line := s.Text()
		if anonymous, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			if candidate && strings.TrimSpace(anonymous) == "0 kB" {
				all = append(all, m)
			}
			candidate = false
			continue
		}
		var perms string
		if n, err := fmt.Sscanf(line, "%x-%x %s", &m.from, &m.to, &perms); n == 3 && err == nil {
			candidate = perms[0] == 'r' && !strings.Contains(perms, "w") && strings.HasSuffix(line, " "+file)
		}
	}
	return all
}
