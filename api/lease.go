package api

import "time"

// OnPartition says what becomes of a replica whose node cannot reach the leader.
type OnPartition string

// The choices. The zero value means PartitionKeep.
const (
	// PartitionKeep lets it run on, beside a spare elsewhere if it comes to that.
	PartitionKeep OnPartition = "keep"
	// PartitionStop ends it when its lease does.
	PartitionStop OnPartition = "stop"
)

// The numbers of leases.
const (
	// DefaultLease is how long a lease lasts from its renewal.
	DefaultLease = 15 * time.Second
	// LeaseKill is the part of a lease that is kept for SIGKILL to take effect,
	// after the grace: a process in an uninterruptible call of a slow disk ends
	// only when that returns.
	LeaseKill = 2 * time.Second
	// LeaseRoom is the least that must be left of a lease beside grace, kill and
	// drift: a renewal that comes a second late may not end a replica.
	LeaseRoom = time.Second
	// leaseDriftShare: clocks of two machines are taken to run at the same rate
	// to within 1/leaseDriftShare. Quartz drifts by 0.01 %, time daemons slew by
	// at most 0.05 % (NTP) to 10 % (set so by hand only).
	leaseDriftShare = 100
)

// Leased tells whether replicas run only under a lease.
func (t *Template) Leased() bool { return t.Exclusive || t.OnPartition == PartitionStop }

// Lease gives how long a lease of the template's replicas lasts; 0 if they need none.
func (t *Template) Lease() time.Duration {
	if !t.Leased() {
		return 0
	}
	return t.LeaseDuration.Or(DefaultLease)
}

// LeaseDrift is what two clocks may differ by over a lease. The agent ends a
// lease by so much sooner, the leader waits for so much longer.
func LeaseDrift(lease time.Duration) time.Duration { return lease / leaseDriftShare }
