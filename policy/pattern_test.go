package policy

import (
	"strings"
	"testing"
	"time"
)

func TestStringLike(t *testing.T) {
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "A", false},
		{"*", "", true}, {"*", "a:b/c\n", true}, {"**", "x", true}, {"?", "", false}, {"?", "é", true}, {"??", "é", false},
		{"a*", "a", true}, {"*a", "ba", true}, {"*a", "ab", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false},
		{"*ab", "aab", true}, {"*?b", "b", false}, {"*??", "€", false}, {"*€?", "x€y", true},
		{"${*}", "*", true}, {"${*}", "x", false}, {"a${?}b", "a?b", true}, {"a${?}b", "axb", false}, {"${$}{x}", "${x}", true},
		{"$", "$", true}, {"a$b", "a$b", true},
		{"${aws:username}", "alice", true}, {"${AWS:UserName}", "alice", true}, {"${aws:username}", "Alice", false},
		{"${aws:missing}", "", false}, {"${aws:missing}*", "x", false}, {"${aws:missing, 'x'}", "x", true}, {"${aws:missing,''}", "", true},
		{"${aws:username, 'x'}", "x", false}, {"${aws:missing, 'a}b*'}", "a}b*", true}, {"${aws:missing, 'a}b*'}", "a}bc", false},
		{"${aws:star}", "anything", false}, {"${aws:star}", "*", true}, // a value's wildcards are plain text
		{"${aws:tags}", "a", true}, {"${aws:tags}", "b", true}, {"${aws:tags}", "c", false},
		{"${aws:tags}-${aws:tags}", "a-a", true}, {"${aws:tags}-${aws:tags}", "a-b", false}, // the same value throughout
		{"${aws:tags}-${aws:username}", "b-alice", true}, {"*${aws:tags}*", "xxbxx", true}, {"?${aws:tags}", "éb", true},
	}
	env := &environment{context: Context{"aws:username": {"alice"}, "aws:star": {"*"}, "aws:tags": {"a", "b"}}}
	for _, tt := range tests {
		p, err := compile(tt.pattern, 0, syntax{variables: true, wildcards: true})
		if err != nil {
			t.Fatalf("compile(%q): %v", tt.pattern, err)
		}
		if got := p.match(env, tt.s, 0); got != tt.want {
			t.Errorf("%q like %q: got %v, want %v", tt.s, tt.pattern, got, tt.want)
		}
	}
}

func TestARNLike(t *testing.T) {
	const instance = "arn:aws:ec2:us-east-1:111111111111:instance/i-1"
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"*", "*", true}, {"*", "no arn", true}, {"arn:*", "*", false},
		{instance, instance, true}, {"arn:aws:ec2:*:*:instance/*", instance, true}, {"arn:aws:ec2:*:*:*", instance, true},
		{"arn:aws:ec2:*", instance, true}, {"arn:aws:e*", instance, true}, {"arn:*", instance, true}, // ends early in *
		{"arn:aws:ec2:::instance/*", instance, false}, {"arn:aws:ec2:*:111111111111:instance/i-?", instance, true},
		{"arn:*:instance/*:*:*:*", instance, false},
		{"arn:aws:*instance/*:*:*:x", instance, false},
		{"arn:aws:ec2:us*:instance/i-1:*:*", instance, false}, // a wildcard stays in its segment
		{"arn:*:*:*:*:instance/I-1", instance, false},
		{"arn:aws:ssm:*:*:session/*", "arn:aws:ssm:r:a:session/AROA:alice-1", true}, // colons in the last segment are text
		{"arn:aws:ssm:*:*:session/${aws:userid}-*", "arn:aws:ssm:r:a:session/AROA:alice-1", true},
		{"arn:aws:ssm:*:*:session/${aws:userid}-*", "arn:aws:ssm:r:a:session/AROA:bob-1", false},
		{"arn:aws:ssm:*::document/AWS-*", "arn:aws:ssm:r::document/AWS-StartSSHSession", true},
		{"arn:aws:ssm:*::document/AWS-*", "arn:aws:ssm:r:1:document/AWS-StartSSHSession", false},
		{"arn:aws:ssm:${aws:team}:*:document/x", "arn:aws:ssm:r:1:document/x", true},
		// A value with colons would move the text after it into other segments.
		{"arn:aws:ssm:${aws:inject}:${aws:rest}:document/x", "arn:aws:ssm:r:1:document/y:document/x", false},
		{"arn:aws:ssm:${aws:injects}:${aws:rest}:document/x", "arn:aws:ssm:r:1:document/y:document/x", false},
		{"arn:aws:ssm:*:*:document/${aws:slash}", "arn:aws:ssm:r:1:document/a/b", true},
	}
	env := &environment{context: Context{
		"aws:userid": {"AROA:alice"}, "aws:team": {"r"}, "aws:inject": {"r:1"}, "aws:injects": {"r:1", "r:1"}, "aws:rest": {"document/y"}, "aws:slash": {"a/b"},
	}}
	for _, tt := range tests {
		p, err := compileARN(tt.pattern, 0, true, false)
		if err != nil {
			t.Fatalf("compileARN(%q): %v", tt.pattern, err)
		}
		if got := p.match(env, tt.s, arnHead(tt.s)); got != tt.want {
			t.Errorf("%q like %q: got %v, want %v", tt.s, tt.pattern, got, tt.want)
		}
	}
}

// TestWildcardBlowUp: a pattern with many stars against a text that fails late, with
// and without variables of many values, takes polynomial time.
func TestWildcardBlowUp(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, strings.Repeat("a", i%7+1))
	}
	contexts := map[string]Context{"no variable": {}, "one value": {"a:v": {"a"}, "a:w": {"a"}}, "many values": {"a:v": many, "a:w": many}}
	subject := strings.Repeat("a", 4000) + "b"
	for name, ctx := range contexts {
		for _, unit := range []string{"*a", "*?", "?*a*"} {
			text := strings.Repeat(unit, 60) + "c"
			if len(ctx) > 0 {
				text = "*${a:v}*${a:w}" + text
			}
			p, err := compile(text, 0, syntax{variables: true, wildcards: true})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if p.match(&environment{context: ctx}, subject, 0) {
				t.Errorf("%s: %q matched", name, text)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s, %s: took %v", name, unit, took)
			}
		}
	}
}

// FuzzMatch holds the two ways of matching against each other: going back to the
// last star, and following all ways at once.
func FuzzMatch(f *testing.F) {
	f.Add("a*b?${a:v}*", "axbyalicez", 3)
	f.Add("arn:*:x:*:*:i/*", "arn:aws:x:r:a:i/1:2", 14)
	f.Fuzz(func(t *testing.T, text, s string, head int) {
		p, err := compile(text, 0, syntax{variables: true, wildcards: true})
		if err != nil || head < 0 || head > len(s) || len(s) > 200 || strings.ToValidUTF8(text+s, "") != text+s {
			return
		}
		env := &environment{context: Context{"a:v": {"alice"}, "a:w": {"*"}}}
		if got, want := p.match(env, s, head), p.isText && p.plain == s || !p.isText && p.matchEach(env, s, head) || p.all; got != want {
			t.Errorf("%q like %q (head %d): glob %v, reach %v", s, text, head, got, want)
		}
	})
}
