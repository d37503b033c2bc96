package plan

import "github.com/orchctl/orch/api"

// Needed is an image that a replica which is assigned here runs from, or will.
type Needed struct {
	Replica api.ReplicaKey
	// Ref is as the container wants it; ImageID is its digest once it was found.
	Ref, ImageID string
	// Runs: its container does.
	Runs bool
}

// Images lists what replicas need, those too that are on their way out: what is left of them
// was made from it.
func (c *Core) Images() []Needed {
	var out []Needed
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		if r.gone {
			continue
		}
		for _, x := range r.runs {
			out = append(out, Needed{Replica: k, Ref: x.spec.Image, ImageID: x.imageID, Runs: x.lives()})
		}
	}
	return out
}
