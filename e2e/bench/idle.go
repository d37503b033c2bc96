package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/lab"
)

const (
	idleReplicas = 12
	// ticksPerSecond of /proc/PID/stat: fixed in the kernel's interface on
	// every architecture that Go and Linux share.
	ticksPerSecond = 100
)

// idle measures agents and controller over a minute in which nothing happens,
// with twelve probed replicas on the fleet.
func idle(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	minute := time.Duration(b.runs(60, 5)) * time.Second
	rss, cpu := map[string][]float64{}, map[string][]float64{}
	err = b.with(ctx, service("idle", idleReplicas, true), func() error {
		pids, err := b.daemons(ctx)
		if err != nil {
			return err
		}
		used, err := cpuOver(ctx, pids, minute)
		if err != nil {
			return err
		}
		for pid, program := range pids {
			bytes, err := residentBytes(pid)
			if err != nil {
				return err
			}
			cpu[program] = append(cpu[program], used[pid])
			rss[program] = append(rss[program], float64(bytes)/1e6)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		program string
		mb      float64
	}{{"agent", 40}, {"controller", 120}} {
		if err := b.add("idle."+f.program+".rss", "MB", rss[f.program], load, report.AtMost(f.mb, "")); err != nil {
			return err
		}
		if err := b.add("idle."+f.program+".cpu", "%", cpu[f.program], load, report.AtMost(1, "of a core")); err != nil {
			return err
		}
	}
	return nil
}

// daemons gives the agents and the controller by their process id.
func (b *bench) daemons(ctx context.Context) (map[int]string, error) {
	s, err := b.Lab.Status(ctx)
	if err != nil {
		return nil, err
	}
	if s.Controller == nil {
		return nil, fmt.Errorf("lab %s has no controller", s.Name)
	}
	out := map[int]string{}
	for _, h := range append([]lab.HostStatus{*s.Controller}, s.Nodes...) {
		for _, p := range h.Processes {
			if p.Pid != 0 && (p.Name == "agent" || p.Name == "controller") {
				out[p.Pid] = p.Name
			}
		}
	}
	if len(out) != nodeCount+1 {
		return nil, fmt.Errorf("%d agents and controllers run, want %d", len(out), nodeCount+1)
	}
	return out, nil
}

// cpuOver gives what each of these processes uses of a core in a time, in percent.
func cpuOver[T any](ctx context.Context, pids map[int]T, d time.Duration) (map[int]float64, error) {
	before, out := map[int]time.Duration{}, map[int]float64{}
	began := time.Now()
	for pid := range pids {
		var err error
		if before[pid], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	if err := rest(ctx, d); err != nil {
		return nil, err
	}
	for pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		out[pid] = 100 * (used - before[pid]).Seconds() / time.Since(began).Seconds()
	}
	return out, nil
}

// cpuTime is what a process has used since its start.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields are counted after it.
	// utime and stime are fields 14 and 15 of the line, 12 and 13 of the rest.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read /proc/%d/stat: %q", pid, b)
	}
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

func residentBytes(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read /proc/%d/status: no VmRSS", pid)
}
