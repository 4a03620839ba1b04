package server

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"sallyport.dev/wire"
)

// AWS Query and its EC2 dialect: forms in, XML out (docs/protocol.md §29).

const (
	contentForm = "application/x-www-form-urlencoded"
	contentXML  = "text/xml"
	// maxFormFields bounds the fields of a form, and maxFormNodes its tree.
	maxFormFields = 4096
	maxFormNodes  = 2 * maxFormFields
)

// parseForm reads a form into the tree that its dotted names spell.
func parseForm(body string) (*form, error) {
	if n := strings.Count(body, "&"); n >= maxFormFields {
		return nil, fmt.Errorf("the request has %d fields; at most %d are allowed", n+1, maxFormFields)
	}
	if strings.Contains(body, ";") {
		return nil, errors.New("the request has a semicolon that is not percent-encoded")
	}
	root, room := &form{}, maxFormNodes
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil {
			return nil, fmt.Errorf("the request is not a valid form: %w", err)
		}
		text, err := url.QueryUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("the request is not a valid form: field %q: %w", name, err)
		}
		if err := root.insert(name, text, &room); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// insert adds a field; room is how many nodes the tree may still grow by.
func (f *form) insert(name, text string, room *int) error {
	if strings.Count(name, ".") >= maxDepth {
		return errors.New("the request is nested too deeply")
	}
	node := f
	for part := range strings.SplitSeq(name, ".") {
		if node.children == nil {
			node.children = map[string]*form{}
		}
		child := node.children[part]
		if child == nil {
			if *room--; *room < 0 {
				return fmt.Errorf("the request has more than %d names and parts of names", maxFormNodes)
			}
			child = &form{}
			node.children[part] = child
		}
		node = child
	}
	if node.set {
		return fmt.Errorf("the request has the field %q twice", name)
	}
	node.text, node.set = text, true
	return nil
}

// actionOf finds the Action of a form without building it. It is empty where there is
// none or it is spelled in a way that parseForm will refuse.
func actionOf(body string) string {
	for pair := range strings.SplitSeq(body, "&") {
		if value, ok := strings.CutPrefix(pair, "Action="); ok {
			name, _ := url.QueryUnescape(value)
			return name
		}
	}
	return ""
}

func decodeQuery(o *Operation, s service, f *form) (any, error) {
	b := &binder{flatLists: s.protocol == protocolEC2}
	if s.protocol == protocolEC2 {
		return bindInput(o, b, f, "InvalidParameterValue", "InvalidParameterValue")
	}
	return bindInput(o, b, f, "MalformedInput", "ValidationError")
}

// encodeQuery writes an answer of iam or sts.
func encodeQuery(w http.ResponseWriter, o *Operation, s service, requestID string, out any) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<%sResponse xmlns="%s">`, o.Name, s.namespace)
	if reflect.TypeOf(out).Elem().NumField() > 0 {
		start := xml.StartElement{Name: xml.Name{Local: o.Name + "Result"}}
		if err := xml.NewEncoder(&b).EncodeElement(out, start); err != nil {
			return err
		}
	}
	fmt.Fprintf(&b, `<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>`, requestID, o.Name)
	return reply(w, http.StatusOK, contentXML, b.Bytes())
}

// encodeEC2 writes an answer of ec2: the members directly inside the response.
func encodeEC2(w http.ResponseWriter, o *Operation, s service, requestID string, out any) error {
	var b bytes.Buffer
	start := xml.StartElement{Name: xml.Name{Local: "r"}}
	if err := xml.NewEncoder(&b).EncodeElement(out, start); err != nil {
		return err
	}
	inner := bytes.TrimSuffix(bytes.TrimPrefix(b.Bytes(), []byte("<r>")), []byte("</r>"))
	body := fmt.Appendf(nil, `<%sResponse xmlns="%s"><requestId>%s</requestId>%s</%sResponse>`,
		o.Name, s.namespace, requestID, inner, o.Name)
	return reply(w, http.StatusOK, "text/xml;charset=UTF-8", body)
}

type queryError struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Namespace string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

type ec2Error struct {
	XMLName   xml.Name `xml:"Response"`
	Code      string   `xml:"Errors>Error>Code"`
	Message   string   `xml:"Errors>Error>Message"`
	RequestID string   `xml:"RequestID"`
}

func encodeErrorQuery(w http.ResponseWriter, s service, requestID string, e *wire.Exception) error {
	var shape any = queryError{
		Namespace: s.namespace, Type: e.Fault(), Code: e.Code, Message: e.Message, RequestID: requestID,
	}
	if s.protocol == protocolEC2 {
		shape = ec2Error{Code: e.Code, Message: e.Message, RequestID: requestID}
	}
	body, err := xml.Marshal(shape)
	if err != nil {
		return err
	}
	return reply(w, e.Status, contentXML, body)
}
