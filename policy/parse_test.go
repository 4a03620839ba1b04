package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// statementWith is a valid policy with a place for one more element.
func statementWith(element string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*",` + element + `}]}`
}

func conditionWith(op, key, value string) string {
	return statementWith(fmt.Sprintf(`"Condition":{%q:{%q:%s}}`, op, key, value))
}

func TestParse(t *testing.T) {
	doc := mustParse(t, `{
  "Version": "2012-10-17",
  "Id": "example",
  "Statement": [
    {"Sid": "A1", "Effect": "Allow", "Action": "ssm:*", "Resource": ["*"]},
    {"Effect": "Deny", "NotAction": ["ec2:*", "*"], "NotResource": "arn:aws:ssm:*",
     "Condition": {"Bool": {"aws:SecureTransport": false}, "NumericLessThan": {"x:y": [1, 2.5e3]}}}
  ]
}`)
	type got struct {
		Sid, Effect string
		Start, End  Position
	}
	var statements []got
	for i := range doc.Statements {
		s := &doc.Statements[i]
		statements = append(statements, got{s.Sid, s.Effect(), s.Start, s.End})
	}
	want := []got{
		{"A1", "Allow", Position{5, 5}, Position{5, 75}},
		{"", "Deny", Position{6, 5}, Position{7, 100}},
	}
	if diff := cmp.Diff(want, statements); diff != "" || doc.Id != "example" {
		t.Errorf("Id %q, statements (-want +got):\n%s", doc.Id, diff)
	}
}

func TestParseSingleStatement(t *testing.T) {
	doc := mustParse(t, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	if doc.Version != "2008-10-17" || len(doc.Statements) != 1 {
		t.Errorf("got version %s and %d statements, want 2008-10-17 and 1", doc.Version, len(doc.Statements))
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name string
		text string // § marks the place that the error names
		want string // part of the message
	}{
		{"missing comma", "{\n  \"Version\": \"2012-10-17\"§\n  \"Statement\": []\n}", `missing comma before "Statement" (line 3, column 3)`},
		{"missing comma in a list", `{"Statement":[{"Effect":"Allow","Action":["a:b"§ "c:d"],"Resource":"*"}]}`, `missing comma before "c:d"`},
		{"comma too many", `{"Version":"2012-10-17",§}`, "comma before the closing '}'"},
		{"missing colon", `{"Version" §"2012-10-17"}`, `missing colon after "Version"`},
		{"comment", "{ §// hello\n}", "JSON has no comments"},
		{"curly quotes", `{§“Version”:1}`, "straight double quotes"},
		{"single quotes", `{§'Version':1}`, "double quotes"},
		{"empty", "§", "the policy is empty"},
		{"byte order mark", "§\ufeff{}", "byte order mark"},
		{"two policies", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]} §{}`, "after the end of the policy"},
		{"unclosed", `{"Statement":[§`, "expected a value, found end of text"},
		{"unclosed string", `{"Version":§"2012`, "not closed"},
		{"not an object", `§[]`, "a policy must be an object, not an array"},
		{"no statement", `§{"Version":"2012-10-17"}`, "missing element Statement"},
		{"empty statement", `{"Statement":§[]}`, "at least one statement"},
		{"bad version", `{"Version":§"2026-01-01","Statement":[]}`, `unknown Version "2026-01-01"; allowed are 2012-10-17 and 2008-10-17`},
		{"unknown element", "{\"Statement\":[{\n\"Effect\":\"Allow\",\n §\"Actions\":\"*\",\"Resource\":\"*\"}]}", `statement 1: unknown element "Actions"; did you mean "Action"?`},
		{"element in another case", `{§"statement":[]}`, `did you mean "Statement"?`},
		{"far-off element", statementWith(`§"Quux":1`), `unknown element "Quux"; allowed are Sid, Effect,`},
		{"missing effect", `{"Statement":[§{"Action":"*","Resource":"*"}]}`, "missing element Effect (Allow or Deny)"},
		{"effect in lower case", `{"Statement":[{"Effect":§"allow","Action":"*","Resource":"*"}]}`, `must be "Allow" or "Deny"`},
		{"both action and not", statementWith(`"NotAction":§"a:b"`), "both Action and NotAction"},
		{"no action", `{"Statement":[§{"Effect":"Allow","Resource":"*"}]}`, "missing element Action or NotAction"},
		{"no resource", `{"Statement":[§{"Effect":"Allow","Action":"*"}]}`, "missing element Resource or NotResource"},
		{"action of a wrong type", `{"Statement":[{"Effect":"Allow","Action":§7,"Resource":"*"}]}`, "Action must be a string or an array of strings, not a number"},
		{"empty list", `{"Statement":[{"Effect":"Allow","Action":§[],"Resource":"*"}]}`, "Action is empty"},
		{"action without service", `{"Statement":[{"Effect":"Allow","Action":§"StartSession","Resource":"*"}]}`, "not of the form service:Operation"},
		{"resource that is no ARN", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":§"i-123"}]}`, `"i-123" is not an ARN`},
		{"resource that ends early", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":§"arn:aws:ec2"}]}`, "is not an ARN"},
		{"principal", statementWith(`§"Principal":"*"`), "trust policy only"},
		{"sid", statementWith(`"Sid":§"a b"`), "letters A-Z, a-z and digits"},
		{"sid twice", `{"Statement":[{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":§"a","Effect":"Allow","Action":"*","Resource":"*"}]}`, "used twice"},
		{"unknown operator", statementWith(`"Condition":{§"StringEqual":{"aws:username":` + `"x"` + `}}`), `unknown condition operator "StringEqual"; did you mean "StringEquals"?`},
		{"unknown modifier", statementWith(`"Condition":{§"ForEachValue:StringEquals":{"aws:username":` + `"x"` + `}}`), "ForAllValues: or ForAnyValue: before"},
		{"null with IfExists", statementWith(`"Condition":{§"NullIfExists":{"aws:username":` + `"true"` + `}}`), "unknown condition operator"},
		{"number", conditionWith("NumericEquals", "aws:MultiFactorAuthAge", `§"0x10"`), `NumericEquals "aws:MultiFactorAuthAge": "0x10" is not a number`},
		{"infinity", conditionWith("NumericEquals", "a:b", `§"inf"`), "is not a number"},
		{"date", conditionWith("DateLessThan", "aws:CurrentTime", `§"tomorrow"`), "is not a date"},
		{"bool", conditionWith("Bool", "a:b", `§"yes"`), "neither true nor false"},
		{"CIDR", conditionWith("IpAddress", "aws:SourceIp", `["10.0.0.0/8",§"10.0.0.0/33"]`), `"10.0.0.0/33" is neither an IP address nor a CIDR block`},
		{"ARN operand", conditionWith("ArnLike", "aws:PrincipalArn", `§"alice"`), "is not an ARN"},
		{"base64", conditionWith("BinaryEquals", "a:b", `§"!"`), "is not base64"},
		{"variable in a number", conditionWith("NumericEquals", "a:b", `§"${aws:EpochTime}"`), "variables work with the String and Arn operators only"},
		{"operand of a wrong type", conditionWith("StringEquals", "a:b", `[§null]`), "not null"},
		{"no operand", conditionWith("StringEquals", "a:b", `§[]`), "has no value"},
		{"condition key without service", statementWith(`"Condition":{"StringEquals":{§"resourceTag/name":` + `"x"` + `}}`), "not of the form service:Name"},
		{"condition key without tag", statementWith(`"Condition":{"StringEquals":{§"ssm:resourceTag/":` + `"x"` + `}}`), "not of the form"},
		{"unclosed variable", conditionWith("StringEquals", "a:b", `§"${aws:username"`), "not closed with }"},
		{"default without quotes", conditionWith("StringEquals", "a:b", `§"${aws:username, x}"`), "single quotes"},
		{"empty variable", conditionWith("StringEquals", "a:b", `§"${}"`), "not of the form"},
		{"column counts characters", `{"Id":"äöü",§"X":1}`, `unknown element "X"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, after, _ := strings.Cut(tt.text, "§")
			line := 1 + strings.Count(before, "\n")
			column := 1 + utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])
			doc, err := Parse([]byte(before + after))
			var pe *ParseError
			if doc != nil || !errors.As(err, &pe) {
				t.Fatalf("got %v, %v, want a ParseError", doc, err)
			}
			if pe.Line != line || pe.Column != column || !strings.Contains(pe.Message, tt.want) {
				t.Errorf("got %v, want line %d, column %d: …%s…", pe, line, column, tt.want)
			}
		})
	}
}

// TestParseSmuggling: texts in which two readers could see two policies, or a
// reader something that is not there.
func TestParseSmuggling(t *testing.T) {
	valid := `"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"`
	tests := []struct{ name, text, want string }{
		{"duplicate element", `{"Statement":[{"Effect":"Deny",` + valid + `}]}`, `duplicate element "Effect"`},
		{"duplicate behind an escape", `{"Statement":[{"\u0045ffect":"Deny",` + valid + `}]}`, `duplicate element "Effect"`},
		{"duplicate statement", `{"Statement":[{` + valid + `}],"Statement":[{` + valid + `}]}`, "duplicate element"},
		{"duplicate condition key", conditionWith("StringEquals", "a:b", `"x","a:b":"y"`), "duplicate element"},
		{"duplicate operator", statementWith(`"Condition":{"Bool":{"a:b":"true"},"Bool":{"a:b":"false"}}`), "duplicate element"},
		{"NUL in a resource", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:a:b:c\u0000*"}]}`, "control character U+0000"},
		{"raw NUL", "{\"Id\":\"\x00\",\"Statement\":[]}", "control character U+0000"},
		{"NUL after the policy", `{"Statement":[{` + valid + "}]}\x00", "after the end of the policy"},
		{"newline in a key", conditionWith("StringEquals", "aws:user\nname", `"x"`), "control character"},
		{"invalid UTF-8", "{\"Id\":\"\xff\",\"Statement\":[]}", "not valid UTF-8"},
		{"overlong UTF-8", "{\"Id\":\"\xc0\xaf\",\"Statement\":[]}", "not valid UTF-8"},
		{"lone surrogate", `{"Id":"\ud800","Statement":[]}`, "malformed \\u escape"},
		{"Cyrillic letter in a key", conditionWith("StringEquals", "\u0430ws:username", `"x"`), "U+0430"},
		{"long s in a key", conditionWith("StringEquals", "aws:\u017fourceIp", `"x"`), "U+017F"},
		{"long s in an action", `{"Statement":[{"Effect":"Deny","Action":"\u017fsm:StartSession","Resource":"*"}]}`, "U+017F"},
		{"Kelvin sign in a variable", conditionWith("StringEquals", "a:b", "\"${aws:to\u212aen}\""), "U+212A"},
		{"variable in an action", `{"Statement":[{"Effect":"Allow","Action":"ssm:${aws:username}","Resource":"*"}]}`, `'$'`},
		{"variable as a whole resource", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"${aws:username}"}]}`, "is not an ARN"},
		{"nesting", strings.Repeat(`{"a":`, 100000), "policy is longer"},
		{"nesting within the size", strings.Repeat(`[`, 20000), "nested more than 16"},
		{"size", `{"Id":"` + strings.Repeat("x", MaxSize) + `"}`, "longer than 131072 bytes"},
		{"many variables", conditionWith("StringEquals", "a:b", `"`+strings.Repeat("${aws:username}", 33)+`"`), "more than 32 variables"},
		{"many repeated variables", conditionWith("StringEquals", "a:b", `"`+strings.Repeat("${a:a}${a:b}${a:c}", 2)+`"`), "occur repeatedly"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range readCases(f)[:20] {
		for _, p := range c.Policies {
			f.Add([]byte(p.Policy))
		}
	}
	f.Add([]byte(trustPolicy))
	f.Add([]byte(`{"Statement":{"Effect":"Deny","NotAction":"*","NotResource":"arn:aws:s3:*","Condition":{"ForAnyValue:ArnLikeIfExists":{"a:b":["${c:d, 'e'}"]}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		req := &Request{Action: "ssm:StartSession", Resource: "arn:aws:ec2:r:a:instance/i", Context: Context{"a:b": {"x", "y"}, "c:D": {"", "é"}}}
		for _, parse := range []func([]byte) (*Document, error){Parse, ParseTrust} {
			doc, err := parse(b)
			if err != nil {
				var pe *ParseError
				if !errors.As(err, &pe) || pe.Line < 1 || pe.Column < 1 || pe.Message == "" {
					t.Fatalf("error %#v has no place", err)
				}
				continue
			}
			sources := []Source{{Document: doc}}
			if got, want := NewSet(sources).Evaluate(req), Explain(sources, req); got.Effect != want.Effect {
				t.Fatalf("Evaluate: got %v, Explain: %v", got.Effect, want.Effect)
			}
			EvaluateTrust(doc, "arn:aws:iam::111111111111:user/a", "111111111111", "sts:AssumeRole", req.Context)
		}
		Lint("fuzz", b, LintOptions{NodeTagKeys: []string{"Team"}})
	})
}
