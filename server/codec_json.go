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

// maxDepth bounds the nesting of requests, in either codec.
const maxDepth = 32

func decodeJSON(o *Operation, body []byte) (any, error) {
	tree, err := parseJSON(body)
	if err != nil {
		return nil, exception("SerializationException", "%v", err)
	}
	return bindInput(o, &binder{}, tree, "SerializationException", "ValidationException")
}

// parseJSON reads one JSON value; an empty body is an empty structure.
func parseJSON(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return map[string]any{}, nil
	}
	if depthJSON(body) > maxDepth {
		return nil, errors.New("the request is nested too deeply")
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

// depthJSON measures the nesting without building anything.
func depthJSON(body []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
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
