package network

import "strconv"

// The flags of a controller that make a Cluster.
const (
	FlagNodes    = "--cluster-cidr"
	FlagNodeBits = "--node-cidr-mask-size"
	FlagServices = "--service-cidr"
	FlagRoutes   = "--routes"
)

// Difference is one thing that two Clusters do not agree about.
type Difference struct{ Flag, This, Other string }

// Differences of c and another, by the flags that say them.
func (c Cluster) Differences(other Cluster) []Difference {
	var out []Difference
	for _, x := range []Difference{
		{FlagNodes, c.Nodes.Masked().String(), other.Nodes.Masked().String()},
		{FlagNodeBits, strconv.Itoa(c.NodeBits), strconv.Itoa(other.NodeBits)},
		{FlagServices, c.Services.Masked().String(), other.Services.Masked().String()},
		{FlagRoutes, string(c.Routes), string(other.Routes)},
	} {
		if x.This != x.Other {
			out = append(out, x)
		}
	}
	return out
}
