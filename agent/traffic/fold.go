package traffic

import (
	"maps"
	"slices"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// fold gives one update that does what several do in turn.
func fold(all []plan.Balance) network.Update {
	complete := false
	puts, drops := map[api.ReplicaKey]wire.Endpoint{}, map[api.ReplicaKey]bool{}
	services, dropServices := map[api.Key]wire.Service{}, map[api.Key]bool{}
	for _, b := range all {
		if b.Complete {
			complete = true
			clear(puts)
			clear(drops)
			clear(services)
			clear(dropServices)
		}
		for _, k := range b.Drop {
			delete(puts, k)
			drops[k] = true
		}
		for _, e := range b.Put {
			puts[e.Replica] = e
			delete(drops, e.Replica)
		}
		for _, k := range b.DropServices {
			delete(services, k)
			dropServices[k] = true
		}
		for _, s := range b.Services {
			services[s.Key] = s
			delete(dropServices, s.Key)
		}
	}
	u := network.Update{Complete: complete, Put: slices.Collect(maps.Values(puts)), Services: slices.Collect(maps.Values(services))}
	if !complete { // a complete one says it by silence
		u.Drop, u.DropServices = slices.Collect(maps.Keys(drops)), slices.Collect(maps.Keys(dropServices))
	}
	return u
}
