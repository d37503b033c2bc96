package wire

// MessageMax is the largest message to an agent, in bytes: a complete set of a node's
// assignments, whose templates have up to 256 KiB each, and of the values that they take.
const MessageMax = 64 << 20
