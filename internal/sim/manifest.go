package sim

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// manifest makes up what the service is to be now: mostly good, sometimes not.
func (u *user) manifest() *api.Service {
	r := u.w.r.users
	replicas := r.IntN(6)
	image := "good"
	if chance(r, 0.3) {
		image = pick(r, []string{"slow", "missing", "broken", "unready", "crash", "oom", "done"})
	}
	d := func(least, most time.Duration) *api.Duration {
		v := api.Duration(between(r, least, most).Round(time.Millisecond))
		return &v
	}
	c := api.Container{Name: "main", Image: fmt.Sprintf("%s:%d", image, u.version),
		Resources: api.Resources{Requests: api.ResourceList{api.CPU: api.Quantity(100 * (1 + r.IntN(12))), api.Memory: api.Whole(64 << 20)}}}
	if chance(r, 0.7) {
		c.ReadinessProbe = &api.Probe{TCP: &api.TCPProbe{Port: "8080"}, Interval: d(100*time.Millisecond, 500*time.Millisecond)}
	}
	if chance(r, 0.4) {
		c.LivenessProbe = &api.Probe{TCP: &api.TCPProbe{Port: "8080"}, Interval: d(300*time.Millisecond, time.Second), FailureThreshold: 1 + r.IntN(3)}
	}
	ports := r.IntN(100)
	switch port := r.IntN(4); {
	case ports < 30:
		c.Ports = []api.Port{{Port: 8080, Publish: 8000 + port, Mode: api.PublishHost}}
	case ports < 45: // on every node: now and then somebody else has it
		c.Ports = []api.Port{{Name: "http", Port: 8080, Publish: 9000 + port}, {Name: "dns", Port: 53, Protocol: api.UDP}}
	case ports < 50:
		c.Ports = []api.Port{{Port: 8080, Publish: 8000 + port}}
	case ports < 60:
		c.Ports = []api.Port{{Port: 8000 + port}}
	}
	t := api.Template{Containers: []api.Container{c}, TerminationGracePeriod: d(0, 3*time.Second), HostNetwork: ports >= 50 && ports < 58}
	if chance(r, 0.2) {
		side := api.Container{Name: "side", Image: "good:side"}
		t.Containers = append(t.Containers, side)
	}
	if chance(r, 0.1) {
		t.NodeSelector = map[string]string{"zone": "a"}
	}
	t.RestartPolicy = api.RestartPolicy{Condition: pick(r, []api.RestartCondition{api.RestartAlways, api.RestartAlways, api.RestartOnFailure, api.RestartNever}),
		BackOff: d(100*time.Millisecond, time.Second), MaxBackOff: d(time.Second, 5*time.Second), ResetAfter: d(time.Second, 10*time.Second)}
	s := &api.Service{Metadata: api.Metadata{Name: u.key.Name, Namespace: u.key.Namespace}, Spec: api.ServiceSpec{Replicas: &replicas, Template: t}}
	if chance(r, 0.3) {
		s.Spec.Priority = r.IntN(10) - 3
	}
	switch r.IntN(8) {
	case 0:
		s.Spec.Headless = true
	case 1:
		s.Spec.SessionAffinity = api.AffinityClientIP
	case 2:
		s.Spec.TrafficDistribution = api.PreferSameNode
	}
	if chance(r, u.leased) {
		u.lease(&s.Spec.Template)
	}
	if chance(r, 0.6) && !s.Spec.Exclusive {
		surge := r.IntN(3)
		s.Spec.Rollout.MaxSurge = api.Count(surge)
		s.Spec.Rollout.MaxUnavailable = api.Count(r.IntN(3))
		if surge == 0 {
			s.Spec.Rollout.MaxUnavailable = api.Count(1 + r.IntN(2))
		}
	}
	s.Default()
	if problems := api.Validate(s); len(problems) > 0 {
		u.w.violate("sim", "a made-up manifest is invalid: %v", problems)
	}
	return s
}

// lease makes a template run under a lease only, which is as short as its grace
// allows, or up to eight seconds longer.
func (u *user) lease(t *api.Template) {
	r := u.w.r.users
	t.OnPartition = api.PartitionStop
	t.Exclusive = chance(r, 0.7)
	grace := api.Duration(between(r, 0, 3*time.Second).Round(time.Millisecond))
	t.TerminationGracePeriod = &grace
	least := time.Duration(grace) + api.LeaseKill + api.LeaseRoom
	lease := api.Duration((least*102/100 + between(r, 10*time.Millisecond, 8*time.Second)).Round(time.Millisecond))
	t.LeaseDuration = &lease
}

func leaseWords(t *api.Template) string {
	if !t.Leased() {
		return ""
	}
	return fmt.Sprintf(", %slease %s, grace %s", map[bool]string{true: "exclusive, "}[t.Exclusive], t.Lease(), t.TerminationGracePeriod.Or(api.DefaultGrace))
}
