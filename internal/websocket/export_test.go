package websocket

import "net"

// NewServerConn lets tests read from a bare connection.
func NewServerConn(c net.Conn, o Options) *Conn { return newConn(c, c, false, o) }

// Mask is mask, for tests.
var Mask = mask
