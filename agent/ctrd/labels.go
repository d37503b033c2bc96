package ctrd

import (
	"fmt"
	"strconv"
	"time"

	"github.com/orchctl/orch/api"
)

// The labels on a container. labelService marks it as ours.
const (
	labelService     = "orch/service"
	labelNamespace   = "orch/namespace"
	labelSlot        = "orch/slot"
	labelEpoch       = "orch/epoch"
	labelContainer   = "orch/container"
	labelRevision    = "orch/revision"
	labelIncarnation = "orch/incarnation"
	labelAttempt     = "orch/attempt"
	labelSpecHash    = "orch/spec-hash"
	labelImageID     = "orch/image-id"
	labelNetNS       = "orch/netns"
	labelIP          = "orch/ip"
	labelGrace       = "orch/grace"
	labelCgroup      = "orch/cgroup"
	labelStopSignal  = "orch/stop-signal"
	labelLeased      = "orch/leased"
	labelStarted     = "orch/started"  // when its first process was started
	labelStopWhy     = "orch/stop-why" // why Stop was called
)

func labelsOf(s ContainerSpec, imageID, cgroup, stopSignal string) map[string]string {
	l := map[string]string{
		labelService:     s.Replica.Service,
		labelNamespace:   s.Replica.Namespace,
		labelSlot:        strconv.Itoa(s.Replica.Slot),
		labelEpoch:       strconv.FormatUint(s.Replica.Epoch, 10),
		labelContainer:   s.Container.Name,
		labelRevision:    strconv.FormatInt(s.Revision, 10),
		labelIncarnation: s.Incarnation,
		labelAttempt:     strconv.Itoa(s.Attempt),
		labelSpecHash:    s.SpecHash,
		labelImageID:     imageID,
		labelNetNS:       s.NetNS,
		labelIP:          s.IP,
		labelGrace:       s.Grace.String(),
		labelCgroup:      cgroup,
		labelStopSignal:  stopSignal,
	}
	if s.Lease != nil {
		l[labelLeased] = "true"
	}
	return l
}

// observedOf reads the labels back. A label that cannot be read is an error:
// guessing would make one replica's container another's.
func observedOf(id, image string, l map[string]string) (Observed, error) {
	o := Observed{
		ID:          id,
		Replica:     api.ReplicaKey{Namespace: l[labelNamespace], Service: l[labelService]},
		Container:   l[labelContainer],
		Incarnation: l[labelIncarnation],
		SpecHash:    l[labelSpecHash],
		Image:       image,
		ImageID:     l[labelImageID],
		NetNS:       l[labelNetNS],
		IP:          l[labelIP],
		Leased:      l[labelLeased] != "",
	}
	var errs [6]error
	o.Replica.Slot, errs[0] = strconv.Atoi(l[labelSlot])
	o.Replica.Epoch, errs[1] = strconv.ParseUint(l[labelEpoch], 10, 64)
	o.Revision, errs[2] = strconv.ParseInt(l[labelRevision], 10, 64)
	o.Attempt, errs[3] = strconv.Atoi(l[labelAttempt])
	o.Grace, errs[4] = time.ParseDuration(l[labelGrace])
	if s := l[labelStarted]; s != "" {
		o.StartedAt, errs[5] = time.Parse(time.RFC3339Nano, s)
	}
	for _, err := range errs {
		if err != nil {
			return Observed{}, fmt.Errorf("read labels of container %s: %w", id, err)
		}
	}
	return o, nil
}
