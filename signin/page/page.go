// Package page draws the few pages that people see in a browser: one plain layout,
// without scripts, under a strict Content-Security-Policy.
package page

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

// StylePath is where the style sheet of the pages is served.
const StylePath = "/sign-in/style.css"

//go:embed style.css
var style []byte

//go:embed layout.html
var layoutText string

var layout = template.Must(template.New("layout").Parse(layoutText))

// Header sets the headers of every page: nothing but our own style and forms, no frames,
// no sniffing, no referrer for others, not kept anywhere.
// Forms may lead to further origins where they are named.
func Header(h http.Header, formsTo ...string) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self' "+
		strings.Join(formsTo, " "))
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// layoutData is what the layout shows.
type layoutData struct {
	Title string
	Style string
	Body  template.HTML // escaped already: it is what a template drew
}

// Render answers with a page: the title, and what a template draws of data inside of the
// layout. The template escapes by itself (html/template). An error is one of the
// template, and nothing was written. Headers are those of Header, unless it was called
// before.
func Render(w http.ResponseWriter, _ *http.Request, status int, title string, body *template.Template, data any) error {
	var inner, whole bytes.Buffer
	if err := body.Execute(&inner, data); err != nil {
		return err
	}
	err := layout.Execute(&whole, layoutData{Title: title, Style: StylePath, Body: template.HTML(inner.String())})
	if err != nil {
		return err
	}
	if w.Header().Get("Content-Security-Policy") == "" {
		Header(w.Header())
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(whole.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(whole.Bytes()) // whoever asked has gone
	return nil
}

// ServeStyle answers with the style sheet.
func ServeStyle(w http.ResponseWriter, _ *http.Request) {
	Header(w.Header())
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(style) // whoever asked has gone
}
