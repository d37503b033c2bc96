package sim

import (
	"fmt"
	"strings"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

// effectTag and coreTag are what an effect's kind adds to the hash.
func effectTag(e plan.Effect) uint64 {
	switch e.(type) {
	case plan.Observe:
		return 1
	case plan.EnsureImage:
		return 2
	case plan.SetupNetwork:
		return 3
	case plan.StartContainer:
		return 4
	case plan.StopContainer:
		return 5
	case plan.RemoveContainer:
		return 6
	case plan.TeardownNetwork:
		return 7
	case plan.PruneNetworks:
		return 8
	case plan.StartProbe:
		return 9
	case plan.StopProbe:
		return 10
	case plan.Report:
		return 11
	case plan.Ack:
		return 12
	case plan.SaveAssignment:
		return 13
	case plan.Resync:
		return 14
	case plan.Wake:
		return 15
	case plan.RunHook:
		return 17
	}
	return 16
}

func coreTag(e core.Effect) uint64 {
	switch e.(type) {
	case core.Commit:
		return 21
	case core.Reply:
		return 22
	case core.SendAssignments:
		return 23
	case core.SendEndpoints:
		return 24
	case core.AskWitness:
		return 25
	case core.CloseSession:
		return 26
	}
	return 27
}

// reportWords is an agent's report in a line; lazily rendered.
type reportWords wire.StatusReport

func (r reportWords) String() string {
	var out []string
	if r.Complete {
		out = append(out, "all it has:")
	}
	for _, x := range r.Replicas {
		out = append(out, fmt.Sprintf("%s %s%s%s", x.Key, x.Status.Phase, map[bool]string{true: " ready"}[x.Status.Ready], orNothing(x.Status.Reason)))
	}
	for _, k := range r.Gone {
		out = append(out, k.String()+" gone")
	}
	return strings.Join(out, ", ")
}

func orNothing(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}
