// Package client is the Go client of Sallyport: signed API calls, the data channel
// of a session, and the terminal in front of it.
//
// It speaks to Sallyport and to AWS alike; what only Sallyport offers (ListNodes,
// GetRecording, …) answers ErrNotSallyport elsewhere. A DataChannel loses and
// repeats no byte when its link breaks: it resumes with a new token and carries on.
package client
