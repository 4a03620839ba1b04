package policy

// String says in one line what the statement did and why.
func (r Reason) String() string { return r.Source }

// Hint says what would make an Allow statement apply; empty where nothing would.
func (r Reason) Hint() string { return "" }
