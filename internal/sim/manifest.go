package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// manifest makes up what the service is to be now: mostly good, sometimes not.
func (u *user) manifest() *api.Service {
	r := u.w.r.users
	replicas := r.IntN(6)
	image := "good"
	if chance(r, 0.3) {
		image = pick(r, []string{"slow", "missing", "broken", "unready", "crash", "oom", "done", "picky"})
	}
	d := u.lasting
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
	u.begins(&c)
	t := api.Template{Containers: []api.Container{c}, TerminationGracePeriod: d(time.Duration(r.IntN(2))*time.Second, 3*time.Second), HostNetwork: ports >= 50 && ports < 58}
	u.beside(&t)
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
	if chance(r, u.global) && !s.Spec.Exclusive {
		s.Spec.Mode, s.Spec.Replicas, s.Spec.Priority = api.ModeGlobal, nil, 0
	}
	u.mayHook(&s.Spec.Template)
	u.w.takesValues(&s.Spec.Template)
	u.mayVolume(s)
	u.rollout(s)
	s.Default()
	if problems := api.Validate(s); len(problems) > 0 {
		u.w.violate("sim", "a made-up manifest is invalid: %v", problems)
	}
	return s
}

// lasting draws a time as a manifest has it.
func (u *user) lasting(least, most time.Duration) *api.Duration {
	v := api.Duration(between(u.w.r.users, least, most).Round(time.Millisecond))
	return &v
}

// begins gives a container, now and then, what happens at its start and end.
func (u *user) begins(c *api.Container) {
	r := u.w.r.users
	if chance(r, 0.15) {
		c.StartupProbe = &api.Probe{TCP: &api.TCPProbe{Port: "8080"}, Interval: u.lasting(100*time.Millisecond, time.Second), FailureThreshold: 5 + r.IntN(50)}
	}
	hook := func() *api.Hook {
		if chance(r, 0.5) {
			return &api.Hook{Sleep: u.lasting(10*time.Millisecond, time.Second)}
		}
		return &api.Hook{Exec: &api.ExecProbe{Command: []string{"hook"}}, Timeout: u.lasting(time.Second, 2*time.Second)}
	}
	var l api.Lifecycle
	if chance(r, 0.1) {
		l.PostStart = hook()
	}
	if chance(r, 0.1) {
		l.PreStop = hook()
	}
	if l != (api.Lifecycle{}) {
		c.Lifecycle = &l
	}
}

// mayHook shortens what a template's grace leaves no time for, or takes it away.
func (u *user) mayHook(t *api.Template) {
	grace := t.TerminationGracePeriod.Or(api.DefaultGrace)
	for _, c := range slices.Concat(t.Sidecars, t.Containers) { // each has its own hooks
		l := c.Lifecycle
		switch {
		case l == nil || l.PreStop == nil:
		case grace == 0:
			l.PreStop = nil
		case l.PreStop.Sleep != nil:
			sleep := api.Duration(min(time.Duration(*l.PreStop.Sleep), grace/2).Round(time.Millisecond))
			l.PreStop.Sleep = &sleep
		}
	}
}

// beside gives a template containers beside its first, now and then.
func (u *user) beside(t *api.Template) {
	r := u.w.r.users
	small := api.Resources{Requests: api.ResourceList{api.CPU: 50, api.Memory: api.Whole(1 << 20)}}
	if chance(r, 0.15) {
		t.Containers = append(t.Containers, api.Container{Name: "side", Image: "good:side"})
	}
	if chance(r, 0.2) {
		for i := range 1 + r.IntN(2) {
			image := "init"
			if chance(r, 0.2) {
				image = pick(r, []string{"fitful", "fitful", "fails", "missing"})
			}
			t.InitContainers = append(t.InitContainers, api.Container{Name: fmt.Sprintf("init%d", i+1), Image: fmt.Sprintf("%s:%d", image, u.version), Resources: small})
		}
	}
	if chance(r, 0.15) {
		for i := range 1 + r.IntN(2) {
			c := api.Container{Name: fmt.Sprintf("car%d", i+1), Image: "good:car", Resources: small}
			u.begins(&c)
			t.Sidecars = append(t.Sidecars, c)
		}
	}
}

// rollout draws how a new revision takes the place of the one before. Deadlines are
// short, so that they pass within a run.
func (u *user) rollout(s *api.Service) {
	r := u.w.r.users
	o := &s.Spec.Rollout
	global := s.Spec.Mode == api.ModeGlobal
	switch n := r.IntN(10); {
	case s.Spec.Exclusive || n < 3:
	case n == 3:
		o.Strategy = api.StrategyRecreate
	case n == 4 && isSeated(&s.Spec.Template): // no two of a slot at once
		o.Order = api.OrderStopFirst
	case n == 4 && !global:
		o.Order = pick(r, []api.Order{api.OrderStartFirst, api.OrderStopFirst})
	case global || isSeated(&s.Spec.Template):
		o.MaxUnavailable = api.Count(1 + r.IntN(2))
	default:
		surge := r.IntN(3)
		o.MaxSurge, o.MaxUnavailable = api.Count(surge), api.Count(r.IntN(3))
		if surge == 0 {
			o.MaxUnavailable = api.Count(1 + r.IntN(2))
		}
	}
	o.ProgressDeadline = u.lasting(4*time.Second, 40*time.Second)
	if chance(r, 0.25) {
		o.MinReady = u.lasting(100*time.Millisecond, 3*time.Second)
	}
	if o.Strategy != api.StrategyRecreate && !s.Spec.Exclusive && chance(r, 0.3) {
		most := 3
		if !global {
			most = min(most, s.Spec.Want())
		}
		for i := range min(1+r.IntN(3), most) {
			step := api.CanaryStep{Replicas: *api.Count(i + 1)}
			if chance(r, 0.75) {
				step.Pause = u.lasting(200*time.Millisecond, 5*time.Second)
			}
			o.Canary = append(o.Canary, step)
		}
	}
	if chance(r, 0.2) {
		no := false
		o.AutoRollback = &no
	}
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
