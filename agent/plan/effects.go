package plan

import (
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Effect is something that the core wants done. Those with an ID are answered
// by Done (Observe by Observed); each may be carried out more than once, over
// restarts of the agent.
type Effect interface{ effect() }

type (
	// Observe wants all containers of ours listed, those of other incarnations too.
	Observe struct {
		ID  uint64
		Why string
	}
	// EnsureImage wants the image on this node.
	EnsureImage struct {
		ID  uint64
		Ref string
		// Never: no registry is asked.
		Never bool
		// Incarnation of the store that the versions of Logins are of.
		Incarnation string
		// Logins are Secrets of type registry that may be used; who carries it out has the
		// values.
		Logins []wire.ConfigKey
		// Trace: see wire.Assignment.
		Trace string
		Why   string
	}
	// SetupNetwork wants a network for the replica, or with HostNetwork the node's
	// own. One that is there already is given as it is.
	SetupNetwork struct {
		ID          uint64
		Replica     api.ReplicaKey
		Revision    int64
		HostNetwork bool
		// Trace: see wire.Assignment.
		Trace string
		Why   string
	}
	// StartContainer wants one run of a container.
	// Container has its variables resolved and its image pinned.
	StartContainer struct {
		ID       uint64
		Replica  api.ReplicaKey
		Revision int64
		// ServiceUID tells a service from one of its name that was deleted.
		ServiceUID  string
		Incarnation string
		Attempt     int
		Container   api.Container
		ImageID     string
		// Network of the replica, or with HostNetwork the node's own.
		Network     Network
		HostNetwork bool
		Grace       time.Duration
		Hash        string
		// Sysctls are the replica's.
		Sysctls map[string]string
		// Configs are the versions of what Container takes values of, by EnvFrom, Env and
		// Mounts; who carries it out has the values.
		Configs map[api.ConfigRef]int64
		// Lease is nil for a container that needs none.
		Lease *Lease
		// Trace: see wire.Assignment.
		Trace string
		Why   string
	}
	// Renew goes up the session, stamped with the time since boot at which it was
	// sent; answered by Granted with the same ID.
	Renew struct{ Renewal wire.Renewal }
	// SetLease gives the watchdog of a container that runs a later end; it is
	// carried out at once, and again with every renewal; answered by LeaseSet when
	// it is done. An end that is past is no failure: the watchdog has acted.
	SetLease struct {
		ContainerID string
		Lease       Lease
	}
	// RunHook carries out a container's hook, for Timeout at most. Patient: where nothing
	// listens yet, as right after a start, it waits. It is over before that with its
	// container, and with the next hook or StopContainer of that.
	RunHook struct {
		ID          uint64
		ContainerID string
		Hook        api.Hook
		IP          string
		// Port is the number for HTTP.
		Port    int
		Timeout time.Duration
		Patient bool
		Why     string
	}
	// StopContainer ends a container: the stop signal with which it was made, after
	// Grace SIGKILL. Cause goes into its exit: api.ExitLivenessFailed,
	// api.ExitStartupFailed, api.ExitHookFailed, or words.
	StopContainer struct {
		ID          uint64
		ContainerID string
		Grace       time.Duration
		Cause       string
		Why         string
	}
	// RemoveContainer removes what is left of a container that does not run.
	RemoveContainer struct {
		ID          uint64
		ContainerID string
		Why         string
	}
	// TeardownNetwork removes the replica's network; one that is not there is
	// no failure.
	TeardownNetwork struct {
		ID      uint64
		Replica api.ReplicaKey
		Why     string
	}
	// PruneNetworks removes all replica networks but these. Answered by Done; a
	// failure is left to the next complete set.
	PruneNetworks struct {
		ID   uint64
		Keep []api.ReplicaKey
		Why  string
	}
	// RemoveVolume deletes a volume with what is in it; one that is not there is no
	// failure. No container has it mounted.
	RemoveVolume struct {
		ID     uint64
		Volume api.VolumeKey
		Why    string
	}
	// ForgetReplica: nothing of it is left; files that were kept for it (its
	// output) may go by their own limits.
	ForgetReplica struct{ Replica api.ReplicaKey }
	// StartProbe wants a container probed until StopProbe. Every try is told as
	// Probed; tries never overlap.
	StartProbe struct {
		ContainerID string
		Kind        ProbeKind
		Probe       api.Probe
		IP          string
		// Port is the number for HTTP and TCP.
		Port int
		// First is the delay before the first try. Soon is the interval after it,
		// which doubles up to Until until the first success; Interval is the one
		// afterwards.
		First, Soon, Until, Interval, Timeout time.Duration
		Why                                   string
	}
	// StopProbe ends it; results that come later are ignored.
	StopProbe struct {
		ContainerID string
		Kind        ProbeKind
	}
	// Report goes up the session.
	Report struct{ Report wire.StatusReport }
	// Balance wants traffic led, and names answered, by these; answered by
	// Programmed with its Mark, or a later one's. Complete: these are all; else
	// they change what was before. Marks rise from 1 over the agent's life.
	Balance struct {
		Mark         uint64
		Complete     bool
		Put          []wire.Endpoint
		Drop         []api.ReplicaKey
		Services     []wire.Service
		DropServices []api.Key
	}
	// Ack goes up the session. EndpointVersion is the highest that is in force.
	Ack struct {
		AssignmentSequence uint64
		EndpointVersion    uint64
	}
	// SaveAssignment wants this on disk; a later one replaces it.
	SaveAssignment struct{ Saved Saved }
	// Resync wants the session ended and dialled again, for a complete set.
	Resync struct{ Why string }
	// Wake wants a Tick at this time; it replaces the one wanted before.
	Wake struct{ At time.Time }
)

func (Observe) effect()         {}
func (EnsureImage) effect()     {}
func (SetupNetwork) effect()    {}
func (StartContainer) effect()  {}
func (RunHook) effect()         {}
func (StopContainer) effect()   {}
func (RemoveContainer) effect() {}
func (TeardownNetwork) effect() {}
func (PruneNetworks) effect()   {}
func (RemoveVolume) effect()    {}
func (ForgetReplica) effect()   {}
func (StartProbe) effect()      {}
func (StopProbe) effect()       {}
func (Renew) effect()           {}
func (SetLease) effect()        {}
func (Report) effect()          {}
func (Balance) effect()         {}
func (Ack) effect()             {}
func (SaveAssignment) effect()  {}
func (Resync) effect()          {}
func (Wake) effect()            {}

// Lease is when a container must end, in time since boot (CLOCK_BOOTTIME): it is
// sent SIGTERM at Term, and nothing of it is left alive from Kill on, by the
// watchdog beside it if the agent is not there to do so.
type Lease struct{ Term, Kill time.Duration }

// Saved is the last assignment, as it lies on disk: enough to go on without a
// controller. It never holds secrets.
type Saved struct {
	Incarnation string `json:"incarnation"`
	// StoreRevision at which the set was last known whole.
	StoreRevision int64 `json:"storeRevision"`
	// BootID is the node's life in which the assignment was given.
	BootID      string            `json:"bootID"`
	Assignments []wire.Assignment `json:"assignments"`
	// Anew are those of them whose init containers have to be run again, because the
	// node was off since they were.
	Anew []api.ReplicaKey `json:"anew,omitempty"`
}
