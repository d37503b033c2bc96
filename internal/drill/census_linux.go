package drill

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/lab"
)

// sampleEvery is the time between two looks at what runs: well below the time
// that a container takes to start or to end.
const sampleEvery = 10 * time.Millisecond

// census looks at what really runs, all the time.
type census struct {
	lab *lab.Lab

	mu      sync.Mutex
	running map[string]lab.Container // by node and id, at the last look
	must    map[string]lab.Container // that may not end: nobody asked for it
	ended   []lab.Container          // of those, the ones that did
	off     map[string]bool          // nodes without power: what was there is excused
	slots   map[string]*slotCount
	err     error
}

// slotCount is how often a slot had more than one running container.
type slotCount struct {
	service string
	now     int           // containers beyond the first, at the last look
	most    int           // the most of them at once
	total   time.Duration // for how long there were any
	since   time.Time
}

func newCensus(l *lab.Lab) *census {
	return &census{lab: l, must: map[string]lab.Container{}, off: map[string]bool{}, slots: map[string]*slotCount{}}
}

func (c *census) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		all, err := c.lab.Containers()
		c.take(all, err, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *census) take(all []lab.Container, err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = err
		return
	}
	c.running = map[string]lab.Container{}
	beyond := map[string]int{}
	for _, x := range all {
		c.running[x.String()] = x
		// What is frozen does nothing.
		if slot, _ := slotOf(x.ID); slot != "" && !x.Frozen {
			beyond[slot]++
		}
	}
	for id, x := range c.must {
		if _, ok := c.running[id]; ok {
			continue
		}
		delete(c.must, id)
		if !c.off[x.Node] {
			c.ended = append(c.ended, x)
		}
	}
	for slot, n := range beyond {
		if n > 1 && c.slots[slot] == nil {
			_, service := slotOf(slot)
			c.slots[slot] = &slotCount{service: service}
		}
	}
	for slot, s := range c.slots {
		s.count(max(beyond[slot]-1, 0), now)
	}
}

func (s *slotCount) count(n int, now time.Time) {
	switch {
	case n > 0 && s.now == 0:
		s.since = now
	case n == 0 && s.now > 0:
		s.total += now.Sub(s.since)
	}
	s.now, s.most = n, max(s.most, n)
}

// slotOf reads "default.web-0.17.main": the slot with its container, and the
// service. Both are empty for other names.
func slotOf(id string) (slot, service string) {
	parts := strings.Split(id, ".")
	if len(parts) < 4 {
		return "", ""
	}
	container, _, _ := strings.Cut(parts[3], "_") // a restart's number
	dash := strings.LastIndexByte(parts[1], '-')
	if dash < 0 {
		return "", ""
	}
	return parts[0] + "." + parts[1] + ".*." + container, parts[1][:dash]
}

// replicaOf reads "default.web-0.17.main": "default.web-0.17". Empty for other names.
func replicaOf(id string) string {
	parts := strings.SplitN(id, ".", 4)
	if len(parts) < 4 {
		return ""
	}
	return strings.Join(parts[:3], ".")
}

// hold makes what runs of a service now count as wrongfully ended when it ends;
// except are ids of replicas that may go, as spares do.
func (c *census) hold(service string, except func(id string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, x := range c.running {
		if _, s := slotOf(x.ID); s == service && !except(x.ID) {
			c.must[key] = x
		}
	}
}

// excuse lets what a step asks for end: all of a service, or of a node.
func (c *census) excuse(match func(lab.Container) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, x := range c.must {
		if match(x) {
			delete(c.must, key)
		}
	}
}

// power notes that a node lost its power or has it again.
func (c *census) power(node string, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off[node] = !on
}

func (c *census) wrongful() ([]lab.Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]lab.Container(nil), c.ended...), c.err
}

// duplicates gives for a service the most running containers beyond one per slot
// that were ever seen at once in a slot, how many there are now, and the longest
// that any slot had them.
func (c *census) duplicates(service string, now time.Time) (most, present int, longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.slots {
		if s.service != service {
			continue
		}
		total := s.total
		if s.now > 0 {
			total += now.Sub(s.since)
		}
		most, present, longest = max(most, s.most), present+s.now, max(longest, total)
	}
	return most, present, longest
}

// doubled names the services that ever had two containers in a slot.
func (c *census) doubled() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	var out []string
	for _, s := range c.slots {
		if !seen[s.service] {
			seen[s.service] = true
			out = append(out, s.service)
		}
	}
	return out
}

// runs tells whether a container's processes live on the node now.
func (c *census) runs(node, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.running[lab.Container{Node: node, ID: id}.String()]
	return ok
}
