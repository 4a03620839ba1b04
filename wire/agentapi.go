package wire

import "encoding/xml"

// The requests that agents make over HTTP (docs/protocol.md §22, §23). All but the two
// channel requests are JSON 1.1 operations of the services ssm and ec2messages.

// RegisterManagedInstance turns an activation into a registered node. PublicKey is
// base64 of the PKIX DER of an RSA key; PublicKeyType is "Rsa".
type RegisterManagedInstance struct {
	ActivationCode string `json:"ActivationCode"`
	ActivationID   string `json:"ActivationId"`
	Fingerprint    string `json:"Fingerprint"`
	PublicKey      string `json:"PublicKey"`
	PublicKeyType  string `json:"PublicKeyType"`
}

// RegisterManagedInstanceResult carries the id of the new node.
type RegisterManagedInstanceResult struct {
	InstanceID string `json:"InstanceId"`
}

// RequestManagedInstanceRoleToken asks for temporary credentials; signed with the
// node's RSA key.
type RequestManagedInstanceRoleToken struct {
	Fingerprint string `json:"Fingerprint"`
}

// RequestManagedInstanceRoleTokenResult carries them. All members are mandatory;
// TokenExpirationDate is in seconds since the epoch.
type RequestManagedInstanceRoleTokenResult struct {
	AccessKeyID         string  `json:"AccessKeyId"`
	SecretAccessKey     string  `json:"SecretAccessKey"`
	SessionToken        string  `json:"SessionToken"`
	TokenExpirationDate float64 `json:"TokenExpirationDate"`
	UpdateKeyPair       bool    `json:"UpdateKeyPair"`
}

// UpdateManagedInstancePublicKey rotates the node's key; signed with the old one.
type UpdateManagedInstancePublicKey struct {
	NewPublicKey     string `json:"NewPublicKey"`
	NewPublicKeyType string `json:"NewPublicKeyType"`
}

// UpdateInstanceInformation reports the node's facts and that it lives.
type UpdateInstanceInformation struct {
	AgentName            string `json:"AgentName,omitempty"`
	AgentStatus          string `json:"AgentStatus,omitempty"`
	AgentVersion         string `json:"AgentVersion,omitempty"`
	AvailabilityZone     string `json:"AvailabilityZone,omitempty"`
	AvailabilityZoneID   string `json:"AvailabilityZoneId,omitempty"`
	ComputerName         string `json:"ComputerName,omitempty"`
	IPAddress            string `json:"IPAddress,omitempty"`
	InstanceID           string `json:"InstanceId,omitempty"`
	PlatformName         string `json:"PlatformName,omitempty"`
	PlatformType         string `json:"PlatformType,omitempty"`
	PlatformVersion      string `json:"PlatformVersion,omitempty"`
	SSMConnectionChannel string `json:"SSMConnectionChannel,omitempty"`
}

// CreateChannel is the JSON body of POST /v1/control-channel/ID and
// POST /v1/data-channel/ID.
type CreateChannel struct {
	MessageSchemaVersion string `json:"MessageSchemaVersion"`
	RequestID            string `json:"RequestId"`
	ClientID             string `json:"ClientId"`
}

// CreateChannelResult is the answer, XML with status 201.
type CreateChannelResult struct {
	XMLName              xml.Name `xml:"CreateChannelResponse"`
	MessageSchemaVersion string   `xml:"MessageSchemaVersion"`
	TokenValue           string   `xml:"TokenValue"`
}
