package policy

import (
	"fmt"
	"testing"
)

// evaluateOne parses a policy that allows everything under one condition and
// reports whether the condition holds.
func evaluateOne(t *testing.T, op, key, operands string, ctx Context) bool {
	t.Helper()
	doc := mustParse(t, fmt.Sprintf(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{%q:{%q:%s}}}}`, op, key, operands))
	return NewSet([]Source{{Document: doc}}).Evaluate(&Request{Action: "ssm:StartSession", Resource: "*", Context: ctx}).Allowed()
}

func TestConditions(t *testing.T) {
	type values = []string
	tests := []struct {
		op, operands string
		request      values // nil: the key is absent
		want         bool
	}{
		{"StringEquals", `"a"`, values{"a"}, true}, {"StringEquals", `"a"`, values{"A"}, false}, {"StringEquals", `["b","a"]`, values{"a"}, true},
		{"StringEquals", `"*"`, values{"a"}, false}, {"StringEquals", `"a"`, nil, false}, {"StringEquals", `""`, values{""}, true}, {"StringEquals", `""`, nil, false},
		{"stringequals", `"a"`, values{"a"}, true}, {"StringEquals", `1`, values{"1"}, true}, {"StringEquals", `true`, values{"true"}, true},
		{"StringEqualsIgnoreCase", `"ÄB"`, values{"äb"}, true}, {"StringNotEqualsIgnoreCase", `"A"`, values{"a"}, false},
		{"StringNotEquals", `"a"`, values{"b"}, true}, {"StringNotEquals", `["b","a"]`, values{"a"}, false}, {"StringNotEquals", `"a"`, nil, true},
		{"StringLike", `"a*"`, values{"abc"}, true}, {"StringLike", `"A*"`, values{"abc"}, false}, {"StringNotLike", `"a*"`, values{"abc"}, false},

		// IfExists holds where the key is absent.
		{"StringEqualsIfExists", `"a"`, nil, true}, {"StringEqualsIfExists", `"a"`, values{"b"}, false}, {"StringNotEqualsIfExists", `"a"`, nil, true},
		{"ForAnyValue:StringEqualsIfExists", `"a"`, nil, true},

		// Several values of a key: any may match, none must for negated operators.
		{"StringEquals", `"a"`, values{"b", "a"}, true}, {"StringNotEquals", `"a"`, values{"b", "a"}, false}, {"StringNotEquals", `"a"`, values{"b", "c"}, true},
		{"ForAllValues:StringEquals", `["a","b"]`, values{"a", "b"}, true}, {"ForAllValues:StringEquals", `["a","b"]`, values{"a", "c"}, false},
		{"ForAllValues:StringEquals", `"a"`, nil, true}, {"ForAllValues:StringNotEquals", `"a"`, values{"b", "a"}, false},
		{"ForAnyValue:StringEquals", `"a"`, values{"a", "c"}, true}, {"ForAnyValue:StringEquals", `"a"`, values{"c"}, false},
		{"ForAnyValue:StringEquals", `"a"`, nil, false}, {"ForAnyValue:StringNotEquals", `"a"`, values{"a", "b"}, true},
		{"ForAnyValue:StringNotEquals", `"a"`, values{"a"}, false}, {"ForAnyValue:StringNotEquals", `"a"`, nil, false},

		// A variable without a value equals and resembles nothing.
		{"StringEquals", `"${aws:absent}"`, values{""}, false}, {"StringLike", `"*${aws:absent}*"`, values{"a"}, false},
		{"StringNotEquals", `"${aws:absent}"`, values{"a"}, true}, {"StringNotEquals", `["a","${aws:absent}"]`, values{"a"}, false},
		{"StringEquals", `"${aws:absent, 'a'}"`, values{"a"}, true},
		// One with several values stands for each in turn.
		{"StringEquals", `"${aws:teams}"`, values{"search"}, true}, {"StringEquals", `"${aws:teams}"`, values{"x", "payments"}, true},
		{"StringEquals", `"${aws:teams}"`, values{"sales"}, false}, {"StringNotEquals", `"${aws:teams}"`, values{"search"}, false},
		{"StringEqualsIgnoreCase", `"${aws:teams}"`, values{"SEARCH"}, true},
		{"ForAllValues:StringEquals", `"${aws:teams}"`, values{"search", "payments"}, true}, {"ForAllValues:StringEquals", `"${aws:teams}"`, values{"search", "sales"}, false},

		{"NumericEquals", `"10"`, values{"1e1"}, true}, {"NumericNotEquals", `"10"`, values{"10.0"}, false}, {"NumericLessThan", `3600`, values{"3599.5"}, true},
		{"NumericLessThan", `"3600"`, values{"3600"}, false}, {"NumericLessThanEquals", `"3600"`, values{"3600"}, true}, {"NumericGreaterThan", `"-1"`, values{"0"}, true},
		{"NumericGreaterThanEquals", `"1"`, values{"0"}, false}, {"NumericLessThan", `"1"`, values{"x"}, false}, {"NumericNotEquals", `"1"`, values{"x"}, true}, {"NumericLessThan", `"1"`, nil, false},

		{"DateLessThan", `"2026-11-20T10:00:00Z"`, values{"2026-11-20T10:30:00+01:00"}, true}, {"DateGreaterThan", `"2026-11-20"`, values{"2026-11-20T00:00:01Z"}, true},
		{"DateEquals", `"2026-11-20T09:30:00Z"`, values{"1795167000"}, true}, {"DateEquals", `1795167000`, values{"2026-11-20T09:30:00Z"}, true},
		{"DateNotEquals", `"2026"`, values{"2026-01-01T00:00:00Z"}, false}, {"DateLessThanEquals", `"2026-11-20T09:30Z"`, values{"2026-11-20T09:30:00.5Z"}, false},
		{"DateGreaterThanEquals", `"2026-11"`, values{"2026-11-01"}, true}, {"DateLessThan", `"2026-11-20"`, values{"soon"}, false},

		{"Bool", `"true"`, values{"True"}, true}, {"Bool", `false`, values{"true"}, false}, {"Bool", `"true"`, nil, false}, {"BoolIfExists", `"true"`, nil, true}, {"Bool", `"false"`, values{"0"}, false},
		{"BinaryEquals", `"YWI="`, values{"YWI="}, true}, {"BinaryEquals", `"YWI="`, values{"ab"}, false},

		{"IpAddress", `"203.0.113.0/24"`, values{"203.0.113.9"}, true}, {"IpAddress", `"203.0.113.77/24"`, values{"203.0.113.9"}, true}, {"IpAddress", `"203.0.113.9"`, values{"203.0.113.9"}, true},
		{"IpAddress", `"203.0.113.0/24"`, values{"::ffff:203.0.113.9"}, true}, {"IpAddress", `"::ffff:203.0.113.0/120"`, values{"203.0.113.9"}, true},
		{"IpAddress", `"0.0.0.0/0"`, values{"2001:db8::1"}, false}, {"IpAddress", `"2001:db8::/32"`, values{"2001:DB8::1"}, true}, {"IpAddress", `"fe80::/10"`, values{"fe80::1%eth0"}, true},
		{"IpAddress", `"10.0.0.0/8"`, values{"10.1"}, false}, {"IpAddress", `"10.0.0.0/8"`, values{"010.1.1.1"}, false},
		{"NotIpAddress", `["10.0.0.0/8","192.0.2.1"]`, values{"10.9.9.9"}, false}, {"NotIpAddress", `"10.0.0.0/8"`, values{"11.0.0.1"}, true}, {"NotIpAddress", `"10.0.0.0/8"`, nil, true},

		{"ArnLike", `"arn:aws:iam::*:role/Front*"`, values{"arn:aws:iam::111111111111:role/FrontEnd"}, true}, {"ArnEquals", `"arn:aws:iam::*:role/*"`, values{"arn:aws:iam::1:role/x"}, true},
		{"ArnLike", `"arn:aws:iam::1:*"`, nil, false}, {"ArnNotLike", `"arn:aws:iam::1:user/*"`, values{"arn:aws:iam::1:user/a"}, false}, {"ArnNotEquals", `"arn:aws:iam::1:user/a"`, values{"arn:aws:iam::1:user/b"}, true},
		{"ArnLike", `"arn:aws:iam:*:*:user/a"`, values{"arn:aws:iam:x:y:z:user/a"}, false}, {"ArnEquals", `"${aws:arn}"`, values{"arn:aws:iam::1:user/a"}, true},

		{"Null", `"true"`, nil, true}, {"Null", `"true"`, values{""}, false}, {"Null", `"false"`, values{"x"}, true}, {"Null", `false`, nil, false}, {"Null", `"true"`, values{}, true},
	}
	for _, tt := range tests {
		ctx := Context{"aws:teams": {"payments", "search"}, "aws:arn": {"arn:aws:iam::1:user/a"}}
		if tt.request != nil {
			ctx["x:Key"] = tt.request
		}
		if got := evaluateOne(t, tt.op, "X:key", tt.operands, ctx); got != tt.want {
			t.Errorf("%s %s, request %q: got %v, want %v", tt.op, tt.operands, tt.request, got, tt.want)
		}
	}
}

// TestOneTagKeyInTwoSpellings: a node that bears Team and team has both values, so
// that neither a deny nor an allow depends on which is looked at.
func TestOneTagKeyInTwoSpellings(t *testing.T) {
	ctx := Context{"ssm:resourceTag/Team": {"payments"}, "ssm:resourceTag/team": {"search"}, "SSM:RESOURCETAG/TEAM": {"sales"}}
	for _, team := range []string{"payments", "search", "sales"} {
		if !evaluateOne(t, "StringEquals", "ssm:ResourceTag/Team", `"`+team+`"`, ctx) {
			t.Errorf("Team %s: does not match", team)
		}
	}
	if evaluateOne(t, "StringNotEquals", "ssm:resourceTag/Team", `"sales"`, ctx) {
		t.Error("StringNotEquals holds although one spelling has the value")
	}
}

// TestLookAlikeContextKeys: keys that only look like another are not that key.
func TestLookAlikeContextKeys(t *testing.T) {
	for _, key := range []string{"\u0430ws:username", "aws:u\u017fername", "aws:username\x00", "aws:username ", "aws:user\u200bname"} {
		if evaluateOne(t, "StringEquals", "aws:username", `"admin"`, Context{key: {"admin"}}) {
			t.Errorf("key %q passes for aws:username", key)
		}
	}
}

func TestVariablesNeedVersion2012(t *testing.T) {
	for version, want := range map[string]Effect{"2012-10-17": Allowed, "2008-10-17": ImplicitlyDenied} {
		doc := mustParse(t, `{"Version":"`+version+`","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}}`)
		req := &Request{Action: "ssm:ResumeSession", Resource: "arn:aws:ssm:r:a:session/alice-1", Context: Context{"aws:username": {"alice"}}}
		if got := NewSet([]Source{{Document: doc}}).Evaluate(req).Effect; got != want {
			t.Errorf("version %s: got %v, want %v", version, got, want)
		}
	}
}
