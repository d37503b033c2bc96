package counts

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/usage"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/metrics/metricstest"
	"github.com/orchctl/orch/internal/wire"
)

// running is a set of a node with two containers, of which one has a newer filling of its slot.
func running() (*Set, *Sources) {
	s := New()
	of := func(service string, epoch uint64, cpu time.Duration) usage.Container {
		return usage.Container{ContainerUsage: ctrd.ContainerUsage{Replica: api.ReplicaKey{Namespace: "default", Service: service, Epoch: epoch}, Container: "main", CPU: cpu, Memory: 1 << 20, MemoryLimit: 2 << 20, Pids: 3}}
	}
	src := &Sources{
		Tally: func(context.Context) (plan.Tally, error) {
			return plan.Tally{Replicas: map[api.Phase]int{api.PhaseRunning: 2}, Containers: map[api.ContainerState]int{api.ContainerRunning: 2}, Endpoints: 5, EndpointVersion: 9, Connected: true, Whole: true, Taken: true}, nil
		},
		Check:   func() wire.SelfCheck { return wire.SelfCheck{Age: 2 * time.Second, IOPressure: .5} },
		Runtime: func() string { return "" },
		Usage: func(context.Context) (usage.Usage, error) {
			return usage.Usage{CPU: time.Minute, Memory: 10, MemoryTotal: 100, Disk: 1000, DiskFree: 400,
				Containers: []usage.Container{of("web", 3, time.Second), of("db", 1, 2*time.Second), of("web", 7, 3*time.Second), of("web", 5, 4*time.Second)}}, nil
		},
	}
	s.From(*src)
	return s, src
}

// want checks the samples of some metrics.
func want(t *testing.T, s *Set, text string, names ...string) {
	t.Helper()
	all, err := testutil.GatherAndFormat(s.Book().Gatherer(), expfmt.TypeTextPlain, names...)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(all)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.Contains(line, "_bucket{") && !strings.HasSuffix(line, " 0") {
			lines = append(lines, line)
		}
	}
	if have := strings.Join(lines, "\n"); have != strings.TrimSpace(text) {
		t.Errorf("have\n%s\nwant\n%s", have, strings.TrimSpace(text))
	}
}

func TestBook(t *testing.T) {
	s, _ := running()
	metricstest.CheckBook(t, s.Book(), "agent", "./agent/counts", "../../docs/monitoring.md")
}

func TestReads(t *testing.T) {
	s, src := running()
	want(t, s, `
orch_agent_containers{state="Running"} 2
orch_agent_endpoint_version 9
orch_agent_endpoints 5
orch_agent_image_disk_free_bytes 400
orch_agent_io_pressure_ratio 0.5
orch_agent_replicas{phase="Running"} 2
orch_agent_self_check_age_seconds 2
orch_container_cpu_seconds_total{container="main",namespace="default",replica="db-0",service="db"} 2
orch_container_cpu_seconds_total{container="main",namespace="default",replica="web-0",service="web"} 3`,
		"orch_agent_containers", "orch_agent_endpoint_version", "orch_agent_endpoints", "orch_agent_image_disk_free_bytes", "orch_agent_io_pressure_ratio", "orch_agent_replicas",
		"orch_agent_self_check_age_seconds", "orch_container_cpu_seconds_total")
	s.containerSeries = 1
	want(t, s, "orch_agent_containers_without_series 1", "orch_agent_containers_without_series")
	// What cannot be read is missing, and nothing else is.
	src.Usage = func(context.Context) (usage.Usage, error) { return usage.Usage{}, errors.New("no cgroups") }
	src.Tally = func(context.Context) (plan.Tally, error) { return plan.Tally{}, errors.New("stuck") }
	s.From(*src)
	want(t, s, "orch_agent_self_check_age_seconds 2", "orch_agent_self_check_age_seconds", "orch_container_cpu_seconds_total", "orch_agent_endpoints", "orch_agent_machine_memory_bytes")
	if n := testutil.ToFloat64(s.usageErrs); n != 1 {
		t.Errorf("%v failures are counted, want 1", n)
	}
}

func TestEffects(t *testing.T) {
	s, _ := running()
	ended := s.Began(plan.StartContainer{Attempt: 2})
	want(t, s, `orch_agent_effects_in_flight{effect="start"} 1`, "orch_agent_effects_in_flight")
	ended(plan.Done{Failure: &plan.Failure{Reason: api.ReasonCreateError}})
	s.Began(plan.SetupNetwork{})(plan.Done{})
	s.Began(plan.Observe{})(plan.Observed{Err: "away"})
	s.Began(plan.EnsureImage{})(plan.Done{})
	want(t, s, "orch_agent_container_restarts_total 1\n"+`orch_agent_effect_failures_total{effect="observe"} 1`+"\n"+`orch_agent_effect_failures_total{effect="start"} 1`,
		"orch_agent_effects_in_flight", "orch_agent_effect_failures_total", "orch_agent_container_restarts_total")
	for kind := range map[plan.Effect]bool{plan.Observe{}: true, plan.SetupNetwork{}: true, plan.TeardownNetwork{}: true, plan.RemoveContainer{}: true, plan.StopContainer{}: true, plan.RemoveVolume{}: true} {
		if kindOf(kind) == "other" {
			t.Errorf("%T has no kind", kind)
		}
	}
	for _, kind := range []plan.Effect{plan.EnsureImage{}, plan.StartContainer{}, plan.RunHook{}, plan.PruneNetworks{}} {
		if kindOf(kind) == "other" {
			t.Errorf("%T has no kind", kind)
		}
	}
	if n := testutil.CollectAndCount(s.phases); n != 4 {
		t.Errorf("%d phases, want 4", n)
	}
}

func TestCounts(t *testing.T) {
	s, _ := running()
	s.Exited(api.ExitOutOfMemory)
	s.Exited("drained by alice") // words of whoever stopped it: never a series of their own
	s.Exited("drained by bob")
	s.Probed(plan.Liveness, time.Second, false)
	s.Pulled(PullOK, 1<<20, time.Second)
	s.Pulled("weird", -1, time.Second)
	s.Collected(2, 300)
	s.Ruled(time.Second, errors.New("no"))
	s.Answered(0)
	s.Answered(3)
	s.Answered(23)
	s.Connected("c1")
	s.Connected("c1")
	want(t, s, `
orch_agent_container_exits_total{reason="Other"} 2
orch_agent_container_exits_total{reason="OutOfMemory"} 1
orch_agent_dns_answers_total{rcode="NOERROR"} 1
orch_agent_dns_answers_total{rcode="NXDOMAIN"} 1
orch_agent_dns_answers_total{rcode="OTHER"} 1
orch_agent_image_pulled_bytes_total 1.048576e+06
orch_agent_image_pulls_total{outcome="error"} 1
orch_agent_image_pulls_total{outcome="ok"} 1
orch_agent_images_collected_bytes_total 300
orch_agent_images_collected_total 2
orch_agent_probes_total{outcome="failed",probe="liveness"} 1
orch_agent_rules_apply_failures_total 1
orch_agent_session_up 1
orch_agent_sessions_total 2`,
		"orch_agent_container_exits_total", "orch_agent_dns_answers_total", "orch_agent_image_pulled_bytes_total", "orch_agent_image_pulls_total", "orch_agent_images_collected_bytes_total",
		"orch_agent_images_collected_total", "orch_agent_probes_total", "orch_agent_rules_apply_failures_total", "orch_agent_session_up", "orch_agent_sessions_total")
	s.Parted()
	want(t, s, "", "orch_agent_session_up")
}

func TestChecks(t *testing.T) {
	s, src := running()
	expect := func(words ...string) {
		t.Helper()
		for i, c := range s.Ready() {
			detail, err := c.Try(t.Context())
			if err != nil {
				detail = "FAIL " + err.Error()
			}
			if got := c.Name + ": " + detail; i >= len(words) || !strings.Contains(got, words[i]) {
				t.Errorf("have %q, want %q", got, words[min(i, len(words)-1)])
			}
		}
	}
	expect("loop: it turned", "session: none yet", "assignments: 2 replicas", "containerd: it answers")
	s.Connected("c1")
	expect("loop", "session: with leader c1", "assignments", "containerd")
	s.Parted()
	now := plan.Tally{Taken: true}
	src.Tally = func(context.Context) (plan.Tally, error) { return now, nil }
	src.Runtime = func() string { return "containerd: no answer within 5s" }
	s.From(*src)
	expect("loop", "session: none for 0s: the node goes on", "assignments: as last told", "containerd: FAIL containerd: no answer within 5s")
	now.Taken = false
	src.Runtime = func() string { return "" }
	s.From(*src)
	expect("loop", "session", "assignments: FAIL no complete set was taken yet", "containerd: it answers")
	src.Tally = func(ctx context.Context) (plan.Tally, error) { <-ctx.Done(); return now, ctx.Err() }
	s.From(*src)
	expect("loop: FAIL the agent's loop gave no answer within 1s", "session", "assignments: FAIL", "containerd")
}

// Nobody who counts asks whether anybody wants to know.
func TestNil(t *testing.T) {
	var s *Set
	s.From(Sources{})
	s.Connected("c1")
	s.Parted()
	s.Heard()
	s.Exited("x")
	s.Probed(plan.Readiness, 1, true)
	s.Began(plan.Observe{})(nil)
	s.Phase(PhaseStart, 1)
	s.Pulled(PullOK, 1, 1)
	s.Collected(1, 1)
	s.Ruled(1, nil)
	s.Answered(0)
}
