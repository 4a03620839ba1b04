package archive

import (
	"fmt"
	"sync"
	"testing"
)

// Recordings begin while the last ones of their day leave the spool, and its folder with
// them.
func TestSpoolDays(t *testing.T) {
	s, err := openSpool(t.TempDir())
	must(t, err)
	defer s.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 4 {
		wg.Go(func() {
			for j := range 300 {
				name := fmt.Sprintf("2026/11/20/s%d-%d", i, j)
				if err := s.create(name); err != nil {
					t.Error(err)
				} else if err := s.drop(name); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
