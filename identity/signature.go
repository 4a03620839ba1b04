package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	// maxPresigned is the longest life that a presigned request may ask for, as in AWS,
	// and presignedLife how long it is good for at most: URLs end up in logs.
	maxPresigned  = 7 * 24 * time.Hour
	presignedLife = 15 * time.Minute
	// maxSignedHeaders bounds the list of signed headers.
	maxSignedHeaders = 100
	// maxParameters bounds the query of a presigned request.
	maxParameters = 512
)

// signature is what a request says of how it was signed.
type signature struct {
	keyID                 string
	date, region, service string // of the scope
	headers               []string
	value                 string
	time                  time.Time
	token                 string
	presigned             bool
	expires               time.Duration // presigned only
}

// Service returns the service that a request's signature is scoped to, unverified. It
// tells which codec a request speaks. Errors are *AuthError: the request is not
// signed, or not understandably.
func Service(r *http.Request) (string, error) {
	sig, err := parseSignature(r)
	if err != nil {
		return "", err
	}
	return sig.service, nil
}

// Presigned reports whether a request carries its signature in the query.
func Presigned(r *http.Request) bool {
	return strings.Contains(r.URL.RawQuery, "X-Amz-Signature=")
}

// parseSignature reads the signature of a request. Errors are *AuthError.
func parseSignature(r *http.Request) (*signature, error) {
	presigned, header := Presigned(r), len(r.Header.Values("Authorization")) > 0
	switch {
	case presigned && header:
		return nil, authError(Incomplete, "The request is signed both in the query and in the Authorization header.")
	case presigned:
		return parsePresigned(r)
	case header:
		return parseHeader(r)
	}
	return nil, authError(MissingToken, "Request is missing Authentication Token")
}

func parseHeader(r *http.Request) (*signature, error) {
	authorization, err := single(r, "Authorization")
	if err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(authorization, " ")
	if scheme != algorithm {
		return nil, authError(Incomplete, "The Authorization header must begin with %s.", algorithm)
	}
	parts, err := parameters(rest)
	if err != nil {
		return nil, err
	}
	sig := &signature{value: parts["Signature"]}
	if sig.token, err = single(r, "X-Amz-Security-Token"); err != nil {
		return nil, err
	}
	dateHeader, at, err := requestDate(r)
	if err != nil {
		return nil, err
	}
	if err := sig.fill(parts["Credential"], parts["SignedHeaders"], at); err != nil {
		return nil, err
	}
	return sig, sig.requireSigned(r, dateHeader, "X-Amz-Security-Token", "X-Amz-Target")
}

// parameters splits "Credential=…, SignedHeaders=…, Signature=…".
func parameters(s string) (map[string]string, error) {
	parts := map[string]string{}
	for item := range strings.SplitSeq(s, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(item), "=")
		if _, twice := parts[name]; twice || !found {
			return nil, authError(Incomplete, "The Authorization header is malformed near %.40q.", item)
		}
		parts[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if parts[name] == "" {
			return nil, authError(Incomplete, "Authorization header requires '%s' parameter.", name)
		}
	}
	return parts, nil
}

// requestDate returns the header that dates the request: X-Amz-Date, else Date.
func requestDate(r *http.Request) (header, at string, err error) {
	if at, err = single(r, "X-Amz-Date"); err != nil || at != "" {
		return "X-Amz-Date", at, err
	}
	date, err := single(r, "Date")
	if err != nil {
		return "", "", err
	}
	parsed, err := http.ParseTime(date)
	if err != nil {
		return "", "", authError(Incomplete, "The request requires an X-Amz-Date header.")
	}
	return "Date", parsed.UTC().Format(timeFormat), nil
}

func parsePresigned(r *http.Request) (*signature, error) {
	query, err := signingParameters(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	if query["X-Amz-Algorithm"] != algorithm {
		return nil, authError(Incomplete, "X-Amz-Algorithm must be %s.", algorithm)
	}
	seconds, err := strconv.Atoi(query["X-Amz-Expires"])
	if expires := time.Duration(seconds) * time.Second; err != nil || seconds < 1 || expires > maxPresigned {
		return nil, authError(Incomplete, "X-Amz-Expires must be a number of seconds between 1 and 604800.")
	}
	sig := &signature{
		presigned: true, expires: min(time.Duration(seconds)*time.Second, presignedLife),
		value: query["X-Amz-Signature"], token: query["X-Amz-Security-Token"],
	}
	if err := sig.fill(query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Date"]); err != nil {
		return nil, err
	}
	return sig, sig.requireSigned(r, "X-Amz-Target")
}

// signingParameters returns the parameters of a query that are about its signature.
// The others may be many, and are nobody's yet.
func signingParameters(raw string) (map[string]string, error) {
	if strings.Count(raw, "&") >= maxParameters {
		return nil, authError(Incomplete, "The query has more than %d parameters.", maxParameters)
	}
	found := map[string]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil || strings.Contains(pair, ";") {
			return nil, authError(Incomplete, "The query is malformed.")
		}
		if !strings.HasPrefix(strings.ToLower(name), "x-amz-") {
			continue
		}
		if _, twice := found[name]; twice {
			return nil, authError(Incomplete, "The query parameter %.40q is given twice.", name)
		}
		if found[name], err = url.QueryUnescape(value); err != nil {
			return nil, authError(Incomplete, "The query is malformed.")
		}
	}
	return found, nil
}

// scopePart is the form of access key ids, dates, regions and services.
var scopePart = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)

// fill reads the credential scope, the list of signed headers and the time.
func (s *signature) fill(credential, headers, at string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || slices.Contains(parts, "") || parts[4] != "aws4_request" {
		return authError(Incomplete, "Credential must have the form KEY/DATE/REGION/SERVICE/aws4_request.")
	}
	for _, part := range parts {
		// They are repeated in answers and in the audit log.
		if !scopePart.MatchString(part) {
			return authError(Incomplete, "Credential has a part that is too long or has other characters than letters, digits, dashes and underscores: %.40q.", part)
		}
	}
	s.keyID, s.date, s.region, s.service = parts[0], parts[1], parts[2], parts[3]
	var err error
	if s.time, err = time.Parse(timeFormat, at); err != nil {
		return authError(Incomplete, "Date must be in ISO-8601 'basic format'. Got %.40q.", at)
	}
	if day := s.time.Format("20060102"); s.date != day {
		return authError(WrongScope, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "+
			"'%s' != '%s', from '%s'.", s.date, day, at)
	}
	return s.fillHeaders(headers)
}

func (s *signature) fillHeaders(headers string) error {
	s.headers = strings.Split(headers, ";")
	if len(s.headers) > maxSignedHeaders {
		return authError(Incomplete, "SignedHeaders names more than %d headers.", maxSignedHeaders)
	}
	for i, name := range s.headers {
		if name == "" || name != strings.ToLower(name) || i > 0 && s.headers[i-1] >= name {
			return authError(Incomplete, "SignedHeaders must be header names in lower case, sorted, each once.")
		}
	}
	if !slices.Contains(s.headers, "host") {
		return authError(BadSignature, "'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return nil
}

// requireSigned refuses a request that has one of the named headers unsigned, or twice.
func (s *signature) requireSigned(r *http.Request, names ...string) error {
	for _, name := range names {
		if len(r.Header.Values(name)) == 0 {
			continue
		}
		if _, err := single(r, name); err != nil {
			return err
		}
		if !slices.Contains(s.headers, strings.ToLower(name)) {
			return authError(BadSignature, "'%s' must be a 'SignedHeader' in the AWS Authorization.", name)
		}
	}
	return nil
}

// single returns the value of a header that may be given once at most.
func single(r *http.Request, name string) (string, error) {
	switch values := r.Header.Values(name); len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", authError(Incomplete, "The header %s is given more than once.", name)
}

func (s *signature) stringToSign(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return strings.Join([]string{
		algorithm, s.time.Format(timeFormat),
		s.date + "/" + s.region + "/" + s.service + "/aws4_request",
		hex.EncodeToString(sum[:]),
	}, "\n")
}

// canonicalRequest spells the request as both sides must, in the form of every
// service but S3: the path is normalised and encoded once more.
func canonicalRequest(r *http.Request, s *signature, payloadHash string) (string, error) {
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalPath(r) + "\n" + query + "\n")
	for _, name := range s.headers {
		value, err := canonicalHeader(r, name)
		if err != nil {
			return "", err
		}
		b.WriteString(name + ":" + value + "\n")
	}
	b.WriteString("\n" + strings.Join(s.headers, ";") + "\n" + payloadHash)
	return b.String(), nil
}

func canonicalPath(r *http.Request) string {
	p := r.URL.EscapedPath()
	if p == "" {
		return "/"
	}
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/" // path.Clean drops it
	}
	return escape(clean, "/")
}

func canonicalQuery(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	var pairs [][2]string
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		k, err := url.QueryUnescape(key)
		if err != nil {
			return "", authError(Incomplete, "The query is malformed.")
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return "", authError(Incomplete, "The query is malformed.")
		}
		if k == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, [2]string{escape(k, ""), escape(v, "")})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	parts := make([]string, len(pairs))
	for i, p := range pairs {
		parts[i] = p[0] + "=" + p[1]
	}
	return strings.Join(parts, "&"), nil
}

func canonicalHeader(r *http.Request, name string) (string, error) {
	switch name {
	case "host":
		return r.Host, nil
	case "content-length":
		// Not a header any more after net/http has read it, in HTTP/2 at least.
		if r.ContentLength >= 0 {
			return strconv.FormatInt(r.ContentLength, 10), nil
		}
	}
	values := r.Header.Values(name)
	if len(values) == 0 {
		return "", authError(BadSignature, "The signed header %.40q is not in the request.", name)
	}
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " ")
	}
	return strings.Join(trimmed, ","), nil
}

// escape percent-encodes all but RFC 3986's unreserved characters and those in keep.
func escape(s, keep string) string {
	const digits = "0123456789ABCDEF"
	literal := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("-._~", c) >= 0 || strings.IndexByte(keep, c) >= 0
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if !literal(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case literal(c):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
