package factor

import "testing"

// FuzzHash: a hash is read whole or not at all, and never with a cost beyond the bounds.
func FuzzHash(f *testing.F) {
	f.Add(Cost{Memory: 8, Passes: 1, Threads: 1}.hash("x"))
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$AAAA$AAAA")
	f.Add("$argon2id$v=19$m=-1,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, text string) {
		c, salt, sum, err := parseHash(text)
		if err != nil {
			return
		}
		if c.check() != nil || len(salt) != saltSize || len(sum) != hashSize {
			t.Errorf("%q: got %+v, %d bytes of salt, %d of hash", text, c, len(salt), len(sum))
		}
	})
}
