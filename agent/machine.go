package agent

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// machine is what tells one machine from another, kept beside the key so that a copy
// of the disk on another machine is noticed.
type machine struct {
	ID       string   `json:"machineId,omitempty"`   // /etc/machine-id
	Product  string   `json:"productUuid,omitempty"` // of the firmware; root only
	Hostname string   `json:"hostname,omitempty"`
	MACs     []string `json:"macs,omitempty"` // of hardware interfaces, sorted
}

// readMachine reads the facts of the machine it runs on.
func readMachine() machine {
	m := machine{
		ID:      firstLine("/etc/machine-id", "/var/lib/dbus/machine-id"),
		Product: strings.ToLower(firstLine("/sys/class/dmi/id/product_uuid")),
		MACs:    hardwareAddresses("/sys/class/net"),
	}
	m.Hostname, _ = os.Hostname()
	return m
}

func firstLine(paths ...string) string {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil || len(b) > 4096 {
			continue
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

// hardwareAddresses lists the MAC addresses of interfaces that are devices: bridges
// and containers' interfaces come and go with other addresses.
func hardwareAddresses(sysfs string) []string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var macs []string
	for _, i := range ifaces {
		if _, err := os.Stat(filepath.Join(sysfs, i.Name, "device")); err == nil && len(i.HardwareAddr) > 0 {
			macs = append(macs, i.HardwareAddr.String())
		}
	}
	slices.Sort(macs)
	return macs
}

// same reports whether m and now are one machine. A machine keeps its id and its
// firmware's UUID; where the latter cannot be read, one network card or the name must
// have stayed. A fact that is missing on either side says nothing.
func (m machine) same(now machine) bool {
	if differ(m.ID, now.ID) || differ(m.Product, now.Product) {
		return false
	}
	if m.Product != "" && now.Product != "" {
		return true
	}
	if len(m.MACs) == 0 || len(now.MACs) == 0 {
		return m.ID != "" && now.ID != "" || !differ(m.Hostname, now.Hostname)
	}
	return shareOne(m.MACs, now.MACs) || m.Hostname == now.Hostname
}

func differ(a, b string) bool { return a != "" && b != "" && a != b }

func shareOne(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
