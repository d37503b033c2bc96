package plan

import (
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// balance is a Balance of this session that is not in force yet, and the version
// that is acknowledged when it is.
type balance struct{ mark, version uint64 }

// takeEndpoints has traffic led as a set of the leader's says. Increments before a
// complete set of the session are of no use; the set of before stays until then.
func (c *Core) takeEndpoints(set wire.EndpointSet) {
	if !c.connected || (!set.Complete && !c.endsWhole) {
		return
	}
	c.balanced++
	b := Balance{Mark: c.balanced, Complete: set.Complete, Put: set.Put, Drop: set.Drop, Services: set.Services, DropServices: set.DropServices}
	if set.Complete {
		c.endsWhole = true
		before := c.endpoints
		c.endpoints = make(map[api.ReplicaKey]wire.Endpoint, len(set.Put)+len(set.Keep))
		for _, k := range set.Keep {
			if e, ok := before[k]; ok {
				c.endpoints[k] = e
			}
		}
	}
	for _, e := range set.Put {
		c.endpoints[e.Replica] = e
	}
	for _, k := range set.Drop {
		delete(c.endpoints, k)
	}
	if set.Complete { // nothing is left to merge for who carries it out
		b.Put, b.Drop, b.DropServices = c.Endpoints(), nil, nil
	}
	c.balances = append(c.balances, balance{b.Mark, set.Version})
	c.emit(b)
}

// programmed acknowledges the highest version of this session that is in force:
// what an earlier session said is no version of this one's.
func (c *Core) programmed(mark uint64) {
	n := 0
	for n < len(c.balances) && c.balances[n].mark <= mark {
		n++
	}
	if n == 0 {
		return
	}
	c.ack.EndpointVersion, c.ackDue = c.balances[n-1].version, true
	c.balances = c.balances[n:]
}

// Endpoints gives who gets traffic, sorted by replica.
func (c *Core) Endpoints() []wire.Endpoint {
	out := make([]wire.Endpoint, 0, len(c.endpoints))
	for _, k := range slices.SortedFunc(maps.Keys(c.endpoints), compareKeys) {
		out = append(out, c.endpoints[k])
	}
	return out
}
