package wire

// Exception is an error as API clients see it: an AWS error code and a message.
type Exception struct {
	Code    string // AccessDeniedException, NoSuchEntity, …
	Message string
	Status  int // HTTP status
}

// Error implements error.
func (e *Exception) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// Fault tells who is to blame, as AWS Query errors say: Sender or Receiver.
func (e *Exception) Fault() string {
	if e.Status >= 500 {
		return "Receiver"
	}
	return "Sender"
}
