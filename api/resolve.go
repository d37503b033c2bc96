package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Want gives the number of replicas wanted. A global service has as many as there are
// nodes for it, which only the leader knows: then it means nothing.
func (s ServiceSpec) Want() int {
	if s.Replicas == nil {
		return DefaultReplicas
	}
	return *s.Replicas
}

// Surge gives how many replicas above n may exist during a rollout; n is Want, of a
// global service the number of its nodes.
func (s ServiceSpec) Surge(n int) int {
	if s.Exclusive || s.Mode == ModeGlobal || s.keepsVolumes() || s.Rollout.Strategy == StrategyRecreate {
		return 0
	}
	surge, _ := s.defaultBounds()
	if v := s.Rollout.MaxSurge; v != nil {
		surge = *v
	}
	return max(0, surge.Of(n, true))
}

// keepsVolumes tells whether slots have volumes, which only one replica can have.
func (s *ServiceSpec) keepsVolumes() bool { return len(s.Template.Volumes()) > 0 }

// Unavailable gives how many of n replicas may be unready during a rollout: all when
// it recreates. It is at most n, and at least 1 where Surge(n) is 0 and n is not: else
// a share rounded down to nothing would never let a rollout begin.
func (s ServiceSpec) Unavailable(n int) int {
	if s.Rollout.Strategy == StrategyRecreate {
		return n
	}
	_, unready := s.defaultBounds()
	if v := s.Rollout.MaxUnavailable; v != nil {
		unready = *v
	}
	u := max(0, unready.Of(n, false))
	if u == 0 && s.Surge(n) == 0 {
		u = 1
	}
	return min(u, n)
}

// MinReady gives how long a replica of the newest revision has to be ready to count. An
// image's own health check is not known here: it only makes a replica ready later.
func (s ServiceSpec) MinReady() time.Duration {
	probed := slices.ContainsFunc(s.LongRunning(), func(c Container) bool { return c.ReadinessProbe != nil })
	if s.Rollout.MinReady != nil || probed {
		return s.Rollout.MinReady.Or(0)
	}
	return min(DefaultMinReady, s.Rollout.ProgressDeadline.Or(DefaultProgressDeadline)/2)
}

// Requests gives what one replica takes of a node: of each resource the sum over
// LongRunning, or what the init container asks for that needs most, if that is more;
// for init containers run one after the other, and before. Resources of amount zero
// are left out. A missing request counts as the limit, as Default would fill it in. A
// sum that does not fit is MaxQuantity.
func (t *Template) Requests() ResourceList {
	sum := ResourceList{}
	for _, c := range t.LongRunning() {
		for name, q := range c.Resources.requested() {
			sum[name] = min(sum[name], MaxQuantity-q) + q
		}
	}
	for _, c := range t.InitContainers {
		for name, q := range c.Resources.requested() {
			sum[name] = max(sum[name], q)
		}
	}
	return sum
}

// requested gives the requests above zero.
func (r Resources) requested() ResourceList {
	r.fill() // r is a copy, and fill copies the maps
	maps.DeleteFunc(r.Requests, func(_ string, q Quantity) bool { return q <= 0 })
	return r.Requests
}

// HostPort is a port on a node's own address.
type HostPort struct {
	Port     int
	Protocol Protocol
}

// String gives "8080/TCP".
func (p HostPort) String() string { return fmt.Sprintf("%d/%s", p.Port, p.Protocol) }

// HostPorts gives the node ports that one replica takes for itself, sorted: those in
// mode host, and with HostNetwork all. What is published on every node is no single
// replica's.
func (t *Template) HostPorts() []HostPort {
	var ports []HostPort
	for _, c := range t.LongRunning() {
		for _, p := range c.Ports {
			switch {
			case t.HostNetwork:
				ports = append(ports, HostPort{p.Port, p.Transport()})
			case p.Publish != 0 && p.Mode == PublishHost:
				ports = append(ports, HostPort{p.Publish, p.Transport()})
			}
		}
	}
	slices.SortFunc(ports, func(a, b HostPort) int {
		if a.Port != b.Port {
			return a.Port - b.Port
		}
		return strings.Compare(string(a.Protocol), string(b.Protocol))
	})
	return slices.Compact(ports)
}

// Transport gives the port's protocol, TCP where none is set.
func (p Port) Transport() Protocol {
	if p.Protocol == "" {
		return TCP
	}
	return p.Protocol
}

// Resolve gives the number of the port that r means; ports are those of the
// container that r stands in. The second value is false if there is none.
func (r PortRef) Resolve(ports []Port) (int, bool) {
	if n, err := strconv.Atoi(string(r)); err == nil {
		return n, n >= 1 && n <= MaxPort
	}
	for _, p := range ports {
		if p.Name != "" && p.Name == string(r) {
			return p.Port, true
		}
	}
	return 0, false
}

// maxContainerdID is the longest id that containerd takes.
const maxContainerdID = 76

var containerdID = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

// ContainerName gives the runtime's id for one container of the replica. It is
// unique over the cluster's life and readable: "default.web-0.17.main". Where
// that is too long, or has a form that containerd refuses ("a--b"), it is cut
// and ends in a hash of the whole. The two forms never meet: the first has
// three dots, the second has one.
func (k ReplicaKey) ContainerName(container string) string {
	plain := fmt.Sprintf("%s.%s-%d.%d.%s", k.Namespace, k.Service, k.Slot, k.Epoch, container)
	if len(plain) <= maxContainerdID && containerdID.MatchString(plain) && strings.Count(plain, ".") == 3 {
		return plain
	}
	// NUL between the parts: unlike the dots, it stands in none of them.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d\x00%s", k.Namespace, k.Service, k.Slot, k.Epoch, container))
	hash := hex.EncodeToString(sum[:8])
	words := strings.FieldsFunc(plain, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	head := strings.Join(words, "-")
	head = strings.TrimRight(head[:min(len(head), maxContainerdID-1-len(hash))], "-")
	return head + "." + hash
}

// ReplicaRef is a replica as a user names it.
type ReplicaRef struct {
	// Namespace is empty where the user named none.
	Namespace string
	Service   string
	Slot      int
	// Epoch is 0 where the user named none: whichever fills the slot now.
	Epoch uint64
}

// String gives the text that ParseReplicaRef reads.
func (r ReplicaRef) String() string {
	s := fmt.Sprintf("%s-%d", r.Service, r.Slot)
	if r.Namespace != "" {
		s = r.Namespace + "/" + s
	}
	if r.Epoch != 0 {
		s += "@" + strconv.FormatUint(r.Epoch, 10)
	}
	return s
}

// Matches tells whether k is a replica that r means. An empty namespace
// matches all.
func (r ReplicaRef) Matches(k ReplicaKey) bool {
	return (r.Namespace == "" || r.Namespace == k.Namespace) && r.Service == k.Service &&
		r.Slot == k.Slot && (r.Epoch == 0 || r.Epoch == k.Epoch)
}

// ParseReplicaRef reads "web-0", "default/web-0" and "web-0@17".
func ParseReplicaRef(s string) (ReplicaRef, error) {
	refuse := func(why string) (ReplicaRef, error) {
		return ReplicaRef{}, fmt.Errorf("%q is not a replica: %s; want <service>-<slot>, such as web-0, default/web-0 or web-0@17", s, why)
	}
	var r ReplicaRef
	rest := s
	if before, after, ok := strings.Cut(rest, "/"); ok {
		if why := nameProblem(before, MaxNamespaceName); why != "" {
			return refuse("namespace " + why)
		}
		r.Namespace, rest = before, after
	}
	if before, after, ok := strings.Cut(rest, "@"); ok {
		epoch, ok := decimal(after)
		if !ok || epoch == 0 {
			return refuse("the epoch after @ is not a number from 1")
		}
		r.Epoch, rest = epoch, before
	}
	dash := strings.LastIndexByte(rest, '-')
	if dash < 0 {
		return refuse("it has no slot")
	}
	slot, ok := decimal(rest[dash+1:])
	if !ok || slot > MaxReplicas {
		return refuse("the slot after the last - is not a number")
	}
	r.Service, r.Slot = rest[:dash], int(slot)
	if why := nameProblem(r.Service, MaxServiceName); why != "" {
		return refuse("service " + why)
	}
	return r, nil
}

// decimal reads digits without sign or leading zero, so that each number has
// one text form.
func decimal(s string) (uint64, bool) {
	if s == "" || s[0] == '+' || (len(s) > 1 && s[0] == '0') {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// LongRunning are the containers that run as long as the replica does: sidecars, then
// Containers.
func (t *Template) LongRunning() []Container { return slices.Concat(t.Sidecars, t.Containers) }

// AllContainers are those of the replica in the order of their starts.
func (t *Template) AllContainers() []Container {
	return slices.Concat(t.InitContainers, t.Sidecars, t.Containers)
}
