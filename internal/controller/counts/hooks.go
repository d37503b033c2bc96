package counts

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// eventKinds are the kinds of what the loop is told.
var eventKinds = []string{"apply", "rollout", "scale", "delete", "node_word", "write", "list_sealed", "reseal", "explain", "recall", "rebalance", "thaw",
	"session_opened", "session_closed", "node_cloned", "status", "acked", "beat", "renew", "witnessed", "gossip", "stalled", "committed", "tick", "other"}

func kindOf(ev core.Event) string {
	switch ev.(type) {
	case core.Beat:
		return "beat"
	case core.Status:
		return "status"
	case core.Acked:
		return "acked"
	case core.Renew:
		return "renew"
	case core.Committed:
		return "committed"
	case core.Tick:
		return "tick"
	case core.Witnessed:
		return "witnessed"
	case core.Gossip:
		return "gossip"
	case core.SessionOpened:
		return "session_opened"
	case core.SessionClosed:
		return "session_closed"
	case core.NodeCloned:
		return "node_cloned"
	case core.Apply:
		return "apply"
	case core.Rollout:
		return "rollout"
	case core.Scale:
		return "scale"
	case core.Delete:
		return "delete"
	case core.NodeWord:
		return "node_word"
	case core.Write:
		return "write"
	case core.ListSealed:
		return "list_sealed"
	case core.Reseal:
		return "reseal"
	case core.Explain:
		return "explain"
	case core.Recall:
		return "recall"
	case core.Rebalance:
		return "rebalance"
	case core.Thaw:
		return "thaw"
	case core.Stalled:
		return "stalled"
	}
	return "other"
}

// Term counts one that began.
func (s *Set) Term() {
	if s != nil {
		s.terms.Inc()
	}
}

// Event counts what the core is told.
func (s *Set) Event(ev core.Event) {
	if s == nil {
		return
	}
	s.events[kindOf(ev)].Inc()
	if x, ok := ev.(core.Stalled); ok {
		s.stalls.Inc()
		s.stalled.Add(x.For.Seconds())
	}
}

// Turn counts one, Worked what the loop did from one wait to the next.
func (s *Set) Turn(took time.Duration) {
	if s != nil {
		s.turn.Observe(took.Seconds())
	}
}

// Worked: see Turn.
func (s *Set) Worked(took time.Duration) {
	if s != nil {
		s.busy.Add(max(0, took.Seconds()))
	}
}

// Commit counts a transaction.
func (s *Set) Commit(operations int, took time.Duration, err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.commits[1].Inc()
		return
	}
	s.commits[0].Inc()
	s.commit.Observe(took.Seconds())
	s.batch.Observe(float64(operations))
}

// outcomes are those of core.Applied.
var outcomes = []string{"created", "configured", "unchanged"}

// Applied counts what a change did, which was no dry run.
func (s *Set) Applied(r core.ApplyResult) {
	if s == nil {
		return
	}
	for _, a := range r.Applied {
		s.applied.WithLabelValues(a.Outcome).Inc()
	}
}

// receivedKinds and sentKinds are the kinds of sessions' messages.
var (
	receivedKinds = []string{"hello", "status", "beat", "witness", "renewal", "ack", "other"}
	sentKinds     = []string{"welcome", "assignments", "endpoints", "network", "grant", "ask_witness", "open_relay", "beat_answer", "other"}
)

// Received counts a message of an agent.
func (s *Set) Received(m *orchv1.AgentMessage) {
	if s == nil {
		return
	}
	kind := "other"
	switch m.GetMessage().(type) {
	case *orchv1.AgentMessage_Beat:
		kind = "beat"
	case *orchv1.AgentMessage_Status:
		kind = "status"
	case *orchv1.AgentMessage_Hello:
		kind = "hello"
	case *orchv1.AgentMessage_Witness:
		kind = "witness"
	case *orchv1.AgentMessage_Renewal:
		kind = "renewal"
	case *orchv1.AgentMessage_Ack:
		kind = "ack"
	}
	s.received[kind].Inc()
}

// Sent counts a message to an agent.
func (s *Set) Sent(m *orchv1.ControllerMessage) {
	if s == nil {
		return
	}
	kind := "other"
	switch m.GetMessage().(type) {
	case *orchv1.ControllerMessage_BeatAnswer:
		kind = "beat_answer"
	case *orchv1.ControllerMessage_Welcome:
		kind = "welcome"
	case *orchv1.ControllerMessage_Assignments:
		kind = "assignments"
	case *orchv1.ControllerMessage_Endpoints:
		kind = "endpoints"
	case *orchv1.ControllerMessage_Network:
		kind = "network"
	case *orchv1.ControllerMessage_Grant:
		kind = "grant"
	case *orchv1.ControllerMessage_AskWitness:
		kind = "ask_witness"
	case *orchv1.ControllerMessage_OpenRelay:
		kind = "open_relay"
	}
	s.sent[kind].Inc()
}

// Opened counts a session, and gives what its beats are told to; nil in a nil set.
func (s *Set) Opened(node string) *Beats {
	if s == nil {
		return nil
	}
	s.opened.Inc()
	return &Beats{set: s, last: s.beats.of(node)}
}

// Closed counts a session's end; goodbye: its agent ended it in order.
func (s *Set) Closed(goodbye bool) {
	switch {
	case s == nil:
	case goodbye:
		s.left.Inc()
	default:
		s.closed.Inc()
	}
}

// Beats are those of one session. It is told by one goroutine.
type Beats struct {
	set  *Set
	last *atomic.Int64 // the node's, over its sessions; Unix nanoseconds
	some bool          // this session had one: the first one has no time to be late to
}

// Came tells of one; interval is what was agreed.
func (b *Beats) Came(now time.Time, interval time.Duration) {
	if b == nil {
		return
	}
	before := b.last.Swap(now.UnixNano())
	if b.some {
		late := now.Sub(time.Unix(0, before)) - interval
		b.set.late.Observe(max(0, late.Seconds()))
	}
	b.some = true
}

// beats are when each node's last one came.
type beats struct {
	mu   sync.Mutex
	last map[string]*atomic.Int64
}

func (b *beats) of(node string) *atomic.Int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		b.last = map[string]*atomic.Int64{}
	}
	if b.last[node] == nil {
		b.last[node] = new(atomic.Int64)
	}
	return b.last[node]
}

// at gives a node's last beat; zero: none was heard here.
func (b *beats) at(node string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.last[node]; last != nil && last.Load() != 0 {
		return time.Unix(0, last.Load())
	}
	return time.Time{}
}

func (b *beats) forget(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, node)
}
