//go:build unix && !linux

package shell

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// limitItems are limits.conf(5)'s items, where somebody wrote such a file.
var limitItems = map[string]limitItem{
	"core":    {unix.RLIMIT_CORE, 1024},
	"data":    {unix.RLIMIT_DATA, 1024},
	"fsize":   {unix.RLIMIT_FSIZE, 1024},
	"memlock": {unix.RLIMIT_MEMLOCK, 1024},
	"nofile":  {unix.RLIMIT_NOFILE, 1},
	"stack":   {unix.RLIMIT_STACK, 1024},
	"cpu":     {unix.RLIMIT_CPU, 60},
	"nproc":   {unix.RLIMIT_NPROC, 1},
}

// currentLimit is the agent's own limit.
func currentLimit(resource int) (soft, hard uint64) {
	var r syscall.Rlimit
	if syscall.Getrlimit(resource, &r) != nil {
		return unlimited, unlimited
	}
	return r.Cur, r.Max
}
