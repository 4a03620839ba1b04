package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"sallyport.dev/audit"
)

// Names of the formats.
const (
	JSON = "json" // the record itself, which "sallyport audit verify --file" checks
	OCSF = "ocsf"
	ECS  = "ecs"
)

// Names lists the formats.
func Names() []string { return []string{JSON, OCSF, ECS} }

// Encoder writes a record as one line, without its line feed.
type Encoder func(audit.Record) ([]byte, error)

// Of returns the encoder of a format; JSON for "".
func Of(name string) (Encoder, error) {
	switch name {
	case JSON, "":
		return audit.Encode, nil
	case OCSF:
		return func(r audit.Record) ([]byte, error) { return encode(ocsf(r)) }, nil
	case ECS:
		return func(r audit.Record) ([]byte, error) { return encode(ecs(r)) }, nil
	}
	return nil, fmt.Errorf("format: %q is none of %s", name, strings.Join(Names(), ", "))
}

// object is a JSON object.
type object map[string]any

// put adds a member, a text, list or object, unless it is empty.
func (o object) put(name string, value any) {
	if reflect.ValueOf(value).Len() > 0 {
		o[name] = value
	}
}

func encode(o object) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(o); err != nil {
		return nil, fmt.Errorf("encoding audit record: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// nameOf is the last part of an ARN, which people know somebody by.
func nameOf(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// address returns an IP address, empty for anything else.
func address(s string) string {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.WithZone("").String()
	}
	return ""
}

// How what a record tells of went.
type outcome int

const (
	unknown outcome = iota
	success
	failure
)

func outcomeOf(r audit.Record) outcome {
	switch {
	case r.Decision != "" && r.Decision != "Allowed", r.Error != "", r.Details["error"] != "":
		return failure
	case r.Event == audit.EventLogin:
		return failure // those alone are recorded
	case r.Decision == "Allowed":
		return success
	case r.Event == audit.EventCommandEnd:
		return commandOutcome(r.Details["status"])
	case r.Event == audit.EventSessionEnd:
		return unknown
	}
	return success
}

func commandOutcome(status string) outcome {
	switch status {
	case "Success":
		return success
	case "":
		return unknown
	}
	return failure
}

// verb tells what an API action does to what it acts on.
type verb int

const (
	other verb = iota
	creates
	reads
	updates
	deletes
)

// verbs are the beginnings of the names of actions, as AWS forms them.
var verbs = []struct {
	prefix string
	verb   verb
}{
	{"Create", creates}, {"Register", creates}, {"Upload", creates}, {"Start", creates}, {"Send", creates},
	{"Get", reads}, {"List", reads}, {"Describe", reads}, {"Query", reads}, {"Search", reads}, {"Explain", reads},
	{"Simulate", reads}, {"Export", reads}, {"Read", reads}, {"Verify", reads}, {"Watch", reads}, {"Preview", reads},
	{"Update", updates}, {"Put", updates}, {"Modify", updates}, {"Attach", updates}, {"Detach", updates},
	{"Add", updates}, {"Remove", updates}, {"Set", updates}, {"Enable", updates}, {"Disable", updates},
	{"Tag", updates}, {"Untag", updates}, {"Rotate", updates}, {"Change", updates}, {"Hold", updates}, {"Release", updates},
	{"Delete", deletes}, {"Deregister", deletes}, {"Terminate", deletes}, {"Revoke", deletes}, {"Cancel", deletes},
}

func verbOf(action string) verb {
	_, name, _ := strings.Cut(action, ":")
	for _, v := range verbs {
		if strings.HasPrefix(name, v.prefix) {
			return v.verb
		}
	}
	return other
}
