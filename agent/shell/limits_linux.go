package shell

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// limitItems are limits.conf(5)'s items that are honoured; maxlogins and maxsyslogins are
// not, as MaxSessions bounds what comes this way.
var limitItems = map[string]limitItem{
	"core":       {unix.RLIMIT_CORE, 1024},
	"data":       {unix.RLIMIT_DATA, 1024},
	"fsize":      {unix.RLIMIT_FSIZE, 1024},
	"memlock":    {unix.RLIMIT_MEMLOCK, 1024},
	"nofile":     {unix.RLIMIT_NOFILE, 1},
	"rss":        {unix.RLIMIT_RSS, 1024},
	"stack":      {unix.RLIMIT_STACK, 1024},
	"cpu":        {unix.RLIMIT_CPU, 60},
	"nproc":      {unix.RLIMIT_NPROC, 1},
	"as":         {unix.RLIMIT_AS, 1024},
	"locks":      {unix.RLIMIT_LOCKS, 1},
	"sigpending": {unix.RLIMIT_SIGPENDING, 1},
	"msgqueue":   {unix.RLIMIT_MSGQUEUE, 1},
	"nice":       {unix.RLIMIT_NICE, niceUnit},
	"rtprio":     {unix.RLIMIT_RTPRIO, 1},
}

// currentLimit is the agent's own limit.
func currentLimit(resource int) (soft, hard uint64) {
	var r syscall.Rlimit
	if syscall.Getrlimit(resource, &r) != nil {
		return unlimited, unlimited
	}
	if resource == unix.RLIMIT_NOFILE {
		// The Go runtime has raised its own; sessions get what a login usually has.
		return min(1024, r.Max), r.Max
	}
	return r.Cur, r.Max
}
