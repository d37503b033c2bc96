package api

import (
	"maps"
	"slices"
	"time"
)

// The defaults. They are written into the object, so that a later version of
// orch with other defaults does not change what already runs.
const (
	DefaultReplicas  = 1
	DefaultSurge     = 25 // percent of replicas, rounded up
	DefaultUnready   = 25 // percent of replicas, rounded down
	DefaultPidsLimit = 2000
	DefaultFileMode  = "0444" // of a Config's or Secret's files, which their container's user owns

	DefaultGrace      = 10 * time.Second
	DefaultBackOff    = time.Second
	DefaultMaxBackOff = time.Minute
	DefaultResetAfter = time.Minute

	// DefaultProgressDeadline is Kubernetes': an image of some gigabytes has to be
	// pulled within it.
	DefaultProgressDeadline = 10 * time.Minute
	DefaultHookTimeout      = 30 * time.Second
	// DefaultMinReady is for what has no readiness probe: most that cannot work, for want
	// of a file or a variable, ends within it.
	DefaultMinReady = time.Second

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
	defaultMeta(&s.TypeMeta, &s.Metadata, KindService)
	if s.Spec.Mode != ModeGlobal {
		setDefault(&s.Spec.Replicas, DefaultReplicas)
	}
	s.Spec.fillRollout()
	s.Spec.Template.Default()
}

// fillRollout leaves the bounds of a recreate open: they would say nothing there, and
// who goes back to rolling is to get that one's.
func (s *ServiceSpec) fillRollout() {
	r := &s.Rollout
	if r.Strategy != StrategyRecreate {
		surge, unready := s.defaultBounds()
		setDefault(&r.MaxSurge, surge)
		setDefault(&r.MaxUnavailable, unready)
	}
	setDefault(&r.ProgressDeadline, Duration(DefaultProgressDeadline))
	nilIfEmpty(&r.Canary)
	setDefault(&r.AutoRollback, true)
}

// Default fills in what the template leaves out; see Service.Default.
func (t *Template) Default() {
	setDefault(&t.TerminationGracePeriod, Duration(DefaultGrace))
	noneIfEmpty(&t.NodeSelector)
	nilIfEmpty(&t.PullSecrets)
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
	noneIfEmpty(&t.Sysctls)
	nilIfEmpty(&t.InitContainers)
	nilIfEmpty(&t.Sidecars)
	for _, list := range [][]Container{t.InitContainers, t.Sidecars, t.Containers} {
		for i := range list {
			list[i].fill()
		}
	}
}

// defaultBounds are maxSurge and maxUnavailable where nothing is written. An exclusive
// service has no surge, for that would be a second replica in a slot; a global one has
// none, for it has one slot for each node; one with volumes has none, for a slot's are
// on one node and for one replica.
func (s *ServiceSpec) defaultBounds() (surge, unready IntOrPercent) {
	surge, unready = *Percent(DefaultSurge), *Percent(DefaultUnready)
	switch {
	case s.Exclusive:
		return *Count(0), *Count(1)
	case s.Mode == ModeGlobal, s.keepsVolumes(), s.Rollout.Order == OrderStopFirst:
		surge = *Count(0)
	case s.Rollout.Order == OrderStartFirst:
		unready = *Count(0)
	}
	return surge, unready
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
	if c.PullPolicy == PullIfNotPresent {
		c.PullPolicy = "" // written out, the usual choice must not make a new revision
	}
	nilIfEmpty(&c.Args)
	nilIfEmpty(&c.EnvFrom)
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
	c.StartupProbe.fill()
	if l := c.Lifecycle; l != nil {
		l.PostStart.fill()
		l.PreStop.fill()
		if l.PostStart == nil && l.PreStop == nil {
			c.Lifecycle = nil
		}
	}
	c.fillSecurity()
	c.fillUlimits()
	c.fillMounts()
}

// fillMounts writes out the mode of files, and each in the same way: written as 444 it
// must not make a new revision, nor must a readOnly that says what is so anyway.
func (c *Container) fillMounts() {
	nilIfEmpty(&c.Mounts)
	c.Mounts = slices.Clone(c.Mounts)
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Config == "" && m.Secret == "" {
			continue
		}
		m.ReadOnly = false
		switch {
		case m.Mode == "":
			m.Mode = DefaultFileMode
		case modeProblem(m.Mode) == "":
			m.Mode = ("0" + m.Mode)[len(m.Mode)-3:]
		}
	}
}

// fillSecurity: written out, the usual choices must not make a new revision. What it
// changes it copies first, as Resources.fill does.
func (c *Container) fillSecurity() {
	if c.SecurityContext == nil {
		return
	}
	x := *c.SecurityContext
	if x.Seccomp == SeccompDefault {
		x.Seccomp = ""
	}
	nilIfEmpty(&x.Capabilities.Add)
	nilIfEmpty(&x.Capabilities.Drop)
	if x.usual() {
		c.SecurityContext = nil
		return
	}
	c.SecurityContext = &x
}

// usual tells whether the context asks for nothing.
func (x *SecurityContext) usual() bool {
	return x.User == "" && x.Group == "" && !x.ReadOnlyRoot && x.Capabilities.Add == nil && x.Capabilities.Drop == nil &&
		x.Seccomp == "" && !x.AllowPrivilegeEscalation && !x.Privileged
}

func (c *Container) fillUlimits() {
	noneIfEmpty(&c.Ulimits)
	c.Ulimits = maps.Clone(c.Ulimits)
	for name, u := range c.Ulimits {
		if u.Hard == 0 {
			u.Hard = u.Soft
			c.Ulimits[name] = u
		}
	}
}

func (h *Hook) fill() {
	if h == nil {
		return
	}
	if h.HTTP != nil && h.HTTP.Path == "" {
		h.HTTP.Path = "/"
	}
	if h.Sleep == nil {
		setDefault(&h.Timeout, Duration(DefaultHookTimeout))
	}
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
