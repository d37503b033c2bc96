package network

// CheckPort is the port, TCP and UDP, at which every agent answers on its
// gateway's address, so that the network can be tried; CheckVIP leads there.
const CheckPort = 7071
