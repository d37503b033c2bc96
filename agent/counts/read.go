package counts

import (
	"context"
	"time"

	"github.com/orchctl/orch/agent/usage"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/metrics"
)

const (
	// containerSeriesMax is how many containers have series of their own, four each. A
	// node has some hundred; those beyond are counted in
	// orch_agent_containers_without_series.
	containerSeriesMax = 1000
	// tallyTimeout is how long the plan may take to answer: microseconds, unless it is stuck.
	tallyTimeout = time.Second
	// usageTimeout is how long the reading of cgroups may take; what is not there by then
	// is missing from the scrape, and nothing else is.
	usageTimeout = 3 * time.Second
)

// The metrics that are read at a scrape.
const (
	mSession, mHeard                   = "orch_agent_session_up", "orch_agent_leader_heard_timestamp_seconds"
	mReplicas, mContainers             = "orch_agent_replicas", "orch_agent_containers"
	mWaiting                           = "orch_agent_replicas_waiting"
	mEndpoints, mEndpointVersion       = "orch_agent_endpoints", "orch_agent_endpoint_version"
	mCheckAge, mCheckFailing           = "orch_agent_self_check_age_seconds", "orch_agent_self_check_failing"
	mIOPressure, mMemoryPressure       = "orch_agent_io_pressure_ratio", "orch_agent_memory_pressure_ratio"
	mMachineCPU                        = "orch_agent_machine_cpu_seconds_total"
	mMachineUsed, mMachineMemory       = "orch_agent_machine_memory_used_bytes", "orch_agent_machine_memory_bytes"
	mDisk, mDiskFree                   = "orch_agent_image_disk_bytes", "orch_agent_image_disk_free_bytes"
	mCPU, mMemory, mMemoryLimit, mPids = "orch_container_cpu_seconds_total", "orch_container_memory_bytes", "orch_container_memory_limit_bytes", "orch_container_processes"
	mContainersLeft                    = "orch_agent_containers_without_series"
)

func (s *Set) readNode() {
	gauge := func(name, help string, labels ...string) metrics.Metric {
		return metrics.Metric{Name: name, Kind: metrics.Gauge, Help: help, Labels: labels}
	}
	counter := func(name, help string, labels ...string) metrics.Metric {
		return metrics.Metric{Name: name, Kind: metrics.Counter, Help: help, Labels: labels}
	}
	of := []string{"namespace", "service", "replica", "container"}
	s.book.Read(s.readState,
		gauge(mSession, "1 while there is a session with the leader."),
		gauge(mHeard, "When the leader was heard last, in Unix time; 0: not yet."),
		gauge(mReplicas, "Replicas on this node by phase.", "phase"),
		gauge(mContainers, "Their containers by state.", "state"),
		gauge(mWaiting, "Replicas that wait for room to do something: pulls, starts and stops at once are limited."),
		gauge(mEndpoints, "Endpoints that this node leads traffic to."),
		gauge(mEndpointVersion, "The leader's number for the latest of them that are in force here; 0: none of this session are yet."),
		gauge(mCheckAge, "Time since the last good self-check: a round trip to containerd, and a write to the disk."),
		gauge(mCheckFailing, "1 while a self-check fails: the node beats but cannot work."),
		gauge(mIOPressure, "Share of the last ten seconds in which all waited for a disk."),
		gauge(mMemoryPressure, "Share of the last ten seconds in which all waited for memory."))
	s.book.Read(s.readUsage,
		counter(mMachineCPU, "Time that the machine's cores have worked, all together."),
		gauge(mMachineUsed, "Memory of the machine that is used, without what the kernel gives back at need."),
		gauge(mMachineMemory, "Memory of the machine."),
		gauge(mDisk, "Size of the disk that images lie on."),
		gauge(mDiskFree, "What is free on the disk that images lie on."),
		counter(mCPU, "Time that a container's processes have had on all cores since it started.", of...),
		gauge(mMemory, "Memory of a container, without files that the kernel drops at need.", of...),
		gauge(mMemoryLimit, "Its limit, where it has one.", of...),
		gauge(mPids, "Processes and threads of a container.", of...),
		gauge(mContainersLeft, "Containers beyond the 1000 that have series of their own."))
}

func (s *Set) readState(put metrics.Put) {
	put(mSession, metrics.Flag(s.leader.Load() != nil))
	put(mHeard, float64(s.heard.Load())/float64(time.Second))
	src := s.sources.Load()
	if src == nil {
		return
	}
	check := src.Check()
	put(mCheckAge, check.Age.Seconds())
	put(mCheckFailing, metrics.Flag(check.Failing != ""))
	put(mIOPressure, check.IOPressure)
	put(mMemoryPressure, check.MemoryPressure)
	ctx, cancel := context.WithTimeout(context.Background(), tallyTimeout)
	defer cancel()
	t, err := src.Tally(ctx)
	if err != nil {
		return // /healthz says why
	}
	for _, p := range []api.Phase{api.PhaseAssigned, api.PhasePreparing, api.PhaseRunning, api.PhaseStopping, api.PhaseStopped, api.PhaseFailed} {
		put(mReplicas, float64(t.Replicas[p]), string(p))
	}
	for _, x := range []api.ContainerState{api.ContainerWaiting, api.ContainerRunning, api.ContainerExited} {
		put(mContainers, float64(t.Containers[x]), string(x))
	}
	put(mWaiting, float64(t.Waiting))
	put(mEndpoints, float64(t.Endpoints))
	put(mEndpointVersion, float64(t.EndpointVersion))
}

func (s *Set) readUsage(put metrics.Put) {
	src := s.sources.Load()
	if src == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), usageTimeout)
	defer cancel()
	u, err := src.Usage(ctx)
	if err != nil {
		s.usageErrs.Inc()
		return
	}
	put(mMachineCPU, u.CPU.Seconds())
	put(mMachineUsed, float64(u.Memory))
	put(mMachineMemory, float64(u.MemoryTotal))
	if u.Disk > 0 {
		put(mDisk, float64(u.Disk))
		put(mDiskFree, float64(u.DiskFree))
	}
	list := newest(u.Containers)
	kept := list[:min(len(list), s.containerSeries)]
	put(mContainersLeft, float64(len(list)-len(kept)))
	for _, c := range kept {
		of := []string{c.Replica.Namespace, c.Replica.Service, c.Replica.Name(), c.Container}
		put(mCPU, c.CPU.Seconds(), of...)
		put(mMemory, float64(c.Memory), of...)
		if c.MemoryLimit > 0 {
			put(mMemoryLimit, float64(c.MemoryLimit), of...)
		}
		if c.Pids > 0 {
			put(mPids, float64(c.Pids), of...)
		}
	}
}

// newest leaves out what has the same name as something newer: for a moment a node may
// have two fillings of one slot, and epochs are no labels, for each would be a series.
func newest(list []usage.Container) []usage.Container {
	type name struct {
		namespace, replica, container string
	}
	at := map[name]int{}
	var out []usage.Container
	for _, c := range list {
		n := name{c.Replica.Namespace, c.Replica.Name(), c.Container}
		if i, ok := at[n]; ok {
			if out[i].Replica.Epoch < c.Replica.Epoch {
				out[i] = c
			}
			continue
		}
		at[n] = len(out)
		out = append(out, c)
	}
	return out
}
