package orchctl

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// usedNow is what something uses.
type usedNow struct {
	CPUMilli    int64 `json:"cpuMilli"`
	MemoryBytes int64 `json:"memoryBytes"`
	// The limits, of a node what replicas may use; 0: none.
	CPULimitMilli    int64 `json:"cpuLimitMilli,omitempty"`
	MemoryLimitBytes int64 `json:"memoryLimitBytes,omitempty"`
}

// topRow is one line of `top`, and one item of its JSON.
type topRow struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"` // of a replica
	Epoch     uint64 `json:"epoch,omitempty"`
	Container string `json:"container,omitempty"`
	Node      string `json:"node"`
	// Error says why nothing is known; what is used is nil then.
	Error string `json:"error,omitempty"`
	*usedNow
	WindowSeconds float64          `json:"windowSeconds,omitempty"`
	DiskBytes     int64            `json:"diskBytes,omitempty"`
	DiskFreeBytes int64            `json:"diskFreeBytes,omitempty"`
	Requested     api.ResourceList `json:"requested,omitempty"`

	service string
}

type topList struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Items      []topRow `json:"items"`
}

// list is what -o json prints.
func (u using) list(x topped) topList {
	l := topList{APIVersion: api.Version, Kind: "NodeUsageList", Items: u.rows(x)}
	if x.wants {
		l.Kind = "ReplicaUsageList"
	}
	if l.Items == nil {
		l.Items = []topRow{}
	}
	return l
}

// rows gives the lines in order.
func (u using) rows(x topped) []topRow {
	var out []topRow
	for _, n := range u.usages {
		if x.wants {
			out = append(out, u.replicaRows(n, x)...)
		} else {
			out = append(out, u.nodeRow(n))
		}
	}
	slices.SortStableFunc(out, func(a, b topRow) int {
		if c := compareBools(a.usedNow == nil, b.usedNow == nil); c != 0 && x.order != "name" {
			return c // what is not known comes last
		}
		if a.usedNow != nil && b.usedNow != nil {
			var c int
			switch x.order {
			case "cpu":
				c = cmp.Compare(b.CPUMilli, a.CPUMilli)
			case "memory":
				c = cmp.Compare(b.MemoryBytes, a.MemoryBytes)
			}
			if c != 0 {
				return c
			}
		}
		if !x.wants {
			return naturally(a.Node, b.Node)
		}
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), naturally(a.Name, b.Name), cmp.Compare(a.Epoch, b.Epoch)) // containers stay in their order
	})
	return out
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (u using) nodeRow(n *orchv1.NodeUsage) topRow {
	row := topRow{Node: n.GetNode(), Error: n.GetError()}
	var capacity api.ResourceList
	if x := u.nodes[n.GetNode()]; x != nil {
		capacity, row.Requested = x.Status.Capacity, x.Status.Requested
	}
	if row.Error != "" {
		return row
	}
	row.usedNow = &usedNow{n.GetCpuMilli(), n.GetMemoryBytes(), capacity[api.CPU].Milli(), capacity[api.Memory].Value()}
	row.WindowSeconds = n.GetWindow().AsDuration().Seconds()
	row.DiskBytes, row.DiskFreeBytes = n.GetDiskBytes(), n.GetDiskFreeBytes()
	return row
}

// replicaRows gives one node's.
func (u using) replicaRows(n *orchv1.NodeUsage, x topped) []topRow {
	var out []topRow
	if n.GetError() != "" {
		for key, r := range u.replicas {
			if r.Spec.Node == n.GetNode() && !r.Status.Phase.Ended() && x.means(key) {
				out = append(out, topRow{Namespace: key.Namespace, Name: key.Name(), Epoch: key.Epoch, Node: n.GetNode(), Error: n.GetError(), service: key.Service})
			}
		}
		return out
	}
	for _, r := range n.GetReplicas() {
		key := wire.KeyFromPB(r.GetKey())
		if _, listed := u.replicas[key]; !x.means(key) || x.selector != "" && !listed {
			continue
		}
		row := topRow{Namespace: key.Namespace, Name: key.Name(), Epoch: key.Epoch, Node: n.GetNode(), service: key.Service}
		if !x.containers {
			row.usedNow = sumOf(r.GetContainers())
			out = append(out, row)
			continue
		}
		for _, c := range r.GetContainers() {
			row.Container, row.usedNow = c.GetName(), sumOf([]*orchv1.ContainerUsage{c})
			out = append(out, row)
		}
	}
	return out
}

// means tells whether one of the names is the replica's, or its service's.
func (x topped) means(key api.ReplicaKey) bool {
	return len(x.names) == 0 || slices.ContainsFunc(x.names, func(name string) bool {
		return name == key.Name() || name == key.Service || name == fmt.Sprintf("%s@%d", key.Name(), key.Epoch)
	})
}

// sumOf adds up containers; one without a limit leaves the whole without.
func sumOf(list []*orchv1.ContainerUsage) *usedNow {
	var a usedNow
	noCPU, noMemory := false, false
	for _, c := range list {
		a.CPUMilli += c.GetCpuMilli()
		a.MemoryBytes += c.GetMemoryBytes()
		a.CPULimitMilli += c.GetCpuLimitMilli()
		a.MemoryLimitBytes += c.GetMemoryLimitBytes()
		noCPU = noCPU || c.GetCpuLimitMilli() == 0
		noMemory = noMemory || c.GetMemoryLimitBytes() == 0
	}
	if noCPU {
		a.CPULimitMilli = 0
	}
	if noMemory {
		a.MemoryLimitBytes = 0
	}
	return &a
}

// table gives titles and cells.
func (u using) table(x topped) ([]string, [][]string) {
	rows := u.rows(x)
	titles := []string{"NODE", "CPU(cores)", "CPU%", "MEMORY", "MEMORY%", "DISK%", "REQUESTED"}
	if x.wants {
		titles = []string{"NAME", "CPU(cores)", "CPU%", "MEMORY", "MEMORY%", "NODE"}
		if x.containers {
			titles = slices.Insert(titles, 1, "CONTAINER")
		}
		if x.namespace == "" {
			titles = slices.Insert(titles, 0, "NAMESPACE")
		}
	}
	times := map[string]map[uint64]bool{} // epochs by slot
	for _, r := range rows {
		slot := r.Namespace + "/" + r.Name
		if times[slot] == nil {
			times[slot] = map[uint64]bool{}
		}
		times[slot][r.Epoch] = true
	}
	var out [][]string
	for _, r := range rows {
		used := r.cells()
		if !x.wants {
			out = append(out, slices.Concat([]string{r.Node}, used, []string{r.disk(), r.requested()}))
			continue
		}
		name := r.Name
		if len(times[r.Namespace+"/"+r.Name]) > 1 {
			name = fmt.Sprintf("%s@%d", r.Name, r.Epoch)
		}
		row := []string{name}
		if x.containers {
			row = append(row, cmp.Or(r.Container, "?"))
		}
		if x.namespace == "" {
			row = slices.Insert(row, 0, r.Namespace)
		}
		out = append(out, append(append(row, used...), r.Node))
	}
	return titles, out
}

// cells gives cpu and memory with their shares.
func (r topRow) cells() []string {
	if r.usedNow == nil {
		return []string{"?", "?", "?", "?"}
	}
	return []string{fmt.Sprintf("%dm", r.CPUMilli), percent(r.CPUMilli, r.CPULimitMilli), mebibytes(r.MemoryBytes), percent(r.MemoryBytes, r.MemoryLimitBytes)}
}

// mebibytes gives memory in one unit for all rows, so that they can be compared.
func mebibytes(n int64) string { return strconv.FormatInt((n+1<<19)>>20, 10) + "Mi" }

func (r topRow) disk() string {
	if r.usedNow == nil {
		return "?"
	}
	return percent(r.DiskBytes-r.DiskFreeBytes, r.DiskBytes)
}

// requested says what replicas have asked for: "cpu 0.5 (25%), memory 128Mi (6%)".
func (r topRow) requested() string {
	cpu, memory := r.Requested[api.CPU], r.Requested[api.Memory]
	if r.usedNow == nil || r.CPULimitMilli == 0 && r.MemoryLimitBytes == 0 {
		return "-"
	}
	return fmt.Sprintf("cpu %s (%s), memory %s (%s)", cores(cpu), percent(cpu.Milli(), r.CPULimitMilli), bytesText(memory), percent(memory.Value(), r.MemoryLimitBytes))
}

// percent gives a share as a whole number; "-" of nothing.
func percent(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return strconv.FormatInt(int64(float64(part)/float64(whole)*100+0.5), 10) + "%"
}
