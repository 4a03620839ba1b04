package cli

import "net"

func listenAt(s forwardSpec) (net.Listener, error) { return net.Listen(s.network, s.address()) }
