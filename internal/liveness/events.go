package liveness

import "time"

// Verdict is what the leader holds of a node's life. The zero value is Unknown.
type Verdict uint8

const (
	// Unknown: the node has not reported in this term; its replicas count as last known.
	Unknown Verdict = iota
	// Healthy: beats arrive.
	Healthy
	// AgentLost: the agent is silent, its host and its replicas' ports answer.
	AgentLost
	// Suspect: the agent is silent, and so are its host or its replicas.
	Suspect
	// Dead: this life of the node is over; epochs placed on it are void.
	Dead
	// Back: a node that was agent lost, suspect or dead has a session again, in
	// the same life; it is Healthy once its incumbents are settled.
	Back
)

// String gives the word used in output and documents.
func (v Verdict) String() string {
	words := [...]string{"unknown", "healthy", "agent lost", "suspect", "dead", "back"}
	if int(v) < len(words) {
		return words[v]
	}
	return "invalid verdict"
}

// LeaderObserver is the name under which the leader itself observes. A node of
// this name is never chosen as a witness.
const LeaderObserver = "leader"

// Event is something that the machine is told. Events about nodes that were not
// added (or were removed) do nothing.
type Event interface{ event() }

type (
	// NodeAdded makes a node known. Dead stays Dead; any other last known
	// verdict is kept behind Unknown until the node reports or is found silent:
	// a node last known suspect or agent lost comes back by way of Back. An
	// empty BootID is filled by the first session. Adding a known node does
	// nothing.
	NodeAdded struct {
		Node    string
		Verdict Verdict
		BootID  string
	}

	// NodeRemoved forgets a node.
	NodeRemoved struct{ Node string }

	// SessionOpened says that the agent's stream to this leader is up. WasDead
	// is the durable record's word that this life was dead; it matters only
	// where the machine was not told by NodeAdded.
	SessionOpened struct {
		Node    string
		BootID  string
		WasDead bool
	}

	// SessionClosed says that the node's current session ended; the end of one
	// that a newer session replaced must not be told. Graceful means that the
	// agent said goodbye.
	SessionClosed struct {
		Node     string
		Graceful bool
	}

	// Beat arrives on the node's current session. Seq rises by one within a
	// session, from 1; one that is not above the last is ignored, and so is a
	// beat without a session. Check is what the node knows of its own health.
	Beat struct {
		Node  string
		Seq   uint64
		Check SelfCheck
	}

	// GossipHint is gossip's opinion. It makes the machine look, never decide.
	GossipHint struct {
		Node  string
		Alive bool
	}

	// WitnessReport is what one observer of an ask saw. PortsAsked counts the
	// target's replica ports that were tried (0: it has none), PortsAnswered
	// those that accepted a connection. How is for people ("icmp 0.3ms").
	WitnessReport struct {
		Observer      string
		Target        string
		AskID         uint64
		HostAnswers   bool
		PortsAsked    int
		PortsAnswered int
		How           string
	}

	// OperatorDead is a person's word that the node is dead. Its session, if
	// there is one, must be closed by the caller; the agent may dial again.
	OperatorDead struct{ Node, By string }

	// LeaderStalled says that the leader did not run for so long: that time
	// counts against nobody. Tell it before the Tick that follows the stall.
	LeaderStalled struct{ For time.Duration }

	// LeaderStarted begins a term: no session is left, every node that is not
	// dead is Unknown and has ReconnectGrace to return, except that a node which
	// gossip calls silent is looked at now. Freeze, impairments and dampings end:
	// they are what a leader has seen itself.
	//
	// BootID is that of the leader's own host, to know a node on it by; empty: it
	// is not known.
	LeaderStarted struct{ BootID string }

	// OperatorThaw is a person's word that the freeze is over: what is silent is
	// truly gone.
	OperatorThaw struct{ By string }

	// Reconciled says that the incumbents of a node that is Back are settled.
	Reconciled struct{ Node string }

	// Tick lets time act. It is due at NextWake; one too many does no harm.
	Tick struct{}
)

func (NodeAdded) event()     {}
func (NodeRemoved) event()   {}
func (SessionOpened) event() {}
func (SessionClosed) event() {}
func (Beat) event()          {}
func (GossipHint) event()    {}
func (WitnessReport) event() {}
func (OperatorDead) event()  {}
func (OperatorThaw) event()  {}
func (LeaderStalled) event() {}
func (LeaderStarted) event() {}
func (Reconciled) event()    {}
func (Tick) event()          {}

// SelfCheck is what an agent knows of its own node's health.
type SelfCheck struct {
	// Age of the last good check: a round trip to containerd and an fsync.
	Age time.Duration
	// Failing says what is wrong with the latest check; empty: nothing.
	Failing string
	// IOPressure and MemoryPressure are the shares of the last ten seconds, from 0
	// to 1, in which every task waited; 0 where the kernel does not tell.
	IOPressure, MemoryPressure float64
}

// Effect is something that the machine wants done, with its reason.
type Effect interface{ effect() }

type (
	// SetVerdict changes what is held of a node. To Back with From Dead means
	// that the epochs placed on it are void although its life goes on. Evidence
	// has a line for the silence and one per observer.
	SetVerdict struct {
		Node     string
		From, To Verdict
		Why      string
		// By names whose word it rests on: observers that saw what counts,
		// "operator <name>", "agent" for the node's own word. Empty where it is
		// nobody's but the leader's: a new term, a record, settled incumbents.
		By       []string
		Evidence []string
	}

	// SetImpaired says that a node which beats cannot work, or can again. It is
	// no verdict: the node keeps its replicas and their traffic; it is avoided
	// and, after Limits.ImpairedGrace, relieved. SetVerdict to Dead ends it, too,
	// without a word of its own.
	SetImpaired struct {
		Node     string
		Impaired bool
		Why      string
		Evidence []string
	}

	// SetDamped says that a node went and came back too often: until Until it
	// gets nothing new, and the spares that stand in for its replicas stay. One
	// more return meanwhile says it again, with a later Until. The end comes with
	// Damped false.
	SetDamped struct {
		Node   string
		Damped bool
		Until  time.Time
		Why    string
	}

	// SetFrozen says that so many nodes vanished at once that none is taken for
	// dead for its silence, or that this is over. After Limits.FreezeMax some are
	// all the same, one or a few at a time, and it is still frozen.
	SetFrozen struct {
		Frozen   bool
		Why      string
		Evidence []string
	}

	// NewLife says that the node was booted again: every epoch placed on its old
	// life is void. It follows the SetVerdict to Dead of that life.
	NewLife struct{ Node, OldBoot, NewBoot string }

	// AskWitnesses wants each observer to look at the target now, for at most
	// Timeout, and to report under AskID. Observers are nodes with a session, in
	// the order of choice, and LeaderObserver last.
	AskWitnesses struct {
		Target    string
		AskID     uint64
		Observers []string
		Timeout   time.Duration
	}

	// Wake wants a Tick at a time that is earlier than the one last wanted, or
	// the next one after that has passed. It is NextWake, for drivers that act
	// on effects alone; it may be early.
	Wake struct{ At time.Time }
)

func (SetVerdict) effect()   {}
func (SetImpaired) effect()  {}
func (SetDamped) effect()    {}
func (SetFrozen) effect()    {}
func (NewLife) effect()      {}
func (AskWitnesses) effect() {}
func (Wake) effect()         {}
