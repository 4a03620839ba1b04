// Package hooksign signs calls of webhooks, so that their receivers know who sent them
// and when.
package hooksign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Headers of webhooks. The delivery is the same in each try: who has seen it drops the
// call.
const (
	HeaderSignature = "X-Sallyport-Signature"
	HeaderTimestamp = "X-Sallyport-Timestamp"
	HeaderDelivery  = "X-Sallyport-Delivery"
)

// Sign returns the value of HeaderSignature: "v1=" and the hexadecimal HMAC-SHA256, with
// the secret, over the timestamp (seconds since 1970), a dot, and the body.
func Sign(secret, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}
