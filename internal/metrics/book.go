package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Kind is what a metric can be used for.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Metric describes one name. Seconds and bytes are its units where the name says so;
// else it is a plain number.
type Metric struct {
	Name   string
	Kind   Kind
	Help   string
	Labels []string
}

// Book is a registry with a list of what is in it. Make it with NewBook. Its methods
// panic where two metrics have one name: that is a mistake of the program, which each
// start would show.
type Book struct {
	registry *prometheus.Registry
	list     []Metric
}

// NewBook makes a book that has what every Go program tells of itself, and which
// version of which program ("agent", "controller") this is.
func NewBook(program, version string) *Book {
	b := &Book{registry: prometheus.NewRegistry()}
	b.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b.Gauges("orch_build_info", "Always 1; says which version of which program this is.", "program", "version", "go").
		WithLabelValues(program, version, runtime.Version()).Set(1)
	return b
}

// Gatherer gives what a scrape reads.
func (b *Book) Gatherer() prometheus.Gatherer { return b.registry }

// Metrics are those of orch itself, sorted by name; go_* and process_* are not listed.
func (b *Book) Metrics() []Metric {
	return slices.SortedFunc(slices.Values(b.list), func(x, y Metric) int { return cmp.Compare(x.Name, y.Name) })
}

func (b *Book) add(c prometheus.Collector, m ...Metric) {
	b.registry.MustRegister(c)
	b.list = append(b.list, m...)
}

// Counter counts something that only rises; its name ends in _total.
func (b *Book) Counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	b.add(c, Metric{Name: name, Kind: Counter, Help: help})
	return c
}

// Counters are one for each value of the labels.
func (b *Book) Counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	b.add(c, Metric{Name: name, Kind: Counter, Help: help, Labels: labels})
	return c
}

// Gauge is a number that rises and falls.
func (b *Book) Gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	b.add(g, Metric{Name: name, Kind: Gauge, Help: help})
	return g
}

// Gauges are one for each value of the labels.
func (b *Book) Gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	b.add(g, Metric{Name: name, Kind: Gauge, Help: help, Labels: labels})
	return g
}

// Histogram sorts what is observed into buckets, given by their upper bounds.
func (b *Book) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	b.add(h, Metric{Name: name, Kind: Histogram, Help: help})
	return h
}

// Histograms are one for each value of the labels.
func (b *Book) Histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	b.add(h, Metric{Name: name, Kind: Histogram, Help: help, Labels: labels})
	return h
}

// Put gives the value of one of the metrics that are read, with the values of its
// labels in their order.
type Put func(name string, value float64, labels ...string)

// Read has read called at each scrape, for metrics (counters and gauges) that are kept
// nowhere but in what they are about. It must bound itself, and may leave out what it
// does not know.
func (b *Book) Read(read func(Put), metrics ...Metric) {
	r := &reader{read: read, descs: map[string]described{}}
	for _, m := range metrics {
		r.descs[m.Name] = described{m, prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)}
	}
	b.add(r, metrics...)
}

type described struct {
	Metric
	desc *prometheus.Desc
}

// reader is a prometheus.Collector.
type reader struct {
	read  func(Put)
	descs map[string]described
}

// Describe implements prometheus.Collector.
func (r *reader) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range r.descs {
		ch <- d.desc
	}
}

// Collect implements prometheus.Collector. A mistake of the reader spoils its scrape,
// not the program.
func (r *reader) Collect(ch chan<- prometheus.Metric) {
	r.read(func(name string, value float64, labels ...string) {
		d, ok := r.descs[name]
		if !ok {
			err := fmt.Errorf("metric %s is not described", name)
			ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), errors.New("put: "+err.Error()))
			return
		}
		kind := prometheus.GaugeValue
		if d.Kind == Counter {
			kind = prometheus.CounterValue
		}
		m, err := prometheus.NewConstMetric(d.desc, kind, value, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(d.desc, err)
		}
		ch <- m
	})
}

// Flag is 1 for true.
func Flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
