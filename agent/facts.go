package agent

import (
	"bufio"
	"net"
	"os"
	"runtime"
	"strings"

	"sallyport.dev/wire"
)

const (
	// Name is what the agent calls itself to the server.
	Name = "sallyport-agent"
	// ProtocolVersion is reported as the agent's version. AWS's client compares it
	// part by part to choose what it may do (docs/protocol.md §17): it
	// has four parts and is above 3.1.1511.0.
	ProtocolVersion = "3.3.40.0"
)

// facts reads what UpdateInstanceInformation reports.
func facts(cfg Config, id string) wire.UpdateInstanceInformation {
	name, version := osRelease("/etc/os-release", "/usr/lib/os-release")
	computer := cfg.Name
	if computer == "" {
		computer, _ = os.Hostname()
	}
	return wire.UpdateInstanceInformation{
		AgentName: Name, AgentStatus: "Active", AgentVersion: ProtocolVersion,
		ComputerName: computer, IPAddress: primaryIP(), InstanceID: id,
		PlatformName: name, PlatformType: platformType(), PlatformVersion: version,
		SSMConnectionChannel: "ssmmessages",
	}
}

func platformType() string {
	switch runtime.GOOS {
	case "darwin":
		return "MacOS"
	case "windows":
		return "Windows"
	}
	return "Linux"
}

// osRelease returns NAME and VERSION_ID of the first file there is.
func osRelease(paths ...string) (name, version string) {
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			k, v, _ := strings.Cut(s.Text(), "=")
			switch v = strings.Trim(v, `"'`); k {
			case "NAME":
				name = v
			case "VERSION_ID":
				version = v
			}
		}
		return name, version
	}
	return runtime.GOOS, ""
}

// primaryIP is the first global IPv4 address of an interface that is up, else the
// first IPv6 one.
func primaryIP() string {
	ifaces, _ := net.Interfaces()
	var v6 string
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok || !n.IP.IsGlobalUnicast() {
				continue
			}
			if n.IP.To4() != nil {
				return n.IP.String()
			}
			if v6 == "" {
				v6 = n.IP.String()
			}
		}
	}
	return v6
}
