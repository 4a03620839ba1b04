package node

import (
	"context"
	"errors"
	"time"

	"sallyport.dev/identity"
)

// Node is a machine that runs an agent.
type Node struct {
	ID            string // mi- or i- and 17 hexadecimal digits
	Name          string // the activation's default instance name
	Tags          identity.Tags
	ActivationID  string
	IAMRole       string
	Fingerprint   string
	PublicKey     string // base64 of PKIX DER
	PublicKeyType string // "Rsa"
	Registered    time.Time

	// Facts that the agent reports.
	AgentName, AgentVersion, AgentStatus        string
	PlatformType, PlatformName, PlatformVersion string
	ComputerName, IPAddress, AvailabilityZone   string
	LastPing                                    time.Time // last UpdateInstanceInformation

	// Member holds the node's control channel; empty while it is not connected.
	Member      string
	ConnectedAt time.Time
}

// DisplayName is what people call the node: its Name tag, its registered name,
// its host name, or its id.
func (n Node) DisplayName() string {
	for _, s := range []string{n.AssignedName(), n.ComputerName} {
		if s != "" {
			return s
		}
	}
	return n.ID
}

// AssignedName is the name that administrators gave the node, by its Name tag or its
// activation; empty if they gave none. Unlike its host name, which its agent reports,
// it can be relied on to find the node by.
func (n Node) AssignedName() string {
	if name := n.Tags["Name"]; name != "" {
		return name
	}
	return n.Name
}

// Activation lets machines register themselves.
type Activation struct {
	ID          string // UUID
	CodeHash    []byte // SHA-256 of the code; the code itself is given out once
	Description string
	DefaultName string
	IAMRole     string
	Limit       int // registrations allowed
	Count       int // registrations made
	Expires     time.Time
	Created     time.Time
	Tags        identity.Tags // given to every node
	// NodeIDs, when set, are the ids that registrations get, in order; otherwise
	// the server chooses mi-… ids.
	NodeIDs []string
}

// Errors of the domain.
var (
	ErrNotFound          = errors.New("no such node")
	ErrInvalidActivation = errors.New("activation code or id is wrong")
	ErrActivationExpired = errors.New("activation has expired")
	ErrRegistrationLimit = errors.New("activation has no registrations left")
	ErrFingerprint       = errors.New("fingerprint does not match")
	ErrExists            = errors.New("node is registered already")
)

// Filter selects nodes: every given condition must hold, any of a condition's values.
type Filter struct {
	IDs   []string
	After string // ids after this one
	Limit int    // 0 for all
}

// Store keeps nodes and activations.
type Store interface {
	CreateActivation(ctx context.Context, a Activation) error
	Activation(ctx context.Context, id string) (Activation, error)
	Activations(ctx context.Context, after string, limit int) ([]Activation, error)
	DeleteActivation(ctx context.Context, id string) error

	// Register uses up one registration of n.ActivationID and stores n in one
	// transaction, checking expiry at the given time and the limit. newID is asked
	// for an id where the activation fixes none. It returns the stored node.
	Register(ctx context.Context, n Node, at time.Time, newID func() string) (Node, error)
	// Unregister undoes the Register that returned n: it deletes the node, and gives the
	// registration back to its activation, unless that has given its next fixed id out since.
	Unregister(ctx context.Context, n Node) error

	Node(ctx context.Context, id string) (Node, error)
	Nodes(ctx context.Context, f Filter) ([]Node, error) // in id order
	UpdateNode(ctx context.Context, id string, change func(*Node) error) error
	DeleteNode(ctx context.Context, id string) error

	// SetConnected notes which member holds the node's control channel;
	// ClearConnected undoes it if member still holds it.
	SetConnected(ctx context.Context, id, member string, at time.Time) error
	ClearConnected(ctx context.Context, id, member string) error

	// SetKeys replaces what is known of a node's authorized_keys files; Keys returns what
	// all nodes have reported, in id order.
	SetKeys(ctx context.Context, k Keys) error
	Keys(ctx context.Context) ([]Keys, error)
}

// Keys are what a node's agent found in the authorized_keys files there.
type Keys struct {
	NodeID   string
	Reported time.Time
	Keys     []Key
	More     bool // there are more than the agent reports
}

// Key lets whoever has it into a node, past the server.
type Key struct {
	Login, File, Fingerprint, Type, Comment string
	Authority                               bool // it signs certificates that let in
}
