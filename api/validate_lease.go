package api

import "time"

// leaseFor is the shortest lease that leaves room for so long a grace: the
// replica is told to stop that much, and LeaseKill and two drifts, before it ends.
func leaseFor(grace time.Duration) time.Duration {
	room := grace + LeaseKill + LeaseRoom
	return room + 2*room/(leaseDriftShare-2) + 1 // + 1: rounded up
}

// graceFor is the longest grace that so long a lease leaves room for.
func graceFor(lease time.Duration) time.Duration {
	return lease - 2*LeaseDrift(lease) - LeaseKill - LeaseRoom
}

// partition checks what a replica does when its node cannot reach the leader.
func (c *checker) partition(t *Template) {
	switch t.OnPartition {
	case "", PartitionKeep, PartitionStop:
	default:
		c.add("spec.onPartition", "%q is unknown: want %s or %s", clip(string(t.OnPartition)), PartitionKeep, PartitionStop)
		return
	}
	if t.Exclusive && t.OnPartition == PartitionKeep {
		c.add("spec.onPartition", "is keep, but replicas of an exclusive service must stop when they are cut off, or a slot could run twice: remove this line, or exclusive")
		return
	}
	if !t.Leased() {
		if t.LeaseDuration != nil {
			c.add("spec.leaseDuration", "is only for replicas that run under a lease: add exclusive: true or onPartition: stop, or remove it")
		}
		return
	}
	before := len(c.found)
	c.duration("spec.leaseDuration", t.LeaseDuration, 0, MaxLease)
	if grace := t.TerminationGracePeriod.Or(DefaultGrace); len(c.found) == before && grace >= 0 && grace <= MaxGrace {
		c.leaseRoom(t, grace)
	}
}

// leaseRoom refuses a lease that ends before its replica could be stopped in order.
func (c *checker) leaseRoom(t *Template, grace time.Duration) {
	lease := t.Lease()
	drift := LeaseDrift(lease)
	need := grace + LeaseKill + 2*drift + LeaseRoom
	if need <= lease {
		return
	}
	longer, shorter := roundUp(leaseFor(grace), time.Second), graceFor(lease)
	if shorter > 0 {
		shorter = shorter.Truncate(100 * time.Millisecond) // never up to 0: then not even none fits
	}
	remedy := ""
	switch {
	case longer <= MaxLease && shorter >= 0:
		remedy = "set leaseDuration to at least " + Duration(longer).String() + ", or terminationGracePeriod to at most " + Duration(shorter).String()
	case longer <= MaxLease:
		remedy = "set leaseDuration to at least " + Duration(longer).String()
	case shorter >= 0:
		remedy = "a lease lasts at most " + Duration(MaxLease).String() + ": set terminationGracePeriod to at most " + Duration(shorter).String()
	default:
		remedy = "set leaseDuration to " + Duration(MaxLease).String() + " and terminationGracePeriod to at most " + Duration(graceFor(MaxLease)).String()
	}
	path := "spec.leaseDuration"
	if t.LeaseDuration == nil {
		path = "spec.terminationGracePeriod"
	}
	c.add(path, "a lease of %s is too short to stop a replica in: terminationGracePeriod %s + %s for SIGKILL + 2 x %s clock drift + %s for a late renewal = %s; %s",
		Duration(lease), Duration(grace), Duration(LeaseKill), Duration(drift), Duration(LeaseRoom), Duration(need), remedy)
}

func roundUp(d, step time.Duration) time.Duration { return (d + step - 1) / step * step }
