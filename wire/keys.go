package wire

// TypeKeysChanged tells an agent that SSH keys may have changed that it keeps on its
// node. It has no payload, and goes only to agents that named FeatureKeys in their
// opening: AWS's never get it (docs/protocol.md §28).
const TypeKeysChanged = "sallyport_keys_changed"

// FeatureKeys in Opening.Features says that an agent understands TypeKeysChanged.
const FeatureKeys = "keys"
