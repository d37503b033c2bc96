package plan

import (
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Event is something that the core is told.
type Event interface{ event() }

type (
	// Started is the first event of an agent's life.
	Started struct{}
	// Connected: a session with the leader is up. Disconnected: it ended.
	Connected    struct{}
	Disconnected struct{}
	// Assigned is a set from the session. Incarnation is its message's. Its Configs stay
	// with who carries out StartContainer: the plan knows their versions alone.
	Assigned struct {
		Incarnation string
		Set         wire.AssignmentSet
	}
	// Programmed: what Balance with this Mark wanted, and all before it, is in force.
	Programmed struct{ Mark uint64 }
	// Endpoints is a set from the session.
	Endpoints struct{ Set wire.EndpointSet }
	// Granted answers Renew. SentAt is CLOCK_BOOTTIME, as time since boot, from
	// just before the renewal was sent.
	Granted struct {
		SentAt time.Duration
		Grant  wire.Grant
	}
	// RuntimeBack: the runtime's events arrive (again); what happened before
	// may have been missed.
	RuntimeBack struct{}
	// Observed answers Observe with all containers of ours, or says why it
	// could not be done.
	Observed struct {
		ID         uint64
		Containers []Container
		Err        string
	}
	// Exited: a container's first process ended.
	Exited struct {
		ContainerID string
		Exit        api.Exit
	}
	// Done answers an effect by its ID. Failure is nil on success.
	Done struct {
		ID      uint64
		Failure *Failure
		// ImageID answers EnsureImage, Network SetupNetwork, Container StartContainer.
		ImageID   string
		Network   Network
		Container Container
	}
	// Progress tells how far the pull of an image is.
	Progress struct{ Ref, Message string }
	// ImagesChanged: an image was brought to the node; missing ones may be there now.
	ImagesChanged struct{}
	// Probed is one try of a probe.
	Probed struct {
		ContainerID string
		Kind        ProbeKind
		OK          bool
		Message     string
	}
	// Unguarded: a leased container runs, and its watchdog does not.
	Unguarded struct{ ContainerID string }
	// LeaseSet: the watchdog of a container has that lease, which SetLease told.
	// Until it comes, what the watchdog had before is taken to be all that it has.
	LeaseSet struct {
		ContainerID string
		Lease       Lease
	}
	// Slept: the machine was suspended for so long, which the clock of Step did
	// not count and leases do.
	Slept struct{ For time.Duration }
	// Tick lets time act. It is due at NextWake; one too many does no harm.
	Tick struct{}
)

func (Started) event()       {}
func (Connected) event()     {}
func (Disconnected) event()  {}
func (Assigned) event()      {}
func (Endpoints) event()     {}
func (Programmed) event()    {}
func (Granted) event()       {}
func (RuntimeBack) event()   {}
func (Observed) event()      {}
func (Exited) event()        {}
func (Done) event()          {}
func (Progress) event()      {}
func (ImagesChanged) event() {}
func (Probed) event()        {}
func (Unguarded) event()     {}
func (LeaseSet) event()      {}
func (Slept) event()         {}
func (Tick) event()          {}

// Container is a container as the runtime has it.
type Container struct {
	ID          string
	Replica     api.ReplicaKey
	Name        string
	Revision    int64
	Incarnation string
	// Attempt counts the restarts in place before this run, from 0.
	Attempt int
	// Hash is that of StartContainer.
	Hash    string
	ImageID string
	NetNS   string
	IP      string
	Grace   time.Duration
	Running bool
	// Uncertain: the runtime did not tell; Running is true then.
	Uncertain bool
	// Unguarded: it runs under a lease, and its watchdog is dead.
	Unguarded bool
	StartedAt time.Time
	// Healthcheck is its image's; nil: it has none.
	Healthcheck *Healthcheck
	// Exit is nil while it runs, and for a leftover that never started.
	Exit *api.Exit
}

// Healthcheck is how an image says that its containers are asked (HEALTHCHECK).
type Healthcheck struct {
	// Probe has Exec set; its Interval, Timeout and FailureThreshold are the image's.
	Probe api.Probe
	// StartPeriod is how long failures do not count; 0: they always do.
	StartPeriod time.Duration
}

// Network is a replica's network on this node.
type Network struct {
	// NetNS is the path of its namespace.
	NetNS string
	IP    string
}

// Failure is why an effect could not be carried out.
type Failure struct {
	// Reason is one of api's words for waiting; Message is the runtime's.
	Reason, Message string
	// Exit is set by StartContainer where the container itself is at fault: it
	// counts as a run that ended so.
	Exit *api.Exit
}

// ProbeKind says which of a container's probes is meant.
type ProbeKind string

// The probes.
const (
	Readiness ProbeKind = "readiness"
	Liveness  ProbeKind = "liveness"
	Startup   ProbeKind = "startup"
)
