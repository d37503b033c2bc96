package session

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// silentBeats and silentMin: a session that was not heard of for so long has lost its
	// machine, as far as a newcomer of its name is concerned.
	silentBeats, silentMin = 3, 300 * time.Millisecond
	// cloneWait is how long a newcomer waits at most, where beats come often, until it is
	// clear whether the session before it lives. A machine that was booted has been silent
	// for longer, and does not wait at all.
	cloneWait = time.Second
	// cloneLook is how often that is looked at.
	cloneLook = 20 * time.Millisecond
)

// sameMachine tells whether two hellos can be of one agent that dialled again.
func sameMachine(a, b wire.Hello) bool { return a.BootID == b.BootID && a.Address == b.Address }

// unlessCloned refuses a session whose node has another one that lives, on another
// machine: a new boot id voids what ran in the life before, so two machines with a copy of
// one key would make each other's replicas be given up, over and over. Whether a node lives
// is not judged here: that is the core's, which hears of the newcomer only if it is let in.
func (s *Server) unlessCloned(x *session) error {
	old := s.find(x.node, 0)
	if old == nil || sameMachine(old.said, x.said) {
		return nil
	}
	every, arrived := s.cfg.BeatInterval(), time.Now()
	// Where beats are very rare a copy may be let in: an agent does not wait for ever.
	limit := min(max(cloneWait, silentBeats*every), helloTimeout/2)
	tick := time.NewTicker(cloneLook)
	defer tick.Stop()
	for {
		// What the machine sent before it went may still be read now, all at once; a beat
		// that comes later than the next one is due was sent by one that lives.
		if heard := old.lastHeard(); heard.Sub(arrived) >= min(every, limit/2) {
			return s.refuseClone(old, x)
		} else if time.Since(heard) >= max(silentBeats*every, silentMin) {
			return nil
		}
		if s.find(x.node, old.id) == nil || time.Since(arrived) >= limit {
			return nil
		}
		select {
		case <-tick.C:
		case <-old.ctx.Done():
			return nil
		case <-x.ctx.Done():
			return nil // it will not be registered
		}
	}
}

func (s *Server) refuseClone(old, x *session) error {
	why := fmt.Sprintf("two machines go by its name and key: the one at %s (boot id %s, connected since %s) goes on; the one at %s (boot id %s) is refused",
		old.said.Address, old.said.BootID, old.since.UTC().Format(time.RFC3339), x.said.Address, x.said.BootID)
	s.cfg.Log.Warn("node cloned", "node", x.node, "why", why)
	if err := x.term.Tell(x.ctx, core.NodeCloned{Node: x.node, Why: why}); err != nil {
		return err
	}
	return status.Error(codes.AlreadyExists, fmt.Sprintf("node %s: %s. A data folder was copied: on the machine that has the copy stop the agent, empty the folder pki in its data folder, and let it join under a name of its own with a fresh token (\"orchctl token create --role node\")", x.node, why))
}

// hear notes that something came from the agent.
func (x *session) hear() { x.heard.Store(int64(time.Since(x.began))) }

func (x *session) lastHeard() time.Time { return x.began.Add(time.Duration(x.heard.Load())) }
