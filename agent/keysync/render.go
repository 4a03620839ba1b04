package keysync

import (
	"cmp"
	"slices"
	"strings"

	"sallyport.dev/internal/authorizedkeys"
)

// header is how a file that is kept here begins; one that does not is somebody else's.
const header = "# Kept by sallyport-agent"

// render makes the text of a file: the emergency keys, then everybody's, in order of
// their names, each once. Keys that make no line are told of and left out.
func render(c Config, root []string, keys []authorizedkeys.Key, dropped func(error)) []byte {
	var b strings.Builder
	b.WriteString(header + ": what is changed here is lost.\n")
	for _, line := range root {
		b.WriteString(line + "\n")
	}
	b.WriteString("# IAM groups: " + strings.Join(c.Groups, " ") + "\n")
	sorted := slices.SortedFunc(slices.Values(keys), func(a, b authorizedkeys.Key) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.User), strings.ToLower(b.User)), cmp.Compare(a.ID, b.ID))
	})
	seen := map[string]bool{}
	for _, k := range sorted {
		line, err := authorizedkeys.Line(k)
		if err != nil {
			dropped(err)
			continue
		}
		if material := strings.Join(strings.Fields(line)[:2], " "); !seen[material] {
			seen[material] = true
			b.WriteString(line + "\n")
		}
	}
	return []byte(b.String())
}
