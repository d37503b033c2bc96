package core

import (
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
)

// port is a number of one protocol, on nodes.
type port struct {
	number   int
	protocol api.Protocol
}

func portOf(number int, protocol api.Protocol) port {
	if protocol != api.UDP {
		protocol = api.TCP
	}
	return port{number, protocol}
}

func (p port) String() string { return fmt.Sprintf("%d/%s", p.number, p.protocol) }

// claim is a port that a template wants of nodes. Everywhere: of all of them, so
// that no other service may have it on any; else of those where its replicas are,
// which the scheduler sees to.
type claim struct {
	port
	everywhere bool
	field      string // that says so, from the template: "containers[0].ports[1].publish"
}

func claimsOf(t *api.Template) []claim {
	var out []claim
	for i, ct := range t.LongRunning() {
		list := "containers"
		if i < len(t.Sidecars) {
			list = "sidecars"
		} else {
			i -= len(t.Sidecars)
		}
		for j, p := range ct.Ports {
			field := fmt.Sprintf("%s[%d].ports[%d].", list, i, j)
			switch {
			case p.Publish != 0: // with the node's network, that is the same number
				out = append(out, claim{portOf(p.Publish, p.Protocol), p.Mode != api.PublishHost, field + "publish"})
			case t.HostNetwork:
				out = append(out, claim{portOf(p.Port, p.Protocol), false, field + "port"})
			}
		}
	}
	return out
}

// claims is which services have a port in any of their revisions: where to look
// for who really holds it.
type claims struct {
	of      map[port]map[api.Key]bool
	claimed map[api.Key][]port
}

func newClaims() claims {
	return claims{of: map[port]map[api.Key]bool{}, claimed: map[api.Key][]port{}}
}

// claimPorts takes note of the ports of a service's revisions.
func (c *Core) claimPorts(s *service) {
	c.unclaimPorts(s.key)
	for _, rev := range s.revisions {
		for _, x := range claimsOf(&rev.Template) {
			if c.claims.of[x.port] == nil {
				c.claims.of[x.port] = map[api.Key]bool{}
			}
			if !c.claims.of[x.port][s.key] {
				c.claims.of[x.port][s.key] = true
				c.claims.claimed[s.key] = append(c.claims.claimed[s.key], x.port)
			}
		}
	}
}

func (c *Core) unclaimPorts(key api.Key) {
	for _, p := range c.claims.claimed[key] {
		if delete(c.claims.of[p], key); len(c.claims.of[p]) == 0 {
			delete(c.claims.of, p)
		}
	}
	delete(c.claims.claimed, key)
}

// portConflicts tells which published ports of new revisions are others'. A port
// that is published on every node is one service's; what its replicas and those of
// others want on single nodes is the scheduler's, as long as nobody has it on all.
// It costs the ports and who else has them.
func (c *Core) portConflicts(changed []*service) error {
	beside := map[port][]*service{} // of this apply
	at := map[api.Key]bool{}
	for _, s := range changed {
		at[s.key] = true
		for _, x := range claimsOf(&s.newest().Template) {
			beside[x.port] = append(beside[x.port], s)
		}
	}
	var wrong api.Violations
	for i, s := range changed {
		if !s.fresh {
			continue
		}
		for _, x := range claimsOf(&s.newest().Template) {
			why := c.kept(x)
			for _, o := range beside[x.port] {
				if why == "" && o.key != s.key {
					why = holds(o, x)
				}
			}
			for _, key := range sortedKeys(c.claims.of[x.port]) {
				if why == "" && key != s.key { // one of this apply may still run an older revision
					why = c.holdsNow(c.services[key], x, at[key])
				}
			}
			if why != "" {
				wrong = append(wrong, api.Violation{Path: fmt.Sprintf("objects[%d].spec.%s", i, x.field), Message: why})
			}
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrInvalid, wrong)
}

// kept words that a port of the nodes is no service's; "" if it may be one's.
func (c *Core) kept(x claim) string {
	whose, kept := c.cfg.KeptPorts[api.HostPort{Port: x.number, Protocol: x.protocol}]
	if !kept {
		return ""
	}
	return fmt.Sprintf("port %s of the nodes is kept for %s: choose another", x.port, whose)
}

// holds words that the newest revision of another service has the port.
func holds(o *service, x claim) string {
	for _, y := range claimsOf(&o.newest().Template) {
		switch {
		case y.port != x.port || !x.everywhere && !y.everywhere:
		case o.deleting():
			return fmt.Sprintf("port %s is published by service %s, which is being deleted: apply again when it is gone", x.port, o.key)
		case y.everywhere && x.everywhere:
			return fmt.Sprintf("port %s is published by service %s: choose another, or use mode: host for both", x.port, o.key)
		case y.everywhere:
			return fmt.Sprintf("port %s is published on every node by service %s: choose another", x.port, o.key)
		default:
			return fmt.Sprintf("port %s is used on the nodes of service %s: choose another, or use mode: host", x.port, o.key)
		}
	}
	return ""
}

// holdsNow words that another service has the port: its newest revision, if that
// is not about to be replaced, one that it still runs, or the one that fills what a
// rollout under way has not come to.
func (c *Core) holdsNow(o *service, x claim, replaced bool) string {
	if !replaced {
		if why := holds(o, x); why != "" {
			return why
		}
	}
	claims := func(n int64) bool {
		return slices.ContainsFunc(claimsOf(&o.revisions[n].Template), func(y claim) bool { return y.port == x.port && (x.everywhere || y.everywhere) })
	}
	if n := o.stable(); n != 0 && n != o.obj.Status.Revision && claims(n) {
		return fmt.Sprintf("port %s is used by service %s, by revision %d, to which its rollout may have to go back: apply again when that is complete, or choose another", x.port, o.key, n)
	}
	for _, f := range o.fillings {
		if claims(f.revision) {
			return fmt.Sprintf("port %s is still used by service %s, by revision %d on %s: apply again when that is gone, or choose another", x.port, o.key, f.revision, f.node)
		}
	}
	return ""
}
