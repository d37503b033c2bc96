package counts

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/usage"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/version"
	"github.com/orchctl/orch/internal/wire"
)

// Buckets, in seconds. Each series costs one number per bucket.
var (
	// starts: a container in a tenth of a second, an image's pull in minutes.
	startBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	probeBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
	ruleBuckets  = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
)

// Sources are what is read at a scrape and asked by checks. All are required; each may
// be called by several goroutines at once.
type Sources struct {
	// Tally asks the plan.
	Tally func(ctx context.Context) (plan.Tally, error)
	// Check is what the node knows of its own health; it waits for nothing. Runtime says
	// what is wrong with containerd; empty: it answers.
	Check   func() wire.SelfCheck
	Runtime func() string
	// Usage reads what the node and its containers have used.
	Usage func(ctx context.Context) (usage.Usage, error)
}

// Set is an agent's. Make it with New. All methods may be called on nil.
type Set struct {
	book    *metrics.Book
	sources atomic.Pointer[Sources]

	leader atomic.Pointer[string] // of the session; nil: there is none
	since  atomic.Int64           // when that began or ended, in Unix nanoseconds; 0: there was none yet
	heard  atomic.Int64           // the leader's last word, in Unix nanoseconds; 0: none

	sessions         prometheus.Counter
	inFlight         *prometheus.GaugeVec
	effects          *prometheus.HistogramVec
	failures         *prometheus.CounterVec
	phases           *prometheus.HistogramVec
	restarts         prometheus.Counter
	exits            *prometheus.CounterVec
	probes           map[probe]prometheus.Counter
	probed           map[plan.ProbeKind]prometheus.Observer
	pulls            map[string]prometheus.Counter
	pulled           prometheus.Counter
	pull             prometheus.Histogram
	collected, freed prometheus.Counter
	rules            prometheus.Histogram
	ruleFailures     prometheus.Counter
	answers          [rcodes]prometheus.Counter
	usageErrs        prometheus.Counter
	containerSeries  int
}

type probe struct {
	kind plan.ProbeKind
	ok   bool
}

// New makes a set whose numbers are 0.
func New() *Set {
	b := metrics.NewBook("agent", version.String())
	s := &Set{book: b, containerSeries: containerSeriesMax}
	const prefix = "orch_agent_"
	s.sessions = b.Counter(prefix+"sessions_total", "Sessions with a leader that came up; all but the first are reconnects.")
	s.inFlight = b.Gauges(prefix+"effects_in_flight", "What is being done now, by kind.", "effect")
	s.effects = b.Histograms(prefix+"effect_duration_seconds", "How long what the plan wanted done took, by kind; whether it worked or not.", startBuckets, "effect")
	s.failures = b.Counters(prefix+"effect_failures_total", "What could not be done, by kind; most of it is tried again.", "effect")
	for _, e := range effectKinds {
		s.inFlight.WithLabelValues(e)
		s.effects.WithLabelValues(e)
		s.failures.WithLabelValues(e)
	}
	s.phases = b.Histograms(prefix+"start_phase_duration_seconds", "How long the phases of a replica's start took that worked: image (found or pulled), network, and of each container create (file system, process made) and start (process runs).", startBuckets, "phase")
	for _, p := range []string{PhaseImage, PhaseNetwork, PhaseCreate, PhaseStart} {
		s.phases.WithLabelValues(p)
	}
	s.restarts = b.Counter(prefix+"container_restarts_total", "Containers that were started again in place.")
	s.exits = b.Counters(prefix+"container_exits_total", "Containers that ended, by reason.", "reason")
	for _, r := range exitReasons {
		s.exits.WithLabelValues(r)
	}
	tries := b.Counters(prefix+"probes_total", "Tries of probes, by probe and outcome.", "probe", "outcome")
	took := b.Histograms(prefix+"probe_duration_seconds", "How long tries of probes took.", probeBuckets, "probe")
	s.probes, s.probed = map[probe]prometheus.Counter{}, map[plan.ProbeKind]prometheus.Observer{}
	for _, k := range []plan.ProbeKind{plan.Readiness, plan.Liveness, plan.Startup} {
		s.probes[probe{k, true}] = tries.WithLabelValues(string(k), "ok")
		s.probes[probe{k, false}] = tries.WithLabelValues(string(k), "failed")
		s.probed[k] = took.WithLabelValues(string(k))
	}
	pulls := b.Counters(prefix+"image_pulls_total", "Pulls of images from registries, by outcome: ok, or why not (missing, denied, unreachable, error).", "outcome")
	s.pulls = map[string]prometheus.Counter{}
	for _, o := range pullOutcomes {
		s.pulls[o] = pulls.WithLabelValues(o)
	}
	s.pulled = b.Counter(prefix+"image_pulled_bytes_total", "Size of the images that were pulled; layers that were there before count, too.")
	s.pull = b.Histogram(prefix+"image_pull_duration_seconds", "How long a pull that worked took, unpacking included.", startBuckets)
	s.collected = b.Counter(prefix+"images_collected_total", "Images that were removed because the disk was fuller than --image-gc-high.")
	s.freed = b.Counter(prefix+"images_collected_bytes_total", "What their removal freed.")
	s.rules = b.Histogram(prefix+"rules_apply_duration_seconds", "How long a change of the kernel's rules took.", ruleBuckets)
	s.ruleFailures = b.Counter(prefix+"rules_apply_failures_total", "Changes of rules that the kernel refused; they are tried again.")
	answers := b.Counters(prefix+"dns_answers_total", "Answers to questions for names, by rcode.", "rcode")
	for i := range s.answers {
		s.answers[i] = answers.WithLabelValues(rcodeWords[i])
	}
	s.usageErrs = b.Counter(prefix+"usage_failures_total", "Scrapes at which what containers use could not be read.")
	s.readNode()
	return s
}

// From gives the set its sources.
func (s *Set) From(src Sources) {
	if s != nil {
		s.sources.Store(&src)
	}
}

// Book is what is served.
func (s *Set) Book() *metrics.Book { return s.book }

// Connected: a session with that leader is up. Parted: it ended.
func (s *Set) Connected(leader string) {
	if s != nil {
		s.sessions.Inc()
		s.leader.Store(&leader)
		s.since.Store(time.Now().UnixNano())
		s.Heard()
	}
}

// Parted: see Connected.
func (s *Set) Parted() {
	if s != nil {
		s.leader.Store(nil)
		s.since.Store(time.Now().UnixNano())
	}
}

// Heard: the leader said something.
func (s *Set) Heard() {
	if s != nil {
		s.heard.Store(time.Now().UnixNano())
	}
}

// exitReasons are api's and the runtime's own words for how a container was ended; all
// else is "Other".
var exitReasons = []string{api.ExitCompleted, api.ExitError, api.ExitSignaled, api.ExitOutOfMemory, api.ExitLivenessFailed, api.ExitStartupFailed,
	api.ExitHookFailed, api.ExitStartFailed, "Killed", otherWord}

const otherWord = "Other"

// Exited counts a container's end.
func (s *Set) Exited(reason string) {
	if s == nil {
		return
	}
	for _, r := range exitReasons {
		if r == reason {
			s.exits.WithLabelValues(r).Inc()
			return
		}
	}
	s.exits.WithLabelValues(otherWord).Inc()
}

// Probed counts one try.
func (s *Set) Probed(k plan.ProbeKind, took time.Duration, ok bool) {
	if s == nil || s.probed[k] == nil {
		return
	}
	s.probed[k].Observe(took.Seconds())
	s.probes[probe{k, ok}].Inc()
}
