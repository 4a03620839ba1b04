package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUnchanged picks what the file can give back: not what is written to, not what was
// changed when the program was loaded, not another's.
func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00900000 r-xp 00000000 fe:00 12 /usr/bin/sallyport-agent
Size:               5120 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00900000-00e00000 r--p 00500000 fe:00 12 /usr/bin/sallyport-agent
Anonymous:             0 kB
00e00000-00f00000 r--p 00a00000 fe:00 12 /usr/bin/sallyport-agent
Anonymous:            64 kB
00f00000-01000000 rw-p 00b00000 fe:00 12 /usr/bin/sallyport-agent
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 13 /lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 ---p 00000000 fe:00 12 /usr/bin/sallyport-agent
Anonymous:             0 kB
7f0000400000-7f0000500000 r--p 00000000 00:00 0 [vvar]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x900000}, {0x900000, 0xe00000}}
	if diff := cmp.Diff(want, unchanged(strings.NewReader(smaps), "/usr/bin/sallyport-agent"), cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
	releaseProgram() // the test goes on all the same
}
