package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"

	"sallyport.dev/wire"
)

// AWS JSON 1.1 (docs/protocol.md §29).

const contentJSON = "application/x-amz-json-1.1"

// jsonBounds bound what a JSON request is built into: a structure of no members takes
// hundreds of bytes for two.
type jsonBounds struct{ values, containers int }

var (
	// callerBounds admit an agent's inventory, which is the largest request there is.
	callerBounds = jsonBounds{values: 128 << 10, containers: 16 << 10}
	// strangerBounds are for operations without a signature: flat and short ones.
	strangerBounds = jsonBounds{values: 64, containers: 16}
)

// maxDepth bounds the nesting of requests, in either codec.
const maxDepth = 32

func decodeJSON(o *Operation, body []byte) (any, error) {
	bounds := callerBounds
	if o.Caller == CallerAnonymous {
		bounds = strangerBounds
	}
	tree, err := parseJSON(body, bounds)
	if err != nil {
		return nil, exception("SerializationException", "%v", err)
	}
	return bindInput(o, &binder{}, tree, "SerializationException", "ValidationException")
}

// parseJSON reads one JSON value; an empty body is an empty structure.
func parseJSON(body []byte, bounds jsonBounds) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return map[string]any{}, nil
	}
	depth, size := measureJSON(body)
	switch {
	case depth > maxDepth:
		return nil, errors.New("the request is nested too deeply")
	case size.values > bounds.values || size.containers > bounds.containers:
		return nil, errors.New("the request has too many members")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, errors.New("the request is not valid JSON: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("the request has text after its JSON")
	}
	return tree, nil
}

// measureJSON measures the nesting and size without building anything.
func measureJSON(body []byte) (depth int, size jsonBounds) {
	open, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == ',':
			size.values++
		case c == '{' || c == '[':
			size.values++
			size.containers++
			open++
			depth = max(depth, open)
		case c == '}' || c == ']':
			open--
		}
	}
	return depth, size
}

// bindInput fills a new input of the operation; badType and invalid are the codes for
// wrong types and broken rules.
func bindInput(o *Operation, b *binder, tree any, badType, invalid string) (any, error) {
	in := o.input()
	if err := b.bind(reflect.ValueOf(in).Elem(), o.shape, tree, ""); err != nil {
		return nil, exception(badType, "%v", err)
	}
	if text := b.violations.message(); text != "" {
		return nil, exception(invalid, "%s", text)
	}
	return in, nil
}

func encodeJSON(w http.ResponseWriter, out any) error {
	body, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, contentJSON, body)
}

func encodeErrorJSON(w http.ResponseWriter, e *wire.Exception) error {
	body, err := json.Marshal(struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}{e.Code, e.Message})
	if err != nil {
		return err
	}
	w.Header().Set("X-Amzn-Errortype", e.Code)
	return reply(w, e.Status, contentJSON, body)
}
