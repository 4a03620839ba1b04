package oncall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"

	"sallyport.dev/internal/publicnet"
)

// apiClient asks the APIs of services, whose URLs the server's configuration has. They
// redirect nowhere: a token must not follow.
func (s *Sources) apiClient() *http.Client {
	return &http.Client{
		Transport:     s.transport(&net.Dialer{}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it redirects, which is not followed") },
	}
}

// maxRedirects bounds how often a calendar may say that it is elsewhere.
const maxRedirects = 3

// calendarClient fetches calendars, whose URLs flows have: from public addresses only,
// but for the hosts that the server's configuration lists.
func (s *Sources) calendarClient() *http.Client {
	return &http.Client{
		Transport: s.transport(nil),
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("it redirects more than %d times", maxRedirects)
			}
			if r.URL.Scheme != "https" {
				return errors.New("it redirects to something else than https")
			}
			return nil
		},
	}
}

// transport has no pool: what is asked once a minute keeps no connection open. Without a
// dialer of its own it keeps away from private addresses.
func (s *Sources) transport(d *net.Dialer) *http.Transport {
	dial := s.dialPublic
	if d != nil {
		dial = d.DialContext
	}
	return &http.Transport{
		DialContext: dial, TLSClientConfig: s.config.TLS.Clone(), DisableKeepAlives: true,
		TLSHandshakeTimeout: s.config.Timeout, MaxResponseHeaderBytes: 64 << 10,
	}
}

// dialPublic connects to public addresses, and to listed hosts whatever theirs. The
// address is checked when it is dialled, so that no name resolves to another one later.
func (s *Sources) dialPublic(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: s.config.Timeout}
	if !s.listed(address) {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !publicnet.Has(ap.Addr()) {
				return errors.New("its address is private; the server's configuration does not list the host")
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, address)
}

func (s *Sources) listed(address string) bool {
	if s.config.Calendars == nil {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && (slices.Contains(s.config.Calendars.Hosts, address) || slices.Contains(s.config.Calendars.Hosts, host))
}

// fetch reads an answer of at most so many bytes. Its errors do not name the URL, which
// may hold a secret.
func fetch(c *http.Client, req *http.Request, most int64) ([]byte, error) {
	resp, err := c.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("%s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Host, err)
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%s answers more than %d bytes", req.URL.Host, most)
	}
	return body, nil
}
