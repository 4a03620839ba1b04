package wire

import (
	"cmp"
	"strconv"
	"strings"
)

// CompareVersions compares two dotted versions part by part; missing parts are 0. A
// version that is none is below every other.
func CompareVersions(v, w string) int {
	vs, ws := strings.Split(v, "."), strings.Split(w, ".")
	for i := range max(len(vs), len(ws)) {
		if c := cmp.Compare(versionPart(vs, i), versionPart(ws, i)); c != 0 {
			return c
		}
	}
	return 0
}

func versionPart(parts []string, i int) int {
	if i >= len(parts) {
		return 0
	}
	n, err := strconv.ParseUint(parts[i], 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}
