package escape

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// found is what a parser makes of output: text as it is, and everything else in < >.
func found(output string) string {
	var p Parser
	var b strings.Builder
	for _, r := range output {
		switch f := p.Next(r); f {
		case Text:
			b.WriteRune(r)
		case Control:
			fmt.Fprintf(&b, "<%02X>", r)
		case Escape, CSI:
			fmt.Fprintf(&b, "<%s>", p.sequence(f)[1:])
		case StringBegin:
			fmt.Fprintf(&b, "<%c:", p.Final)
		case StringText:
			b.WriteRune(r)
		case StringEnd:
			b.WriteString(">")
		case StringCut:
			b.WriteString(" void>")
		}
	}
	return b.String()
}

func TestParser(t *testing.T) {
	tests := []struct{ name, output, want string }{
		{"text", "zażółć ☃ 日本", "zażółć ☃ 日本"},
		{"controls", "a\r\n\x7fb", "a<0D><0A><7F>b"},
		{"escape", "\x1b7a\x1bM\x1b(0\x1b#8", "<7>a<M><(0><#8>"},
		{"colours", "\x1b[m\x1b[1;31m\x1b[38:2::1:2:3m", "<[m><[1;31m><[38:2::1:2:3m>"},
		{"private", "\x1b[?1049;7h\x1b[>1u\x1b[!p\x1b[2 q", "<[?1049;7h><[>1u><[!p><[2 q>"},
		{"left out parameters", "\x1b[;5H\x1b[0;0H", "<[;5H><[0;0H>"},
		{"title, ended by BEL", "\x1b]0;t\x07a", "<]:0;t>a"},
		{"title, ended by ST", "\x1b]0;t\x1b\\a", "<]:0;t>a"},
		{"a check mark has a byte 9C and ends nothing", "\x1b]0;✓ done\x07a", "<]:0;✓ done>a"},
		{"characters in other strings", "\x1b_Gé\x1b\\\x1bPq\x1b\\\x1b^p\x1b\\\x1bXs\x1b\\", "<_:Gé><P:q><^:p><X:s>"},
		{"controls in a string are void", "\x1b]0;a\r\n\x7fb\x07", "<]:0;ab>"},
		{"a string cut off by a sequence", "\x1b]0;t\x1b[1mb", "<]:0;t><[1m>b"},
		{"a string cancelled", "\x1b]0;t\x18b", "<]:0;t void>b"},
		{"ST alone", "\x1b\\a", "a"},
		{"C1 controls", "\u009b1m\u009d0;t\u009ca\u0085\u0090q\u009b1m\u009c", "<[1m><]:0;t>a<E><P:q1m>"},
		{"controls within a sequence", "\x1b[3\r1m", "<0D><[31m>"},
		{"a sequence cancelled", "\x1b[31\x18mb\x1b(\x1am", "mbm"},
		{"a sequence cut off by another", "\x1b[31\x1b[mb", "<[m>b"},
		{"a prefix in the middle", "\x1b[1?2ha\x1b[??2hb", "ab"},
		{"a parameter after an intermediate", "\x1b[ 1Aa", "a"},
		{"beyond ASCII within a sequence", "\x1b[1☃m\x1b☃m", "mm"},
		{"several intermediates", "\x1b(%5\x1b[! p", "<(5><[!p>"},
		{"large numbers", "\x1b[99999999999999999999999C\x1b[000000000000000000000000002J", "<[9999C><[2J>"},
		{"many parameters", "\x1b[" + strings.Repeat("1;", 1000) + "m", "<[" + strings.Repeat("1;", 31) + "1m>"},
		{"as many as there may be", "\x1b[" + strings.Repeat("1:", 31) + "2m", "<[" + strings.Repeat("1:", 31) + "2m>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := found(tt.output); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParams(t *testing.T) {
	var p Parser
	for _, r := range "\x1b[;0;7:8m" {
		p.Next(r)
	}
	got := fmt.Sprint(p.Len(), p.Param(0, 3), p.Param(1, 3), p.Param(2, 3), p.Param(3, 3), p.Param(99, 3),
		p.Given(0), p.Given(1), p.Given(4), p.Joined(2), p.Joined(3), p.Joined(99))
	if want := "4 3 3 7 8 3 false true false false true false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestColumns(t *testing.T) {
	for r, want := range map[rune]int{'a': 1, 'é': 1, '☃': 1, '日': 2, '😀': 2, '\u0301': 0, '\u200b': 0, '\u202e': 0, 'Ａ': 2, '\ue0b0': 1} {
		if got := Columns(r); got != want {
			t.Errorf("%q: got %d, want %d", r, got, want)
		}
	}
}

func TestLineDrawing(t *testing.T) {
	if got, want := strings.Map(LineDrawing, "lqk_`~A日"), "┌─┐_◆·A日"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Nothing that is read makes a parser allocate.
func TestParserAllocatesNothing(t *testing.T) {
	output := []rune("a\x1b[1;31m\x1b]0;" + strings.Repeat("t", 1000) + "\x07\x1b[" + strings.Repeat("1;", 1000) + "m")
	var p Parser
	if n := testing.AllocsPerRun(10, func() {
		for _, r := range output {
			p.Next(r)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

// FuzzParser: whatever comes, text and controls are told apart, CAN brings a parser back
// to text, and a sequence that is written anew is read as what it was.
func FuzzParser(f *testing.F) {
	for _, seed := range []string{"a\x1b[1;2:3mb", "\x1b[?25 q\x1b(0", "\x1b]0;t\x07\x1bP\x1b\\\u009b1m\u009c", "\x1b[999999999;;;:C\x7f\x18"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, output string) {
		var p Parser
		for _, r := range output {
			was := p
			switch f := p.Next(r); f {
			case Text, StringText:
				if r < ' ' || r >= 0x7f && r < 0xa0 || f == Text != was.InText() {
					t.Fatalf("%U is text", r)
				}
			case Control:
				if r >= ' ' && r != 0x7f {
					t.Fatalf("%U is a control", r)
				}
			case Escape, CSI:
				again := p.sequence(f)
				var q Parser
				last := Nothing
				for _, r := range again {
					last = q.Next(r)
				}
				if last != f || q.sequence(f) != again || q.Final != p.Final || !p.InText() {
					t.Fatalf("%q is read as another sequence", again)
				}
			}
		}
		p.Next(can)
		if !p.InText() || p.Next('a') != Text {
			t.Fatal("CAN ends no sequence")
		}
	})
}

// sequence returns the escape or control sequence that was found, written anew.
func (p *Parser) sequence(found Found) string {
	b := []byte{esc}
	if found == CSI {
		b = p.appendParams(append(b, '['))
	}
	if p.Middle != 0 {
		b = append(b, p.Middle)
	}
	return string(append(b, p.Final))
}

func (p *Parser) appendParams(b []byte) []byte {
	if p.Prefix != 0 {
		b = append(b, p.Prefix)
	}
	for i := range p.Len() {
		switch {
		case i == 0:
		case p.Joined(i):
			b = append(b, ':')
		default:
			b = append(b, ';')
		}
		if p.Given(i) {
			b = strconv.AppendInt(b, int64(p.params[i]), 10)
		}
	}
	return b
}
