package core

import (
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

// Event is something that the core is told.
type Event interface{ event() }

type (
	// Apply creates or changes all of them, or none: Configs first, so that services and
	// jobs of the same apply find them. Answered by a Reply with an ApplyResult, in the
	// order Configs, Services, Jobs.
	Apply struct {
		Ticket   uint64
		Configs  []ConfigChange
		Services []*api.Service
		Jobs     []*api.Job
		DryRun   bool
		// MustNotExist refuses it if one of them exists.
		MustNotExist bool
		RequestID    string
		By           string
		// Images are the digests that references meant just now; see api.Revision.
		Images map[string]string
		// Trace is a W3C traceparent, which goes with what follows from the change to the
		// agents; empty: none. It is not kept.
		Trace string
	}
	// Rollout is an operator's word on a service's rollout: "pause", "resume", "undo"
	// or "restart". Answered with an ApplyResult of one service.
	Rollout struct {
		Ticket uint64
		Key    api.Key
		Word   string
		Trace  string // see Apply
		// Revision that "undo" goes back to; 0: the last before the newest that was
		// rolled out well.
		Revision  int64
		RequestID string
		By        string
		// Images are the digests that references mean just now, for "restart"; see
		// api.Revision.
		Images map[string]string
	}
	// Scale changes the number of replicas only. Current below 0 means any.
	Scale struct {
		Ticket    uint64
		Key       api.Key
		Replicas  int
		Current   int
		RequestID string
		By        string
		Trace     string // see Apply
	}
	// Delete removes services, jobs, Configs, Secrets and volumes; answered with a
	// DeleteResult. What is still used of the last three is refused, with its users.
	Delete struct {
		Ticket        uint64
		Refs          []api.Ref
		IgnoreMissing bool
		// DryRun changes nothing, and answers the same.
		DryRun    bool
		RequestID string
		By        string
	}
	// NodeWord is an operator's word: "dead", "cordon", "uncordon", "drain",
	// "remove" or "remove-orphans". "uncordon" ends a drain, too.
	NodeWord struct {
		Ticket uint64
		Node   string
		Word   string
		// Force: "dead" also of a node that answers, "remove" of one whose name is free:
		// it may have dialled again while it was removed.
		Force bool
		// Deadline of a drain, from now; 0: none.
		Deadline time.Duration
		By       string
	}
	// Rebalance moves replicas to where they would be placed today; answered with a
	// RebalanceResult.
	Rebalance struct {
		Ticket uint64
		DryRun bool
		By     string
	}
	// Write stores what other parts of the controller own (tokens, names bound
	// to keys), fenced and ordered like everything else. Answered with nil.
	Write struct {
		Ticket uint64
		Ops    []store.Op
	}
	// ListSealed asks for versions of Secrets that are not sealed by the key named
	// Except ("": by whichever), Max at most (0: all), in the order of their names and
	// versions; answered with []Sealed. Reseal puts them back, sealed anew; answered with
	// nil. One that is gone or was changed since is passed over.
	ListSealed struct {
		Ticket uint64
		// Of limits it to the versions of one Secret; zero: of all.
		Of     api.Key
		Except string
		Max    int
	}
	Reseal struct {
		Ticket  uint64
		Secrets []Sealed
	}
	// Explain asks how each node fits a service's next replica or, with Replica, that
	// one, were it placed anew: its slot is that of the service of Key, and an epoch of 0
	// means one that is pending. Answered with []scheduler.NodeExplanation; of a slot that
	// is bound to a node only that one's.
	Explain struct {
		Ticket  uint64
		Key     api.Key
		Replica *api.ReplicaKey
	}

	// Recall asks for what is kept of the ends of a service's replicas, also of those
	// that are gone and of a service that is; answered with Recalled.
	Recall struct {
		Ticket uint64
		Key    api.Key
	}

	// SessionOpened: an agent's stream is up. Session rises with each.
	SessionOpened struct {
		Node    string
		Session uint64
		Hello   wire.Hello
	}
	// NodeCloned: another machine came with the node's name and key while its session
	// lives, and was refused.
	NodeCloned struct{ Node, Why string }
	// SessionClosed: the stream ended. Ignored unless it is the current one.
	SessionClosed struct {
		Node     string
		Session  uint64
		Graceful bool
	}
	// Status is an agent's report over its current session.
	Status struct {
		Node    string
		Session uint64
		Report  wire.StatusReport
	}
	// Acked: the node leads traffic and answers names by the endpoints of this
	// version, and will not go back behind it.
	Acked struct {
		Node            string
		Session         uint64
		EndpointVersion uint64
	}
	// Beat: see liveness.Beat.
	Beat struct {
		Node    string
		Session uint64
		Seq     uint64
		Check   wire.SelfCheck
	}
	// Renew asks for leases over the node's current session; answered by
	// SendGrant once a quorum has confirmed this leader.
	Renew struct {
		Node    string
		Session uint64
		Renewal wire.Renewal
	}
	// Thaw is an operator's word that the freeze of verdicts is over.
	Thaw struct {
		Ticket uint64
		By     string
	}
	// Witnessed is what an observer saw; Observer is liveness.LeaderObserver for
	// the leader's own look.
	Witnessed struct {
		Observer      string
		Target        string
		AskID         uint64
		HostAnswers   bool
		PortsAsked    int
		PortsAnswered int
		How           string
	}
	// Gossip is a hint.
	Gossip struct {
		Node  string
		Alive bool
	}
	// Stalled: the leader itself did not run for so long.
	Stalled struct{ For time.Duration }
	// Committed is the result of a Commit. Err means that this leader must
	// resign: nothing held will ever be released.
	Committed struct {
		Seq uint64
		Rev int64
		Err error
	}
	// Tick lets time act; due at NextWake.
	Tick struct{}
)

func (Apply) event()         {}
func (Rollout) event()       {}
func (Scale) event()         {}
func (Delete) event()        {}
func (NodeWord) event()      {}
func (Write) event()         {}
func (ListSealed) event()    {}
func (Reseal) event()        {}
func (Explain) event()       {}
func (Recall) event()        {}
func (SessionOpened) event() {}
func (NodeCloned) event()    {}
func (SessionClosed) event() {}
func (Status) event()        {}
func (Acked) event()         {}
func (Rebalance) event()     {}
func (Beat) event()          {}
func (Renew) event()         {}
func (Thaw) event()          {}
func (Witnessed) event()     {}
func (Gossip) event()        {}
func (Stalled) event()       {}
func (Committed) event()     {}
func (Tick) event()          {}

// Effect is something that the core wants done.
type Effect interface{ effect() }

type (
	// Commit wants one atomic, fenced transaction. One is out at a time.
	Commit struct {
		Seq uint64
		Ops []store.Op
	}
	// Reply answers the event that carried Ticket.
	Reply struct {
		Ticket uint64
		Value  any
		Err    error
	}
	// SendAssignments and SendEndpoints go down a session, in order.
	SendAssignments struct {
		Node    string
		Session uint64
		Set     wire.AssignmentSet
	}
	SendEndpoints struct {
		Node    string
		Session uint64
		Set     wire.EndpointSet
	}
	// SendNetwork goes down a session, before its first assignments.
	SendNetwork struct {
		Node    string
		Session uint64
		Set     wire.NetworkSet
	}
	// SendGrant goes down a session; it waits for nothing but the quorum's word.
	SendGrant struct {
		Node    string
		Session uint64
		Grant   wire.Grant
	}
	// AskWitness wants an observer to look at a target; Session is 0 for the
	// leader's own look (Observer is liveness.LeaderObserver).
	AskWitness struct {
		Observer string
		Session  uint64
		Ask      wire.Ask
	}
	// CloseSession ends a session that may not go on.
	CloseSession struct {
		Node    string
		Session uint64
		Why     string
	}
	// Publish changes the view that reads are served from.
	Publish struct {
		Put  []Entry
		Gone []ViewKey
	}
)

func (Commit) effect()          {}
func (Reply) effect()           {}
func (SendAssignments) effect() {}
func (SendEndpoints) effect()   {}
func (SendNetwork) effect()     {}
func (SendGrant) effect()       {}
func (AskWitness) effect()      {}
func (CloseSession) effect()    {}
func (Publish) effect()         {}

// ViewKey is a published object's place in the view. Name is unique within kind
// and namespace: for replicas "web-0@17" ("web-0" while pending), for events
// the sequence number.
type ViewKey struct{ Kind, Namespace, Name string }

// Entry is one published object: an *api.Service, *api.Replica, *api.Node,
// *api.Event, *api.Endpoint (named "web-0@17"), *api.VerdictRecord (named "n1/17"),
// *api.Revision (named "web@3"), *api.Fleet ("fleet"), *api.Config (of both kinds; of a
// Secret without values), *api.Job, *api.Outcome (named "migrate@3") or *api.Volume
// (named "data.web-0"), never changed after it was published.
type Entry struct {
	Key    ViewKey
	Object any
}

// ConfigChange is a Config or Secret that is applied. The core does not read its values.
type ConfigChange struct {
	Kind     string
	Metadata api.Metadata
	// Type of a Secret.
	Type api.SecretType
	// Keys with the size of each value in bytes.
	Keys map[string]int
	// Payload is what is stored and sent to sessions: the canonical JSON of an api.Config
	// with Data and BinaryData alone; of a Secret sealed by the key named SealedBy.
	Payload  []byte
	SealedBy string
	// Digest is the same for the same values and SealedBy; it tells nobody else anything.
	Digest string
}

// Sealed is one version of a Secret as it is stored.
type Sealed struct {
	Version  wire.ConfigKey
	Payload  []byte
	SealedBy string
	Digest   string
}

// Applied says what an apply did to one object; one of the first three is set.
type Applied struct {
	Service *api.Service
	Job     *api.Job
	// Config has no values where it is a Secret.
	Config *api.Config
	// Outcome is "created", "configured" or "unchanged".
	Outcome string
	// Plan says in words what the first pass will do; only for dry runs.
	Plan []string
}

// ApplyResult answers Apply and Scale.
type ApplyResult struct{ Applied []Applied }

// Move is one replica that Rebalance moves.
type Move struct {
	Replica api.ReplicaKey
	From    string
	// To is the node that fits best now; the scheduler has the last word.
	To  string
	Why string
}

// RebalanceResult answers Rebalance. Before and After are the fleet's imbalance,
// from 0 to 1.
type RebalanceResult struct {
	Moves         []Move
	Before, After float64
}

// DeleteResult answers Delete.
type DeleteResult struct{ Deleted, Missing []api.Ref }
