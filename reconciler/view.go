package reconciler

import (
	"fmt"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// View is one service as the leader holds it, with all that Plan needs.
type View struct {
	Service api.Key
	// Deleting asks for everything to be removed; Replicas is then ignored.
	Deleting bool
	// Replicas and Revision are what is wanted. Below zero counts as zero.
	Replicas int
	Revision int64
	// MaxSurge and MaxUnavailable are counts, shares resolved. Both zero would
	// forbid every rollout: MaxUnavailable then counts as 1.
	MaxSurge, MaxUnavailable int
	// Stable is the last revision that was rolled out well, 0: none. What a slot that
	// the rollout has not come to loses is filled with it.
	Stable int64
	// Held bounds the rollout: it has come to AtMost slots, and no further while Held.
	Held   bool
	AtMost int
	// Recreate: nothing of the wanted revision starts before all of others is gone.
	Recreate bool
	// MinReady is how long a filling of the wanted revision has to be ready to count
	// as available.
	MinReady time.Duration
	// Global: one filling on each of Seats' nodes, in the slot that is given there, no slot and
	// no node twice. Replicas is ignored, and there are no spares and no surge.
	Global bool
	// Bound: slots keep something on their nodes that does not move (volumes). There is one
	// filling in each of Seats, on its node; several may be on one node. Replicas is
	// ignored, and there are no spares and no surge.
	Bound bool
	Seats []Seat
	// Exclusive: a slot may never have two running containers. There are no
	// spares then and no surge; a slot is filled again when nothing that was in
	// it can still run. It is to be set as long as the wanted revision or that of
	// any filling asks for it.
	Exclusive bool
	// Fenced tells of wanted slots from when on nothing that was in them before,
	// and is no longer among Fillings, can still run; a slot not in it is free.
	// Only for Exclusive.
	Fenced map[int]time.Time
	// Fillings are the committed placements of the service that are not yet
	// known to be gone, sorted by slot, then epoch. A Create that could not be
	// placed is none of them.
	Fillings []Filling
}

// Seat is a node's slot in a global service, or a slot that is bound to a node.
type Seat struct {
	Slot int
	// Node is empty where a slot is not bound yet: any will do, but those of Avoid.
	Node  string
	Avoid []string
	// Closed: what is there stays, but nothing new is placed, nor does a rollout come to it.
	Closed bool
	// Leave says why what is there is to go and nothing else is to come; empty: it is
	// to have a filling.
	Leave string
}

// Filling is one committed placement and what is known of it.
type Filling struct {
	Key      api.ReplicaKey
	Revision int64
	Node     string
	// Verdict is the node's; empty counts as Unknown.
	Verdict api.Verdict
	// Phase is what the node's agent last reported. Empty, Pending and Assigned
	// say that the agent has not reported the filling yet.
	Phase api.Phase
	// Ready is as last known, ReadySince zero while not ready.
	Ready      bool
	ReadySince time.Time
	// Final: one of its containers has ended and is not to be started again, so that
	// it will never be ready, though others of it may run on.
	Final bool
	// Succeeded: each container of a job's has ended, with code 0. Only with a Phase that
	// is an end.
	Succeeded bool
	// Stopping: its removal is committed already.
	Stopping bool
	// Spare: it was created because the slot's incumbent could not be reached, or
	// is being relieved.
	Spare bool
	// Leased: its revision runs only under a lease. One that is not (the service
	// became exclusive just now) has no fence: nothing ends it but its own agent,
	// or the end of its node. Only for Exclusive.
	Leased bool
	// FencedAt is from when on it surely runs no more if nothing is heard from
	// its node: when its last lease has ended. Zero: it never had one, and so
	// never ran, or its node, being Dead, has booted since. Nothing unless Leased.
	// Only for Exclusive.
	FencedAt time.Time
	// Relieve says why it is to be replaced start-first (Exclusive: stop-first)
	// though it runs: its agent is lost for long, or its node cannot work. Empty:
	// it is not to be. Whoever sets it has budgeted it. While it is Stopping it
	// needs no budget: then Relieve says that its end may take for ever, so that
	// nothing waits for its room.
	Relieve string
	// Overdue: its node was to be empty by now. It goes although nothing has taken
	// its place, within the floor.
	Overdue bool
	// Damped: its node went and came back too often. A spare that is ready beside
	// it stays.
	Damped bool

	wasReady bool // Ready, though its lease may have ended since
}

// Op is what an action does.
type Op string

// The operations.
const (
	Void   Op = "Void"   // the node's life is over: nothing is there to stop, the record just goes
	Adopt  Op = "Adopt"  // a spare becomes the slot's replica: clears Spare
	Remove Op = "Remove" // committed as stopping; the agent stops it with its grace
	Create Op = "Create" // a new filling, with an epoch that the core gives
)

// opOrder sorts a slot's actions the way that they are best read: what is
// lost, what stays, what goes, what comes.
var opOrder = map[Op]int{Void: 0, Adopt: 1, Remove: 2, Create: 3}

// Action is one step that the core is to commit.
type Action struct {
	Op Op
	// Key is the filling; for Create its Epoch is zero, not yet given.
	Key api.ReplicaKey
	// Revision is the filling's.
	Revision int64
	// Spare, Avoid, Rather and On are set for Create only. Avoid are nodes not to use,
	// sorted; Rather those to use only if no other is fit; On is the only one to use,
	// empty: any.
	Spare  bool
	Avoid  []string
	Rather []string
	On     string
	// Relief: the Create or Remove is there because of Filling.Relieve.
	Relief bool
	// Why is the reason, a clause in words.
	Why string
}

// String gives "Create default/web-0 revision 2 spare, not on n1: n1 suspect: ...".
func (a Action) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", a.Op, a.Key.ServiceKey())
	fmt.Fprintf(&b, "-%d", a.Key.Slot)
	if a.Op != Create {
		fmt.Fprintf(&b, "@%d", a.Key.Epoch)
	}
	fmt.Fprintf(&b, " revision %d", a.Revision)
	if a.Spare {
		b.WriteString(" spare")
	}
	if len(a.Avoid) > 0 {
		fmt.Fprintf(&b, ", not on %s", strings.Join(a.Avoid, ", "))
	}
	if len(a.Rather) > 0 {
		fmt.Fprintf(&b, ", rather not on %s", strings.Join(a.Rather, ", "))
	}
	return b.String() + ": " + a.Why
}

// Decision is what Plan returns.
type Decision struct {
	// Actions are sorted by slot, then operation, then epoch. They belong
	// together: commit all of them or none, Creates that find no node apart.
	Actions []Action
	// Wake is when to plan again though nothing changed: when the next slot that
	// waits for a fence may be filled, or a filling counts by MinReady. Zero for not
	// at all.
	Wake time.Time
	// Counted is how many slots have a filling of the wanted revision that counts, of
	// the Slots that the rollout is to come to: all, but for a closed Seat that has
	// another revision.
	Counted, Slots int
	// Waiting says in words what is still on its way or in the way; empty once
	// every slot has one ready filling of the wanted revision.
	Waiting []string
}

// ready tells whether it was serving when last heard of.
func (f *Filling) ready() bool { return f.Ready && !f.ended() }

// ended tells whether it came to its end by its restart policy.
func (f *Filling) ended() bool { return f.Phase.Ended() }

// heard tells whether its node's agent is in a session now.
func (f *Filling) heard() bool {
	return f.Verdict == api.VerdictHealthy || f.Verdict == api.VerdictBack
}

func (f *Filling) suspect() bool { return f.Verdict == api.VerdictSuspect }

// relieved tells whether it is to be replaced though it may run well. A suspect
// one is simply suspect.
func (f *Filling) relieved() bool { return f.Relieve != "" && !f.suspect() }

// doubtful tells whether something is to run in its place.
func (f *Filling) doubtful() bool { return f.suspect() || f.relieved() }

// serving tells whether it surely serves now and may go on with it.
func (f *Filling) serving() bool { return f.reported() && f.ready() && !f.relieved() }

// over tells whether it ended before its agent was lost: an end is final, and so
// what is relieved need not be heard to go.
func (f *Filling) over() bool { return f.relieved() && f.ended() }

// holdsRoom tells whether something else has to wait for its room. What is
// stopping where nobody can stop it, now or for long, is not waited for; a node that
// is drained can.
func (f *Filling) holdsRoom() bool { return !f.Stopping || !f.doubtful() || f.Overdue && f.heard() }

// fenced tells whether it surely runs no more, whatever is heard of it. That it
// was seen running belies that it never had a lease.
func (f *Filling) fenced(now time.Time) bool {
	if f.FencedAt.IsZero() {
		return f.Leased && (f.ended() || !api.PhasePreparing.Before(f.Phase))
	}
	return f.Leased && !f.FencedAt.After(now)
}

// available tells whether it makes its slot count as available: only what
// stands against it is a node of which nothing is to be expected now.
func (f *Filling) available() bool {
	return !f.Stopping && f.ready() && !f.suspect() && f.Verdict != api.VerdictDead
}

// reported tells whether its agent, being heard, has said how it is.
func (f *Filling) reported() bool {
	return f.heard() && api.PhaseAssigned.Before(f.Phase)
}

// known tells whether Ready can be relied on. On a node that is back a filling
// not yet reported may well be running; on a healthy one Assigned means that it
// was placed just now.
func (f *Filling) known() bool {
	return f.reported() || f.Verdict == api.VerdictHealthy && f.Phase != ""
}

// name gives "web-2@9"; the namespace is known from the service.
func (f *Filling) name() string { return fmt.Sprintf("%s@%d", f.Key.Name(), f.Key.Epoch) }
