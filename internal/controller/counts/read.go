package counts

import (
	"cmp"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/metrics"
)

const (
	// serviceSeriesMax is how many services have series of their own, four each: a
	// Prometheus holds a few million in all, and a scrape of 4,000 takes 10 ms. Those
	// that lack replicas go first, so what is beyond it is well, and is counted in
	// orch_services_without_series.
	serviceSeriesMax = 1000
	// nodeSeriesMax is likewise for nodes, four each; those that are not Healthy go first.
	nodeSeriesMax = 1000
)

// The metrics that are read from the published view.
const (
	mLeading, mTerm, mInbox                             = "orch_controller_leading", "orch_controller_term", "orch_controller_inbox_events"
	mSessions, mWatchers                                = "orch_sessions", "orch_controller_watchers"
	mAudit                                              = "orch_controller_audit_lines_total"
	mStoreUsed, mStoreQuota                             = "orch_controller_store_used_bytes", "orch_controller_store_quota_bytes"
	mNodes, mUnschedulable, mImpaired, mDamped          = "orch_nodes", "orch_nodes_unschedulable", "orch_nodes_impaired", "orch_nodes_damped"
	mFrozen, mSpares, mSparesWaiting, mReliefs          = "orch_fleet_frozen", "orch_spares", "orch_spares_waiting", "orch_reliefs"
	mServices, mJobs, mRollouts                         = "orch_services", "orch_jobs", "orch_rollouts"
	mReplicas, mReplicasReady                           = "orch_replicas", "orch_replicas_ready"
	mEndpoints, mDegraded                               = "orch_endpoints", "orch_endpoints_degraded"
	mWanted, mReady, mUpdated, mServing                 = "orch_service_replicas_wanted", "orch_service_replicas_ready", "orch_service_replicas_updated", "orch_service_endpoints"
	mServicesLeft, mNodesLeft                           = "orch_services_without_series", "orch_nodes_without_series"
	mNodeCPU, mNodeCPUAsked, mNodeMemory, mNodeMemAsked = "orch_node_capacity_cpu_cores", "orch_node_requested_cpu_cores", "orch_node_capacity_memory_bytes", "orch_node_requested_memory_bytes"
)

func (s *Set) readView() {
	gauge := func(name, help string, labels ...string) metrics.Metric {
		return metrics.Metric{Name: name, Kind: metrics.Gauge, Help: help, Labels: labels}
	}
	s.book.Read(s.read,
		gauge(mLeading, "1 while this controller leads."),
		gauge(mTerm, "The term that it leads; 0: none."),
		gauge(mInbox, "Events that wait for the leader's loop; above 4096 who brings more waits."),
		gauge(mSessions, "Agents with an open session."),
		gauge(mWatchers, "Watches of the published view."),
		gauge(mStoreUsed, "What the built-in etcd's data takes."),
		gauge(mStoreQuota, "What it may take; when it is full, changes are refused."),
		metrics.Metric{Name: mAudit, Kind: metrics.Counter, Help: "Lines of the audit log, by outcome: written, or failed, which are lost.", Labels: []string{"outcome"}},
		gauge(mNodes, "Nodes by verdict.", "verdict"),
		gauge(mUnschedulable, "Nodes that are cordoned or drained."),
		gauge(mImpaired, "Nodes that beat but cannot work."),
		gauge(mDamped, "Nodes that came and went too often, and get nothing new for a while."),
		gauge(mFrozen, "1 while so many nodes have vanished at once that none is taken for dead."),
		gauge(mSpares, "Replicas that stand in for others now."),
		gauge(mSparesWaiting, "Spares that wait for a budget."),
		gauge(mReliefs, "Replicas that are being relieved now."),
		gauge(mServices, "Services."),
		gauge(mJobs, "Jobs by state.", "state"),
		gauge(mRollouts, "Services by the state of their newest revision's rollout.", "state"),
		gauge(mReplicas, "Replicas by phase, those of jobs too.", "phase"),
		gauge(mReplicasReady, "Replicas that are ready."),
		gauge(mEndpoints, "Endpoints that get traffic."),
		gauge(mDegraded, "Endpoints that get traffic though their node cannot be reached, because their service has nothing better."),
		gauge(mWanted, "Replicas that a service is to have.", "namespace", "service"),
		gauge(mReady, "Slots of a service with a ready replica.", "namespace", "service"),
		gauge(mUpdated, "Replicas of a service that run its newest revision.", "namespace", "service"),
		gauge(mServing, "Endpoints of a service that get traffic, degraded ones too.", "namespace", "service"),
		gauge(mServicesLeft, "Services beyond the 1000 that have series of their own; those are the ones that lack replicas first."),
		gauge(mNodesLeft, "Nodes beyond the 1000 that have series of their own; those are the ones that are not Healthy first."),
		gauge(mNodeCPU, "Cores that replicas may use of a node.", "node"),
		gauge(mNodeCPUAsked, "Cores that replicas on a node request.", "node"),
		gauge(mNodeMemory, "Memory that replicas may use of a node.", "node"),
		gauge(mNodeMemAsked, "Memory that replicas on a node request.", "node"),
	)
}

// read gives what is so now. Who does not lead says only that: the leader tells the rest.
func (s *Set) read(put metrics.Put) {
	src := s.sources.Load()
	if src == nil {
		return
	}
	term, leads := src.Leads()
	put(mLeading, metrics.Flag(leads))
	put(mTerm, float64(term))
	put(mInbox, float64(src.Inbox()))
	put(mSessions, float64(src.Sessions()))
	put(mWatchers, float64(src.View.Watchers()))
	if src.Store != nil {
		used, quota := src.Store()
		put(mStoreUsed, float64(used))
		put(mStoreQuota, float64(quota))
	}
	if src.Audit != nil {
		written, failed := src.Audit()
		put(mAudit, float64(written), "written")
		put(mAudit, float64(failed), "failed")
	}
	if snapshot := src.View.Snapshot(); snapshot != nil && leads {
		s.readFleet(put, snapshot)
		s.readNodes(put, snapshot)
		serving := readReplicas(put, snapshot)
		s.readServices(put, snapshot, serving)
	}
}

func (s *Set) readFleet(put metrics.Put, snapshot *view.Snapshot) {
	object, _ := snapshot.Get(core.ViewKey{Kind: api.KindFleet, Name: api.FleetName})
	fleet, ok := object.(*api.Fleet)
	if !ok {
		return
	}
	for _, v := range []api.Verdict{api.VerdictUnknown, api.VerdictHealthy, api.VerdictAgentLost, api.VerdictSuspect, api.VerdictDead, api.VerdictBack} {
		put(mNodes, float64(fleet.Status.Nodes[v]), string(v))
	}
	put(mImpaired, float64(fleet.Status.Impaired))
	put(mDamped, float64(fleet.Status.Damped))
	put(mFrozen, metrics.Flag(fleet.Status.Frozen))
	put(mSpares, float64(fleet.Status.Spares))
	put(mSparesWaiting, float64(fleet.Status.SparesWaiting))
	put(mReliefs, float64(fleet.Status.Reliefs))
}

func (s *Set) readNodes(put metrics.Put, snapshot *view.Snapshot) {
	var nodes []*api.Node
	unschedulable := 0
	for n := range all[*api.Node](snapshot, api.KindNode) {
		nodes = append(nodes, n)
		if n.Spec.Unschedulable {
			unschedulable++
		}
	}
	put(mUnschedulable, float64(unschedulable))
	nodes, left := firstOf(nodes, s.nodeSeries, func(n *api.Node) bool { return n.Status.Verdict != api.VerdictHealthy })
	put(mNodesLeft, float64(left))
	for _, n := range nodes {
		name := n.Metadata.Name
		put(mNodeCPU, inUnits(n.Status.Capacity[api.CPU]), name)
		put(mNodeCPUAsked, inUnits(n.Status.Requested[api.CPU]), name)
		put(mNodeMemory, inUnits(n.Status.Capacity[api.Memory]), name)
		put(mNodeMemAsked, inUnits(n.Status.Requested[api.Memory]), name)
	}
}

func inUnits(q api.Quantity) float64 { return float64(q.Milli()) / 1000 }

// readReplicas gives how many endpoints each service has.
func readReplicas(put metrics.Put, snapshot *view.Snapshot) map[api.Key]int {
	phases, ready := map[api.Phase]int{}, 0
	for r := range all[*api.Replica](snapshot, api.KindReplica) {
		phases[r.Status.Phase]++
		if r.Status.Ready {
			ready++
		}
	}
	for _, p := range []api.Phase{api.PhasePending, api.PhaseAssigned, api.PhasePreparing, api.PhaseRunning, api.PhaseStopping, api.PhaseStopped, api.PhaseFailed} {
		put(mReplicas, float64(phases[p]), string(p))
	}
	put(mReplicasReady, float64(ready))
	serving, endpoints, degraded := map[api.Key]int{}, 0, 0
	for e := range all[*api.Endpoint](snapshot, api.KindEndpoint) {
		endpoints++
		serving[api.Key{Namespace: e.Metadata.Namespace, Name: e.Status.Service}]++
		if e.Status.Degraded {
			degraded++
		}
	}
	put(mEndpoints, float64(endpoints))
	put(mDegraded, float64(degraded))
	return serving
}

func (s *Set) readServices(put metrics.Put, snapshot *view.Snapshot, serving map[api.Key]int) {
	var services []*api.Service
	rollouts := map[api.RolloutState]int{}
	for x := range all[*api.Service](snapshot, api.KindService) {
		services = append(services, x)
		rollouts[x.Status.Rollout.State]++
	}
	put(mServices, float64(len(services)))
	for _, state := range []api.RolloutState{api.RolloutProgressing, api.RolloutPaused, api.RolloutComplete, api.RolloutFailed} {
		put(mRollouts, float64(rollouts[state]), string(state))
	}
	jobs := map[api.JobState]int{}
	for j := range all[*api.Job](snapshot, api.KindJob) {
		jobs[j.Status.State]++
	}
	for _, state := range []api.JobState{api.JobRunning, api.JobComplete, api.JobFailed} {
		put(mJobs, float64(jobs[state]), string(state))
	}
	services, left := firstOf(services, s.serviceSeries, func(x *api.Service) bool { return x.Status.Ready < wanted(x) })
	put(mServicesLeft, float64(left))
	for _, x := range services {
		key := x.Metadata.Key()
		put(mWanted, float64(wanted(x)), key.Namespace, key.Name)
		put(mReady, float64(x.Status.Ready), key.Namespace, key.Name)
		put(mUpdated, float64(x.Status.Updated), key.Namespace, key.Name)
		put(mServing, float64(serving[key]), key.Namespace, key.Name)
	}
}

// wanted is how many replicas a service is to have; a global one as many as nodes fit.
func wanted(s *api.Service) int {
	if s.Spec.Mode == api.ModeGlobal || s.Spec.Replicas == nil {
		return s.Status.Replicas
	}
	return *s.Spec.Replicas
}

// firstOf keeps at most max of a list: those that are first, and then the others, each
// in their order.
func firstOf[T any](list []T, max int, first func(T) bool) (kept []T, left int) {
	if len(list) <= max {
		return list, 0
	}
	rank := func(x T) int {
		if first(x) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(rank(a), rank(b)) })
	return list[:max], len(list) - max
}

// all are the objects of a kind, in all namespaces.
func all[T any](snapshot *view.Snapshot, kind string) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		snapshot.All(kind, "", func(e core.Entry) bool {
			x, ok := e.Object.(T)
			return !ok || yield(x)
		})
	}
}
