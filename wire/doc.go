// Package wire holds what Sallyport and its peers say to each other: the framed
// messages of the data and control channels, the JSON inside them, the requests
// that agents make, and the exceptions that API clients understand.
//
// It is a pure codec. It opens no socket, reads no clock and keeps no state.
package wire
