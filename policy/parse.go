package policy

// Statement is one statement of a policy.
type Statement struct {
	Sid        string
	Deny       bool
	Start, End Position
}

// Parse reads an identity policy, boundary or session policy. Errors are *ParseError.
func Parse(b []byte) (*Document, error) { return nil, &ParseError{Line: 1, Column: 1} }

// ParseTrust reads a role's trust policy. Errors are *ParseError.
func ParseTrust(b []byte) (*Document, error) { return nil, &ParseError{Line: 1, Column: 1} }
