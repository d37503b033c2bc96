package api

// mode checks how many replicas there are to be.
func (c *checker) mode(s *ServiceSpec) {
	switch s.Mode {
	case "":
	case ModeGlobal:
		c.global(s)
		return
	default:
		c.add("spec.mode", "%q is unknown: want %s for one replica on every node, or leave it out", clip(string(s.Mode)), ModeGlobal)
	}
	if n := s.Want(); n < 0 {
		c.add("spec.replicas", "is negative: use 0 to run none")
	} else if n > MaxReplicas {
		c.add("spec.replicas", "is %d: at most %d are allowed", n, MaxReplicas)
	}
}

// global: what could only be ignored for a service whose slots are nodes is refused.
func (c *checker) global(s *ServiceSpec) {
	if s.Replicas != nil {
		c.add("spec.replicas", "is %d, but a global service has one replica on every node that is fit: remove this line, or mode", *s.Replicas)
	}
	if s.Exclusive {
		c.add("spec.exclusive", "and mode: global exclude each other: what may run only once cannot run on every node; remove one of them")
	}
}

func (c *checker) rollout(s *ServiceSpec) {
	const path = "spec.rollout"
	r := s.Rollout
	switch r.Strategy {
	case "", StrategyRolling, StrategyRecreate:
	default:
		c.add(path+".strategy", "%q is unknown: want %s or %s", clip(string(r.Strategy)), StrategyRolling, StrategyRecreate)
	}
	c.share(path+".maxSurge", r.MaxSurge)
	c.share(path+".maxUnavailable", r.MaxUnavailable)
	if r.Strategy == StrategyRecreate {
		c.recreate(r)
	} else {
		c.order(s)
		c.bounds(s)
	}
	c.duration(path+".minReady", r.MinReady, 0, MaxDelay)
	c.duration(path+".progressDeadline", r.ProgressDeadline, MinProgressDeadline, MaxDelay)
	if least, most := r.MinReady.Or(0), r.ProgressDeadline.Or(DefaultProgressDeadline); least >= most && most >= MinProgressDeadline {
		c.add(path+".minReady", "is %s, but a rollout has failed after a progressDeadline of %s in which no replica counted: raise progressDeadline above minReady", Duration(least), Duration(most))
	}
	c.canary(s)
}

// recreate: everything of the old revision stops, so that there is nothing to bound.
func (c *checker) recreate(r Rollout) {
	const remedy = "remove this line, or strategy: recreate, which stops every replica before the first new one starts"
	if r.Order != "" {
		c.add("spec.rollout.order", "has no meaning here: %s", remedy)
	}
	if r.MaxSurge != nil {
		c.add("spec.rollout.maxSurge", "has no meaning here: %s", remedy)
	}
	if r.MaxUnavailable != nil {
		c.add("spec.rollout.maxUnavailable", "has no meaning here: %s", remedy)
	}
	if len(r.Canary) > 0 {
		c.add("spec.rollout.canary", "has no meaning here: %s", remedy)
	}
}

func (c *checker) order(s *ServiceSpec) {
	const path = "spec.rollout.order"
	switch s.Rollout.Order {
	case "", OrderStopFirst:
	case OrderStartFirst:
		switch {
		case s.Exclusive:
			c.add(path, "is startFirst, but an exclusive service never runs a slot twice: remove this line, or exclusive")
		case s.Mode == ModeGlobal:
			c.add(path, "is startFirst, but a global service has one replica on each node, also in a rollout: remove this line, or mode")
		case s.keepsVolumes():
			c.add(path, "is startFirst, but two replicas of a slot cannot have its volume at once: remove this line, or the volumes")
		}
	default:
		c.add(path, "%q is unknown: want %s or %s, or leave it out for both as the bounds allow", clip(string(s.Rollout.Order)), OrderStartFirst, OrderStopFirst)
	}
}

// bounds refuses what lets no rollout go on, and what goes against the order or the
// kind of service.
func (c *checker) bounds(s *ServiceSpec) {
	surge, unready := s.Rollout.MaxSurge, s.Rollout.MaxUnavailable
	whose, remedy := "", ""
	switch { // a surge is refused
	case s.Exclusive:
		whose, remedy = "an exclusive service never runs a slot twice, not even in a rollout", "exclusive"
	case s.Mode == ModeGlobal:
		whose, remedy = "a global service has one replica on each node, also in a rollout", "mode"
	case s.keepsVolumes():
		whose, remedy = "a service with volumes has one replica for each slot, also in a rollout, as two cannot have a volume at once", "the volumes"
	case s.Rollout.Order == OrderStopFirst:
		whose, remedy = "order is stopFirst", "order"
	}
	if remedy != "" {
		if surge != nil && surge.Value > 0 {
			c.add("spec.rollout.maxSurge", "is %s, but %s: remove this line, or %s", surge, whose, remedy)
		}
		if unready != nil && unready.Value == 0 {
			c.add("spec.rollout.maxUnavailable", "is 0, and %s: no replica could ever be replaced; set it to at least 1", noSurge(s))
		}
		return
	}
	if s.Rollout.Order == OrderStartFirst {
		if unready != nil && unready.Value > 0 {
			c.add("spec.rollout.maxUnavailable", "is %s, but order is startFirst: remove this line, or order", unready)
		}
		if surge != nil && surge.Value == 0 {
			c.add("spec.rollout.maxSurge", "is 0, but order is startFirst: no replica could ever be replaced; set it to at least 1")
		}
		return
	}
	if surge != nil && unready != nil && surge.Value == 0 && unready.Value == 0 {
		c.add("spec.rollout.maxUnavailable", "and maxSurge are both 0: no replica could ever be replaced; set one of them to at least 1")
	}
}

func noSurge(s *ServiceSpec) string {
	switch {
	case s.Exclusive:
		return "an exclusive service has no surge"
	case s.Mode == ModeGlobal:
		return "a global service has no surge"
	case s.keepsVolumes():
		return "a service with volumes has no surge"
	}
	return "stopFirst has no surge"
}

// canary: each step asks for more than the one before, for else it would be reached at
// once, and for no more than there are. A share and a count may come to the same.
func (c *checker) canary(s *ServiceSpec) {
	const path = "spec.rollout.canary"
	steps, want := s.Rollout.Canary, s.Want()
	if len(steps) > MaxCanarySteps {
		c.add(path, "lists %d steps: at most %d are allowed", len(steps), MaxCanarySteps)
	}
	counted := s.Mode != ModeGlobal && want > 0 // otherwise shares and counts cannot be compared
	for i, x := range steps {
		here := at(path, i)
		c.share(here+".replicas", &x.Replicas)
		c.duration(here+".pause", x.Pause, 0, MaxDelay)
		if x.Replicas.Value <= 0 {
			if x.Replicas.Value == 0 {
				c.add(here+".replicas", "is %s: a step needs at least one replica, as 1 or 10%%", x.Replicas)
			}
			continue
		}
		if counted && !x.Replicas.Percent && x.Replicas.Value > want {
			c.add(here+".replicas", "is %d, but the service has %d: lower it, or write a share such as 50%%", x.Replicas.Value, want)
		}
		if i == 0 {
			continue
		}
		before := steps[i-1].Replicas
		falls := before.Percent == x.Replicas.Percent && x.Replicas.Value <= before.Value ||
			before.Percent != x.Replicas.Percent && counted && x.Replicas.Of(want, true) < before.Of(want, true)
		if falls {
			c.add(here+".replicas", "is %s after %s: steps rise; raise it, or remove the step", x.Replicas, before)
		}
	}
}

func (c *checker) share(path string, v *IntOrPercent) {
	switch {
	case v == nil:
	case v.Value < 0:
		c.add(path, "%q is negative: want a count such as 2 or a share such as 25%%", v)
	case v.Percent && v.Value > 100:
		c.add(path, "%q is above 100%%: want a share from 0%% to 100%%, or a count", v)
	case v.Value > MaxReplicas:
		c.add(path, "is %d: at most %d is allowed", v.Value, MaxReplicas)
	}
}
