//go:build linux

package sallyporttest_test

import (
	"strings"
	"testing"

	"sallyport.dev/client"
	"sallyport.dev/sallyporttest"
)

// AWS's agent decrypts the data key at the server, as its Kms.Endpoint has it. Its plugin
// asks AWS's own service whatever it is told, so that there is none of it here.
func TestOfficialAgentEncrypts(t *testing.T) {
	agent := official(t, agentVariable)
	for _, mode := range []string{"record", "unrecorded"} {
		t.Run(mode, func(t *testing.T) {
			s := encrypting(t, mode)
			key := s.User("admin", nil, sallyporttest.Everything)
			arn := encryptedDocuments(t, s, key)
			startOfficialAgent(t, s, agent)
			for _, document := range []string{"Encrypted-Shell", "Encrypted-Interactive", "Encrypted-Command"} {
				t.Run(document, func(t *testing.T) { testEncrypted(t, s, key, officialNode, document, arn, mode) })
			}
			t.Run("a client that does not encrypt", func(t *testing.T) {
				r := runEncrypted(t, s, key, officialNode, "Encrypted-Shell", encryptedTyped, func(c *client.ChannelConfig) { c.DataKey = nil })
				if r.out != "" || !strings.Contains(r.end.Output, "does not support encryption with KMS") {
					t.Errorf("it showed %q and ended with %+v, %v", r.out, r.end, r.err)
				}
			})
		})
	}
}
