package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sallyport.dev/internal/hooksign"
	"sallyport.dev/internal/loopback"
)

// Webhook posts batches of JSON lines.
type Webhook struct {
	URL    string      // https://…; http:// on loopback addresses only
	Secret string      // signs; at least 16 bytes
	TLS    *tls.Config // optional
	Now    func() time.Time

	client *http.Client
}

const (
	minSecret   = 16               // bytes
	maxAnswer   = 64 << 10         // bytes of an answer that are read, so that the connection is used again
	httpTimeout = 30 * time.Second // of one call
)

// NewWebhook returns a Sender.
func NewWebhook(w Webhook) (Sender, error) {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback.Is(u.Hostname())):
		return nil, errors.New("url: want https://…, or http:// on a loopback address")
	case len(w.Secret) < minSecret:
		return nil, fmt.Errorf("the secret is shorter than %d bytes", minSecret)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = w.TLS
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w.client = &http.Client{Transport: transport, Timeout: httpTimeout, CheckRedirect: noRedirect}
	return &w, nil
}

// Send implements Sender.
func (w *Webhook) Send(ctx context.Context, b Batch) error {
	body := b.text()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return hideURL(err)
	}
	stamp := strconv.FormatInt(w.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("User-Agent", "sallyport")
	r.Header.Set(hooksign.HeaderTimestamp, stamp)
	r.Header.Set(hooksign.HeaderDelivery, b.ID)
	r.Header.Set(hooksign.HeaderSignature, hooksign.Sign(w.Secret, stamp, body))
	resp, err := w.client.Do(r)
	if err != nil {
		return hideURL(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		// Not in its own words, which may be megabytes.
		return fmt.Errorf("the webhook answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}

// Close implements Sender.
func (w *Webhook) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

// hideURL takes the URL, which may hold a token, out of an error.
func hideURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("calling the webhook: %w", u.Err)
	}
	return err
}

// text is the batch as JSON lines.
func (b Batch) text() []byte {
	return append(bytes.Join(b.Lines, []byte("\n")), '\n')
}
