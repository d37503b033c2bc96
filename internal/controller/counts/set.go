package counts

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/version"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Buckets, in seconds. Each series costs one number per bucket.
var (
	// turns: what the loop does takes microseconds; above 100 ms agents' beats are late.
	turnBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1}
	// commits: an fsync, or three machines' and the way between them.
	commitBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	callBuckets   = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	// beats: how late one may be is told in hundreds of milliseconds.
	beatBuckets = []float64{.005, .01, .025, .05, .1, .2, .3, .5, 1, 2.5}
	// failovers: about a second, and the minute after which silence is death.
	failoverBuckets = []float64{.1, .25, .5, .75, 1, 1.25, 1.5, 2, 3, 5, 10, 30, 60, 120, 300}
	operationBounds = []float64{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2500, 10000}
)

// Sources are what is read at a scrape and asked by checks. All are required but
// Store and Audit; each may be called by several goroutines at once, and waits for nothing but
// for what it says.
type Sources struct {
	View *view.View
	// Leads gives the term that this controller leads.
	Leads func() (term uint64, leads bool)
	// Inbox is how many events wait for the loop, Sessions how many are open.
	Inbox, Sessions func() int
	// Working is since when the loop is at work without a break; zero: it waits, or
	// there is none.
	Working func() time.Time
	// Reach asks the store.
	Reach func(ctx context.Context) error
	// Store is how much of its quota the built-in etcd takes, in bytes; nil: another
	// looks after that.
	Store func() (used, quota int64)
	// Audit is how many lines of the audit log were written, and could not be.
	Audit func() (written, failed uint64)
}

// Set is a controller's. Make it with New, and give it its sources before it is
// served. All methods may be called on nil.
type Set struct {
	book    *metrics.Book
	sources atomic.Pointer[Sources]

	events                    map[string]prometheus.Counter // by the kind of event; read only
	turn, commit, batch       prometheus.Histogram
	busy, stalls, stalled     prometheus.Counter
	commits                   [2]prometheus.Counter // good, failed
	terms                     prometheus.Counter
	received, sent            map[string]prometheus.Counter // by kind; read only
	opened, closed, left      prometheus.Counter
	late                      prometheus.Histogram
	verdicts                  *prometheus.CounterVec
	failovers                 *prometheus.HistogramVec
	told                      map[string]prometheus.Counter // events, by type; read only
	requests                  *prometheus.CounterVec
	calls                     *prometheus.HistogramVec
	streams                   *prometheus.GaugeVec
	applied                   *prometheus.CounterVec
	beats                     beats
	serviceSeries, nodeSeries int
}

// New makes a set whose numbers are 0.
func New() *Set {
	b := metrics.NewBook("controller", version.String())
	s := &Set{book: b, serviceSeries: serviceSeriesMax, nodeSeries: nodeSeriesMax}
	const prefix = "orch_controller_"
	s.events = each(b.Counters(prefix+"loop_events_total", "Events that the leader's loop took in, by kind.", "event"), eventKinds)
	s.turn = b.Histogram(prefix+"turn_duration_seconds", "How long one turn of the leader took: planning for all that had changed.", turnBuckets)
	s.busy = b.Counter(prefix+"loop_busy_seconds_total", "Time in which the leader's loop was at work; its rate is the share of one core.")
	s.stalls = b.Counter(prefix+"stalls_total", "How often the leader noticed that it had not run, or that its machine was suspended.")
	s.stalled = b.Counter(prefix+"stalled_seconds_total", "For how long the leader did not run, as far as it noticed.")
	s.terms = b.Counter(prefix+"terms_total", "Terms that this controller has led.")
	commits := b.Counters(prefix+"commits_total", "Transactions with the store, by outcome. One that failed ends the term.", "outcome")
	s.commits = [2]prometheus.Counter{commits.WithLabelValues("ok"), commits.WithLabelValues("failed")}
	s.commit = b.Histogram(prefix+"commit_duration_seconds", "How long one transaction with the store took.", commitBuckets)
	s.batch = b.Histogram(prefix+"commit_operations", "Operations of one transaction; 0 is one that only proves that the term lasts.", operationBounds)

	messages := b.Counters("orch_session_messages_total", "Messages over agents' sessions, by direction (received, sent) and kind.", "direction", "kind")
	s.received, s.sent = map[string]prometheus.Counter{}, map[string]prometheus.Counter{}
	for _, k := range receivedKinds {
		s.received[k] = messages.WithLabelValues("received", k)
	}
	for _, k := range sentKinds {
		s.sent[k] = messages.WithLabelValues("sent", k)
	}
	s.opened = b.Counter("orch_sessions_opened_total", "Sessions that agents opened.")
	ends := b.Counters("orch_sessions_closed_total", "Sessions that ended, by whether their agent said goodbye.", "goodbye")
	s.left, s.closed = ends.WithLabelValues("true"), ends.WithLabelValues("false")
	s.late = b.Histogram("orch_beat_lateness_seconds", "How much later than agreed a node's beat came; 0 for one in time.", beatBuckets)

	s.verdicts = b.Counters("orch_verdicts_total", "Verdicts on nodes, by what each was before.", "from", "to")
	for _, x := range usualVerdicts {
		s.verdicts.WithLabelValues(string(x[0]), string(x[1]))
	}
	s.failovers = b.Histograms("orch_failover_duration_seconds", "How long failovers took, by phase: detect is from a node's last beat to its verdict Suspect or Dead, replace from there until a replacement was ready elsewhere, total is both; detect once for each node, the others for each replica.", failoverBuckets, "phase")
	for _, p := range []string{phaseDetect, phaseReplace, phaseTotal} {
		s.failovers.WithLabelValues(p)
	}
	s.told = each(b.Counters("orch_events_total", "Events that users were told, by type.", "type"), []string{string(api.EventNormal), string(api.EventWarning)})

	s.requests = b.Counters("orch_api_requests_total", "Calls that have ended, by method and gRPC code; refused ones too.", "method", "code")
	s.calls = b.Histograms("orch_api_request_duration_seconds", "How long calls took that have one answer.", callBuckets, "method")
	s.streams = b.Gauges("orch_api_streams", "Streams that are open, by method: sessions and relays of agents, watches, logs and commands of users.", "method")
	for _, d := range services {
		for _, m := range d.Methods {
			s.requests.WithLabelValues(m.MethodName, "OK") // its histogram begins with the first call: most are seldom made
		}
		for _, m := range d.Streams {
			s.requests.WithLabelValues(m.StreamName, "OK")
			s.streams.WithLabelValues(m.StreamName)
		}
	}
	s.applied = b.Counters("orch_applied_objects_total", "Objects of applies and scalings that were carried out, by outcome.", "outcome")
	for _, o := range outcomes {
		s.applied.WithLabelValues(o)
	}
	s.readView()
	return s
}

// services are those that a controller serves.
var services = []grpc.ServiceDesc{orchv1.Orch_ServiceDesc, orchv1.Agents_ServiceDesc}

// each gives the counters of a vector with one label, all of them there from the start.
func each(v *prometheus.CounterVec, values []string) map[string]prometheus.Counter {
	out := make(map[string]prometheus.Counter, len(values))
	for _, x := range values {
		out[x] = v.WithLabelValues(x)
	}
	return out
}

// From gives the set its sources.
func (s *Set) From(src Sources) {
	if s != nil {
		s.sources.Store(&src)
	}
}

// Book is what is served.
func (s *Set) Book() *metrics.Book { return s.book }

var usualVerdicts = [][2]api.Verdict{
	{api.VerdictUnknown, api.VerdictHealthy}, {api.VerdictUnknown, api.VerdictSuspect}, {api.VerdictUnknown, api.VerdictAgentLost},
	{api.VerdictHealthy, api.VerdictAgentLost}, {api.VerdictHealthy, api.VerdictSuspect}, {api.VerdictHealthy, api.VerdictDead},
	{api.VerdictAgentLost, api.VerdictSuspect}, {api.VerdictAgentLost, api.VerdictBack}, {api.VerdictSuspect, api.VerdictAgentLost},
	{api.VerdictSuspect, api.VerdictBack}, {api.VerdictSuspect, api.VerdictDead}, {api.VerdictDead, api.VerdictBack}, {api.VerdictBack, api.VerdictHealthy},
}
