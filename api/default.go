package api

import (
	"maps"
	"time"
)

// The defaults. They are written into the object, so that a later version of
// orch with other defaults does not change what already runs.
const (
	DefaultReplicas  = 1
	DefaultSurge     = 25 // percent of replicas, rounded up
	DefaultUnready   = 25 // percent of replicas, rounded down
	DefaultPidsLimit = 2000

	DefaultGrace      = 10 * time.Second
	DefaultBackOff    = time.Second
	DefaultMaxBackOff = time.Minute
	DefaultResetAfter = time.Minute

	// DefaultProgressDeadline is Kubernetes': an image of some gigabytes has to be
	// pulled within it.
	DefaultProgressDeadline = 10 * time.Minute
	DefaultHookTimeout      = 30 * time.Second

	DefaultProbeTimeout          = time.Second
	DefaultProbeFailureThreshold = 3
	DefaultProbeSuccessThreshold = 1
)

// Default fills in what the user left out. It is idempotent, never overrides
// what is set, and takes any input: Validate comes after it.
//
// A probe's Interval stays nil, for nil means more than a number: 100 ms until
// the first success, 5 s afterwards.
func (s *Service) Default() {
	if s.APIVersion == "" {
		s.APIVersion = Version
	}
	if s.Kind == "" {
		s.Kind = KindService
	}
	if s.Metadata.Namespace == "" {
		s.Metadata.Namespace = DefaultNamespace
	}
	noneIfEmpty(&s.Metadata.Labels)
	noneIfEmpty(&s.Metadata.Annotations)
	setDefault(&s.Spec.Replicas, DefaultReplicas)
	surge, unready := defaultRollout(s.Spec.Exclusive)
	setDefault(&s.Spec.Rollout.MaxSurge, *surge)
	setDefault(&s.Spec.Rollout.MaxUnavailable, *unready)
	s.Spec.Template.Default()
}

// Default fills in what the template leaves out; see Service.Default.
func (t *Template) Default() {
	setDefault(&t.TerminationGracePeriod, Duration(DefaultGrace))
	noneIfEmpty(&t.NodeSelector)
	nilIfEmpty(&t.Constraints)
	for i := range t.Constraints {
		nilIfEmpty(&t.Constraints[i].Values)
	}
	switch {
	case t.Exclusive:
		if t.OnPartition == "" {
			t.OnPartition = PartitionStop
		}
	case t.OnPartition == PartitionKeep:
		// Written out, the usual choice must not make a new revision.
		t.OnPartition = ""
	}
	if t.Leased() {
		setDefault(&t.LeaseDuration, Duration(DefaultLease))
	}
	t.RestartPolicy.fill()
	for i := range t.Containers {
		t.Containers[i].fill()
	}
}

// defaultRollout: an exclusive service has no surge, for that would be a second
// replica in a slot.
func defaultRollout(exclusive bool) (surge, unready *IntOrPercent) {
	if exclusive {
		return Count(0), Count(1)
	}
	return Percent(DefaultSurge), Percent(DefaultUnready)
}

func (p *RestartPolicy) fill() {
	if p.Condition == "" {
		p.Condition = RestartAlways
	}
	setDefault(&p.BackOff, Duration(DefaultBackOff))
	// A back-off above the usual cap raises the cap: asking for 2m must not
	// need a second field.
	setDefault(&p.MaxBackOff, max(Duration(DefaultMaxBackOff), *p.BackOff))
	setDefault(&p.ResetAfter, Duration(DefaultResetAfter))
}

func (c *Container) fill() {
	nilIfEmpty(&c.Args)
	nilIfEmpty(&c.Env)
	nilIfEmpty(&c.Ports)
	for i := range c.Ports {
		if c.Ports[i].Protocol == "" {
			c.Ports[i].Protocol = TCP
		}
	}
	c.Resources.fill()
	c.ReadinessProbe.fill()
	c.LivenessProbe.fill()
}

// fill copies its maps first: callers share them between revisions.
func (r *Resources) fill() {
	requests, limits := maps.Clone(r.Requests), maps.Clone(r.Limits)
	if requests == nil {
		requests = ResourceList{}
	}
	if limits == nil {
		limits = ResourceList{}
	}
	if _, ok := limits[Pids]; !ok {
		limits[Pids] = Whole(DefaultPidsLimit)
	}
	for name, q := range r.Limits {
		if _, ok := requests[name]; !ok && name != Pids {
			requests[name] = q
		}
	}
	for name, q := range r.Requests {
		if _, ok := limits[name]; !ok && IsExtended(name) {
			limits[name] = q
		}
	}
	noneIfEmpty(&requests)
	r.Requests, r.Limits = requests, limits
}

func (p *Probe) fill() {
	if p == nil {
		return
	}
	if p.HTTP != nil && p.HTTP.Path == "" {
		p.HTTP.Path = "/"
	}
	setDefault(&p.Timeout, Duration(DefaultProbeTimeout))
	if p.FailureThreshold == 0 {
		p.FailureThreshold = DefaultProbeFailureThreshold
	}
	if p.SuccessThreshold == 0 {
		p.SuccessThreshold = DefaultProbeSuccessThreshold
	}
}

// IsExtended tells whether a resource is counted only: neither cpu, memory nor pids.
func IsExtended(resource string) bool {
	return resource != CPU && resource != Memory && resource != Pids
}

func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// nilIfEmpty and noneIfEmpty leave a list or map as it comes back from JSON, so
// that an object equals its own copy over the wire.
func nilIfEmpty[T any](list *[]T) {
	if len(*list) == 0 {
		*list = nil
	}
}

func noneIfEmpty[M ~map[string]V, V any](m *M) {
	if len(*m) == 0 {
		*m = nil
	}
}
