package wire

// TypeNotice is a message of the server's own to a client of ours that forwards a port
// and has no terminal to write into (docs/protocol.md §28.13). It has no sequence number
// and is not acknowledged. Clients that do not know it skip it.
const TypeNotice = "sallyport_notice"

// Notice is the payload, JSON.
type Notice struct {
	Text string `json:"Text"` // for the person; clients clean it
}
