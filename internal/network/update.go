package network

import (
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Update says who gets traffic: all of it, or what changed.
type Update struct {
	// Complete: these are all there are.
	Complete     bool
	Put          []wire.Endpoint
	Drop         []api.ReplicaKey
	Services     []wire.Service
	DropServices []api.Key
}
