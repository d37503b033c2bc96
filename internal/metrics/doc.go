// Package metrics is what the agent and the controller share of telling how they
// are: a book of metrics, and a plain HTTP server for it and for health checks.
//
// It owns the form: every metric is in a Book with its name, kind, labels and
// meaning, so that docs/monitoring.md, the dashboard in deploy/grafana and the
// alerts in deploy/prometheus can be held against what is really there. What is
// counted is in agent/counts and internal/controller/counts.
//
// Invariant: whoever counts waits for nobody, and whoever reads stops nothing: a
// read that fails or hangs costs its own metrics and a time limit.
//
//	drivers ──counts──► Book ◄──reads at a scrape── published view, plan
//	                     │
//	Checks ──► Server ◄──┴── /metrics  /healthz  /readyz ── Prometheus, a load balancer
package metrics
