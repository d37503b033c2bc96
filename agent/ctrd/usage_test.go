package ctrd

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// What both cgroup versions tell, as they tell it.
func TestReadUsage(t *testing.T) {
	v1 := map[string]string{
		"cpuacct/orch/a/cpuacct.usage":        "2500000000\n",
		"cpu/orch/a/cpu.cfs_quota_us":         "50000\n",
		"cpu/orch/a/cpu.cfs_period_us":        "100000\n",
		"memory/orch/a/cgroup.procs":          "17\n18\n",
		"memory/orch/a/memory.usage_in_bytes": "104857600\n",
		"memory/orch/a/memory.limit_in_bytes": "209715200\n",
		"memory/orch/a/memory.stat":           "cache 9\ninactive_file 5\ntotal_inactive_file 4857600\n",
		"pids/orch/a/pids.current":            "2\n",
	}
	v2 := map[string]string{
		"orch/a/cpu.stat":       "usage_usec 2500000\nuser_usec 1\n",
		"orch/a/cpu.max":        "50000 100000\n",
		"orch/a/cgroup.events":  "populated 1\nfrozen 0\n",
		"orch/a/memory.current": "104857600\n",
		"orch/a/memory.max":     "209715200\n",
		"orch/a/memory.stat":    "anon 9\ninactive_file 4857600\n",
		"orch/a/pids.current":   "2\n",
	}
	full := ContainerUsage{CPU: 2500 * time.Millisecond, Memory: 100_000_000, MemoryLimit: 200 << 20, CPULimit: 500, Pids: 2}
	open := full
	open.MemoryLimit, open.CPULimit = 0, 0
	for _, c := range []struct {
		name  string
		v2    bool
		files map[string]string // beside v1 or v2
		want  ContainerUsage
		runs  bool
	}{
		{"v1", false, nil, full, true},
		{"v1 without limits", false, map[string]string{"cpu/orch/a/cpu.cfs_quota_us": "-1\n", "memory/orch/a/memory.limit_in_bytes": "9223372036854771712\n"}, open, true},
		{"v1 after its end", false, map[string]string{"memory/orch/a/cgroup.procs": ""}, ContainerUsage{}, false},
		{"v2", true, nil, full, true},
		{"v2 without limits", true, map[string]string{"orch/a/cpu.max": "max 100000\n", "orch/a/memory.max": "max\n"}, open, true},
		{"v2 after its end", true, map[string]string{"orch/a/cgroup.events": "populated 0\nfrozen 0\n"}, ContainerUsage{}, false},
		{"more to drop than there is", true, map[string]string{"orch/a/memory.stat": "inactive_file 999999999\n"}, func() ContainerUsage { u := full; u.Memory = 0; return u }(), true},
	} {
		root := t.TempDir()
		files := maps.Clone(v1)
		if c.v2 {
			files = maps.Clone(v2)
		}
		maps.Copy(files, c.files)
		for name, text := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, runs := readUsage(root, c.v2, "/orch/a"); got != c.want || runs != c.runs {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, runs, c.want, c.runs)
		}
		if got, runs := readUsage(root, c.v2, "/orch/b"); runs {
			t.Errorf("%s: one that is not there: %+v", c.name, got)
		}
	}
}

// usageOf gives what Usage says of a container; false: nothing.
func usageOf(t *testing.T, id string) (ContainerUsage, bool) {
	t.Helper()
	list, err := env.r.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(u ContainerUsage) bool { return u.ID == id })
	if i < 0 {
		return ContainerUsage{}, false
	}
	return list[i], true
}

// A container that burns and eats is told to have done so, and one that has ended uses
// nothing.
func TestUsage(t *testing.T) {
	s := spec("eat=24", "burn=300ms", "wait=0")
	s.Container.Resources = api.Resources{Limits: api.ResourceList{api.Memory: api.Whole(128 << 20), api.CPU: 1500}}
	o := start(t, s)
	idle := spec("sleep")
	idle.Container.Name = "side"
	b := start(t, idle)
	prints(t, s, "stdout ate 24", "stdout burnt", "stdout waiting")
	u, ok := usageOf(t, o.ID)
	if !ok || u.Replica != s.Replica || u.Container != "main" || u.Pids < 1 || u.MemoryLimit != 128<<20 || u.CPULimit != 1500 ||
		u.Memory < 24<<20 || u.Memory > 96<<20 || u.CPU < 100*time.Millisecond || u.CPU > time.Minute {
		t.Errorf("usage %+v, %v", u, ok)
	}
	if u, ok := usageOf(t, b.ID); !ok || u.Container != "side" || u.MemoryLimit != 0 || u.CPULimit != 0 || u.Memory > 24<<20 {
		t.Errorf("the idle one: %+v, %v", u, ok)
	}
	if err := env.r.Stop(t.Context(), o.ID, time.Second, "a test"); err != nil {
		t.Fatal(err)
	}
	if u, ok := usageOf(t, o.ID); ok {
		t.Errorf("it has ended: %+v", u)
	}
	remove(t, b.ID)
	if _, ok := usageOf(t, b.ID); ok || env.r.owners[b.ID] != (Observed{}) {
		t.Error("it is gone, and still known")
	}
}

func TestDisk(t *testing.T) {
	size, free, err := env.r.Disk(t.Context())
	if err != nil || size <= 0 || free < 0 || free > size {
		t.Errorf("disk of %d bytes, %d free, %v", size, free, err)
	}
	if dir := env.r.snapshots; dir != filepath.Join(env.dir, "root", "io.containerd.snapshotter.v1.overlayfs") {
		t.Errorf("it looks at %s", dir)
	}
}
