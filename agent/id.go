package agent

import "regexp"

var idForm = regexp.MustCompile(`^[A-Za-z0-9._@=+,-]{1,160}$`)

// validID reports whether an id that the server made up (of a session, of the node)
// may become a part of a URL's path.
func validID(id string) bool { return idForm.MatchString(id) && id != "." && id != ".." }
