package session

import (
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// opened gives the set with the values of its Configs and Secrets, as a node needs
// them. What cannot be opened is left out: its replicas wait on the node and say what they
// lack, which others on it do not suffer from. It runs in the session's goroutine, and
// leaves the set, which is the core's, as it is.
func (s *Server) opened(e core.SendAssignments) wire.AssignmentSet {
	set := e.Set
	if len(set.Configs) == 0 {
		return set
	}
	set.Configs = make([]wire.ConfigVersion, 0, len(e.Set.Configs))
	size := 0
	for _, v := range e.Set.Configs {
		log := s.cfg.Log.With("node", e.Node, "config", v.String())
		values, err := s.cfg.OpenConfig(v)
		if err != nil {
			log.Error("values cannot be sent to a node: what needs them waits there", "error", err)
			continue
		}
		its := 0
		for k, data := range values {
			its += len(k) + len(data)
		}
		if size+its > wire.ConfigsMax {
			log.Error("values are too many for one node: what needs them waits there", "bytes", its, "limit", wire.ConfigsMax)
			continue
		}
		size += its
		set.Configs = append(set.Configs, wire.ConfigVersion{ConfigKey: v.ConfigKey, Values: values})
	}
	return set
}
