// Package bulk is the fast path of forwards between Sallyport's own client and agent
// (docs/protocol.md §28.11): connections of their own beside the data channel, end to end
// encrypted with TLS 1.3 under certificates that live as long as the session, dialled
// ahead and used again, whose ciphertext the gateway splices and meters.
//
// An Opener is the client's end and an Acceptor the agent's; a Lock holds what the
// gateway checks before it pairs two of their connections. All three promise to hold
// bounded memory whatever the other side sends, and to leave nothing behind after Close.
package bulk
