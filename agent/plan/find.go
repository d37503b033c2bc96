package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// Address gives where a replica's ports are.
func (c *Core) Address(key api.ReplicaKey) (netip.Addr, error) {
	r := c.replicas[key]
	if r == nil || r.gone {
		return netip.Addr{}, fmt.Errorf("replica %s is not on this node", key)
	}
	if ip, err := netip.ParseAddr(r.net.IP); err == nil {
		return ip, nil
	}
	why := r.told().Status.Message
	if why == "" {
		why = "it is " + string(r.phase)
	}
	return netip.Addr{}, fmt.Errorf("replica %s has no address yet: %s", key, why)
}

// Observed tells whether it is known what runs here: before that, what Find and Address say
// is not.
func (c *Core) Observed() bool { return c.observed }

// Wants tells whether the replica is to run here: how its containers end is of interest.
func (c *Core) Wants(key api.ReplicaKey) bool {
	r := c.replicas[key]
	return r != nil && !r.going && !r.gone
}

// Found is a container as a user means it.
type Found struct {
	Name        string
	ContainerID string
	Running     bool
	// Stdin: its command waits for somebody to attach.
	Stdin bool
	// Why says what it does instead of running.
	Why string
}

// Find looks up a replica's container by name; an empty name means the first of
// those that it is there for.
func (c *Core) Find(key api.ReplicaKey, name string) (Found, error) {
	r := c.replicas[key]
	if r == nil || r.gone || len(r.runs) == 0 {
		return Found{}, fmt.Errorf("replica %s is not on this node", key)
	}
	x := r.runs[slices.IndexFunc(r.runs, func(x *run) bool { return x.kind == mainRun || x == r.runs[len(r.runs)-1] })]
	if name != "" {
		if x = r.find(name); x == nil {
			var names []string
			for _, x := range r.runs {
				names = append(names, x.spec.Name)
			}
			return Found{}, fmt.Errorf("replica %s has no container %q: it has %s", key, name, strings.Join(names, ", "))
		}
	}
	cs := x.told()
	f := Found{Name: x.spec.Name, ContainerID: x.id, Running: x.lives(), Stdin: x.spec.Stdin}
	if !f.Running {
		f.Why = strings.TrimSuffix(strings.TrimSpace(fmt.Sprintf("%s %s: %s", cs.State, cs.Reason, cs.Message)), ":")
	}
	return f, nil
}

// Stdin gives the name of the replica's container whose command waits for somebody to
// attach; empty: it has none.
func (c *Core) Stdin(key api.ReplicaKey) string {
	if r := c.replicas[key]; r != nil {
		for _, x := range r.runs {
			if x.spec.Stdin {
				return x.spec.Name
			}
		}
	}
	return ""
}
