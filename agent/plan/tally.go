package plan

import "github.com/orchctl/orch/api"

// Tally counts what the core holds, for whoever watches the node.
type Tally struct {
	// Replicas by phase, and containers by state, of all that are not gone.
	Replicas   map[api.Phase]int
	Containers map[api.ContainerState]int
	// Waiting is how many replicas wait for room to do something.
	Waiting int
	// Endpoints are those that traffic is to be led to. EndpointVersion is the leader's
	// number for the latest of them that are in force; 0: none of this session are yet.
	Endpoints       int
	EndpointVersion uint64
	// Connected: a session is up. Whole: it gave its complete set. Taken: one was taken
	// in this life of the agent.
	Connected, Whole, Taken bool
}

// Tally gives what is so now. It costs what is there, once.
func (c *Core) Tally() Tally {
	t := Tally{Replicas: map[api.Phase]int{}, Containers: map[api.ContainerState]int{}, Endpoints: len(c.endpoints),
		EndpointVersion: c.ack.EndpointVersion, Connected: c.connected, Whole: c.whole, Taken: c.taken}
	for _, r := range c.replicas {
		if r.gone {
			continue
		}
		t.Replicas[r.phase]++
		for _, x := range r.runs {
			switch {
			case x.lives() || x.state == stopped:
				t.Containers[api.ContainerRunning]++
			case x.final || r.going && (x.state == ended || x.lastExit != nil):
				t.Containers[api.ContainerExited]++
			default:
				t.Containers[api.ContainerWaiting]++
			}
		}
	}
	for class := range classes {
		t.Waiting += len(c.blocked[class].keys)
	}
	return t
}
