package ctrd

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/orchctl/orch/api"
)

// Healthcheck is how an image says that its containers are asked (HEALTHCHECK).
type Healthcheck struct {
	// Probe has Exec, Interval, Timeout and FailureThreshold set: the image's, and
	// docker's defaults where it names none, for it was written with them in mind.
	Probe api.Probe
	// StartPeriod is how long failures do not count; 0: they always do.
	StartPeriod time.Duration
}

// What an image means that does not say it, as docker has it.
const (
	healthInterval = 30 * time.Second
	healthTimeout  = 30 * time.Second
	healthRetries  = 3
	// healthStartMax: beyond a day an image means never, and sums of it overflow.
	healthStartMax = 24 * time.Hour
)

// healthConfig is docker's extension of an image's config; times are in
// nanoseconds, 0 stands for the defaults above.
type healthConfig struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// healthcheckOf reads an image's config; shell is what it wants commands run by,
// empty means /bin/sh. NONE, and what is not understood, is nil.
func healthcheckOf(c *healthConfig, shell []string) *Healthcheck {
	if c == nil || len(c.Test) < 2 {
		return nil
	}
	var command []string
	switch c.Test[0] {
	case "CMD":
		command = c.Test[1:]
	case "CMD-SHELL":
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = slices.Concat(shell, c.Test[1:2])
	default:
		return nil
	}
	h := &Healthcheck{Probe: api.Probe{Exec: &api.ExecProbe{Command: command}, FailureThreshold: healthRetries}, StartPeriod: min(max(0, c.StartPeriod), healthStartMax)}
	if c.Retries > 0 {
		h.Probe.FailureThreshold = min(c.Retries, api.MaxThreshold)
	}
	h.Probe.Interval = atLeast(c.Interval, healthInterval)
	h.Probe.Timeout = atLeast(c.Timeout, healthTimeout)
	return h
}

// atLeast keeps an image from burning a node, as manifests are kept from it.
func atLeast(d, missing time.Duration) *api.Duration {
	if d <= 0 {
		d = missing
	}
	out := api.Duration(max(d, api.MinProbeInterval))
	return &out
}

// healthExtension is where a container carries its image's health check: unlike a
// label it may be of any length, and the image may be gone from this node.
const healthExtension = "orch/healthcheck"

func marshalHealthcheck(h *Healthcheck) (*anypb.Any, error) {
	js, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("keep the image's health check: %w", err)
	}
	return &anypb.Any{TypeUrl: healthExtension, Value: js}, nil
}

// keptHealthcheck reads it back.
func keptHealthcheck(c containers.Container) (*Healthcheck, error) {
	kept, ok := c.Extensions[healthExtension]
	if !ok {
		return nil, nil
	}
	var h Healthcheck
	if err := json.Unmarshal(kept.GetValue(), &h); err != nil {
		return nil, fmt.Errorf("read the health check of container %s: %w", c.ID, err)
	}
	return &h, nil
}
