package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"sallyport.dev/audit"
	"sallyport.dev/wire"
)

// What the audit log tells of a call's input: each member by its name, so that a record
// shows what was changed. Members with the rule secret are left out, those with the rule
// digest (documents, keys) are told by their hash, and of maps (parameters, which may
// hold anything) the keys only.

// maker is an output that tells the id of what the operation made, which is not in its
// input.
type maker interface{ made() string }

// recordMade records the id of what a call made, so that later records with that id
// can be traced to this one.
func (c *Call) recordMade(ctx context.Context, out any) error {
	m, ok := out.(maker)
	if !ok {
		return nil
	}
	return c.record(ctx, audit.Record{
		Event: audit.EventChange, Principal: c.Principal.ARN, Reason: "made " + m.made(),
		Details: map[string]string{"made": m.made(), "access_key_id": c.Principal.AccessKeyID},
	})
}

// maxDetail is how much of a member's value goes into a record, in bytes.
const maxDetail = 2048

// detailsOf returns the members of an input that were given. Lists and structures are
// JSON.
func detailsOf(s *shape, in any) map[string]string {
	details := map[string]string{}
	v := reflect.Indirect(reflect.ValueOf(in))
	for _, f := range s.fields {
		switch told := tell(f.rules, f.shape, v.FieldByIndex(f.index)).(type) {
		case nil:
		case string:
			details[f.name] = clipDetail(told)
		default:
			b, _ := json.Marshal(told) // of strings, numbers, lists and maps
			details[f.name] = clipDetail(string(b))
		}
	}
	return details
}

func clipDetail(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	end := maxDetail
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return fmt.Sprintf("%s… (cut from %d bytes)", s[:end], len(s))
}

// tell returns what a record says of a value: a text, or what becomes JSON; nil for a
// value that was not given or is not told.
func tell(r rules, s *shape, v reflect.Value) any {
	if r.secret || v.IsZero() {
		return nil
	}
	switch s.kind {
	case kindString:
		if r.digest {
			return digestOf(v.String())
		}
		return v.String()
	case kindBool, kindInt, kindFloat:
		return fmt.Sprint(v.Interface())
	case kindText:
		if t, ok := v.Interface().(wire.Time); ok {
			return t.UTC().Format(time.RFC3339)
		}
		return fmt.Sprint(v.Interface())
	case kindPointer:
		return tell(r, s.elem, v.Elem())
	case kindStruct:
		return tellStruct(s, v)
	case kindList:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = tell(r, s.elem, v.Index(i))
		}
		return list
	case kindMap:
		var keys []string
		for _, key := range v.MapKeys() {
			keys = append(keys, key.String())
		}
		slices.Sort(keys)
		return keys
	}
	return nil // JSON that the operation reads by itself
}

func tellStruct(s *shape, v reflect.Value) any {
	members := map[string]any{}
	for _, f := range s.fields {
		if told := tell(f.rules, f.shape, v.FieldByIndex(f.index)); told != nil {
			members[f.name] = told
		}
	}
	return members
}

// digestOf tells one text from another without showing it.
func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("sha256:%s (%d bytes)", hex.EncodeToString(sum[:]), len(text))
}
