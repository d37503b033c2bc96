package scheduler

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
)

// Shape is what placement needs to know of a revision. It is immutable, so one
// may serve many replicas and fleets.
type Shape struct {
	requests    []request // cpu, memory, then by name; none is zero
	ports       []hostPort
	selector    []label
	constraints []api.Constraint
	// hostNetwork replicas need no address: they use their node's.
	hostNetwork bool
	// rule is the text of selector and constraints: shapes of the same rule
	// share the set of nodes that meet it.
	rule string
}

// request is an amount of one resource, in thousandths of its unit.
type request struct {
	name   string
	amount int64
}

type label struct{ key, value string }

// hostPort is a port of one node that a replica there takes: the number in the low
// 16 bits, udpBit above. A port that is published on every node is none: all
// replicas of its service share it.
type hostPort uint32

const udpBit hostPort = 1 << 16

func (p hostPort) String() string {
	proto := api.TCP
	if p&udpBit != 0 {
		proto = api.UDP
	}
	return strconv.Itoa(int(p&^udpBit)) + "/" + string(proto)
}

// NewShape sums up what a template asks of a node: the ports of what runs as long
// as the replica, and of each resource what that requests together, or the init
// container that requests most: those run alone, one after the other. A request that
// is missing is taken from the limit; pids are only limited, never requested. A sum
// that does not fit becomes the largest amount, which no node has.
func NewShape(t api.Template) *Shape {
	s := &Shape{constraints: make([]api.Constraint, len(t.Constraints)), hostNetwork: t.HostNetwork}
	sums := map[string]int64{}
	for _, c := range t.LongRunning() {
		for name, amount := range requestsOf(&c) {
			sums[name] = addCapped(sums[name], amount)
		}
		for _, p := range c.Ports {
			switch {
			case t.HostNetwork:
				s.ports = append(s.ports, newHostPort(p.Port, p.Protocol))
			case p.Publish != 0 && p.Mode == api.PublishHost:
				s.ports = append(s.ports, newHostPort(p.Publish, p.Protocol))
			}
		}
	}
	for _, c := range t.InitContainers {
		for name, amount := range requestsOf(&c) {
			sums[name] = max(sums[name], amount)
		}
	}
	for name, amount := range sums {
		if name != api.Pids && amount > 0 {
			s.requests = append(s.requests, request{name, amount})
		}
	}
	slices.SortFunc(s.requests, func(a, b request) int {
		return cmp.Or(cmp.Compare(resourceRank(a.name), resourceRank(b.name)), cmp.Compare(a.name, b.name))
	})
	slices.Sort(s.ports)
	s.ports = slices.Compact(s.ports)
	for k, v := range t.NodeSelector {
		s.selector = append(s.selector, label{k, v})
	}
	slices.SortFunc(s.selector, func(a, b label) int { return cmp.Compare(a.key, b.key) })
	for i, c := range t.Constraints {
		c.Values = slices.Clone(c.Values)
		s.constraints[i] = c
	}
	s.rule = ruleText(s)
	return s
}

// requestsOf gives what a container requests, in thousandths.
func requestsOf(c *api.Container) map[string]int64 {
	out := map[string]int64{}
	for name, q := range c.Resources.Limits {
		out[name] = q.Milli()
	}
	for name, q := range c.Resources.Requests {
		out[name] = q.Milli()
	}
	return out
}

func newHostPort(number int, protocol api.Protocol) hostPort {
	hp := hostPort(number)
	if protocol == api.UDP {
		hp |= udpBit
	}
	return hp
}

// resourceRank puts what every node has first, in texts as in checks.
func resourceRank(name string) int {
	switch name {
	case api.CPU:
		return 0
	case api.Memory:
		return 1
	}
	return 2
}

// ruleText is injective: every part is quoted. It is empty where any node will do.
func ruleText(s *Shape) string {
	var b strings.Builder
	for _, l := range s.selector {
		b.WriteString(strconv.Quote(l.key) + "=" + strconv.Quote(l.value) + ";")
	}
	for _, c := range s.constraints {
		b.WriteString(strconv.Quote(c.Key) + " " + strconv.Quote(string(c.Operator)))
		for _, v := range c.Values {
			b.WriteString(" " + strconv.Quote(v))
		}
		b.WriteByte(';')
	}
	return b.String()
}

// addCapped adds two amounts that are not negative; MaxInt64 stands for all that is more.
func addCapped(a, b int64) int64 {
	if b <= 0 {
		return a
	}
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
