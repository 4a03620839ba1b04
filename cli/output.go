package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"sallyport.dev/client"
)

// writeJSON writes v indented to standard output.
func (p *program) writeJSON(v any) error {
	return encodeJSON(p.stdout, v, "  ")
}

// encodeJSON writes v and a line end. Characters that act on a terminal are escaped,
// which JSON itself demands of some only.
func encodeJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeInvisible(b.Bytes()))
	return err
}

// escapeInvisible spells control and formatting characters of encoded JSON as \uXXXX.
// There are some in its strings only, where that means the same.
func escapeInvisible(b []byte) []byte {
	act := func(r rune) bool {
		return r >= 0x7F && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
	}
	if !bytes.ContainsFunc(b, act) {
		return b
	}
	escaped := make([]byte, 0, len(b)+64)
	for _, r := range string(b) {
		if !act(r) {
			escaped = utf8.AppendRune(escaped, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
	}
	return escaped
}

// writeTable writes rows under a heading, columns aligned. What comes from a server
// is cleaned of control characters.
func (p *program) writeTable(rows [][]string) error {
	w := tabwriter.NewWriter(p.stdout, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = client.CleanLine(cell)
		}
		line := strings.TrimRight(strings.Join(row, "\t"), "\t")
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// tagText is "K=V K=V" in the order of keys.
func tagText(tags map[string]string, without ...string) string {
	var parts []string
	for k, v := range tags {
		if !slices.Contains(without, k) {
			parts = append(parts, k+"="+v)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// clock is a moment as tables show it: local time, to the second.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// parseTime reads a point in time: RFC 3339, a date, a date and time, or how long
// ago ("90m", "2h", "3d").
func parseTime(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		if _, err := fmt.Sscanf(days+"\n", "%d\n", &n); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("time %q: want RFC 3339, 2006-01-02 15:04, or how long ago (90m, 2h, 3d)", s)
}

// timeFlag is parseTime of a flag that may be empty.
func timeFlag(s string) (client.Time, error) {
	if s == "" {
		return client.Time{}, nil
	}
	t, err := parseTime(s, time.Now())
	return client.Time{Time: t}, err
}
