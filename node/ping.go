package node

import "time"

// PingStatus is how alive a node is, in AWS's words.
type PingStatus string

// Ping statuses.
const (
	Online         PingStatus = "Online"
	ConnectionLost PingStatus = "ConnectionLost"
	Inactive       PingStatus = "Inactive"
)

// How long a node counts as alive after its last report. Agents report every five
// minutes, the first repeat at a random point of that; twice that leaves room for
// one that was lost.
const (
	pingFresh = 10 * time.Minute
	// An official agent can be told to report once an hour only; what holds a control
	// channel is believed for longer, but not for ever: a member that died leaves its
	// name behind.
	channelFresh = 70 * time.Minute
	pingKnown    = 30 * 24 * time.Hour
)

// Ping tells the node's status at the given time: Online when it reported within ten
// minutes, or holds a control channel and connected or reported within 70; else
// ConnectionLost for 30 days after its last report, then, or without any, Inactive.
func (n Node) Ping(at time.Time) PingStatus {
	age := at.Sub(n.LastPing)
	switch {
	case !n.LastPing.IsZero() && age < pingFresh, n.Member != "" && n.heard(at) < channelFresh:
		return Online
	case n.LastPing.IsZero() || age > pingKnown:
		return Inactive
	default:
		return ConnectionLost
	}
}

// heard is how long ago the node connected or reported.
func (n Node) heard(at time.Time) time.Duration {
	return min(at.Sub(n.LastPing), at.Sub(n.ConnectedAt))
}

// pingEvery is how old LastPing may get before a report that says nothing new is
// written down: a quarter of the period, so that status never lags, while an agent
// that reports in a loop costs no writes.
const pingEvery = time.Minute

// Report is what an agent says of its machine.
type Report struct {
	AgentName, AgentVersion, AgentStatus        string
	PlatformType, PlatformName, PlatformVersion string
	ComputerName, IPAddress, AvailabilityZone   string
}

// Stale reports whether r, received at the given time, has to be written to the
// node's row: it says something new, or the last ping is old.
func (n Node) Stale(r Report, at time.Time) bool {
	if at.Sub(n.LastPing) >= pingEvery {
		return true
	}
	after := n
	after.apply(r)
	return after.report() != n.report()
}

// Apply notes a report received at the given time. Members that it leaves empty
// keep what is known: an agent's first report names only the agent and the platform.
func (n *Node) Apply(r Report, at time.Time) {
	n.apply(r)
	n.LastPing = at
}

func (n *Node) apply(r Report) {
	set := func(field *string, v string) {
		if v != "" {
			*field = v
		}
	}
	set(&n.AgentName, r.AgentName)
	set(&n.AgentVersion, r.AgentVersion)
	set(&n.AgentStatus, r.AgentStatus)
	set(&n.PlatformType, r.PlatformType)
	set(&n.PlatformName, r.PlatformName)
	set(&n.PlatformVersion, r.PlatformVersion)
	set(&n.ComputerName, r.ComputerName)
	set(&n.IPAddress, r.IPAddress)
	set(&n.AvailabilityZone, r.AvailabilityZone)
}

func (n Node) report() Report {
	return Report{
		AgentName: n.AgentName, AgentVersion: n.AgentVersion, AgentStatus: n.AgentStatus,
		PlatformType: n.PlatformType, PlatformName: n.PlatformName, PlatformVersion: n.PlatformVersion,
		ComputerName: n.ComputerName, IPAddress: n.IPAddress, AvailabilityZone: n.AvailabilityZone,
	}
}
