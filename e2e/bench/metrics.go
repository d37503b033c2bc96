package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/internal/bench/report"
)

// meteredReplicas are on the fleet while the cost of metrics is taken.
const meteredReplicas = 200

// metered measures what being scraped costs: cpu of agents and controller in windows
// without a scrape, with one every 15 s, as Prometheus is mostly told, and with one every
// second. Windows take turns, so that what else the machine does falls on all alike.
func metered(ctx context.Context, b *bench) error {
	window, rounds := time.Duration(b.runs(30, 4))*time.Second, b.runs(3, 1)
	intervals := []struct {
		name  string
		every time.Duration
	}{{"none", 0}, {"15s", 15 * time.Second}, {"1s", time.Second}}
	replicas := b.runs(meteredReplicas, 20)
	load, err := report.Load()
	if err != nil {
		return err
	}
	cpu := map[string][]float64{} // by program and interval
	var took, size = map[string][]float64{}, map[string][]float64{}
	err = b.with(ctx, service("metered", replicas, true), func() error {
		pids, err := b.daemons(ctx)
		if err != nil {
			return err
		}
		if err := rest(ctx, time.Duration(b.runs(10, 1))*time.Second); err != nil { // until the starts are over
			return err
		}
		for range rounds {
			for _, x := range intervals {
				seen, err := b.scraped(ctx, x.every, func() (map[int]float64, error) { return cpuOver(ctx, pids, window) })
				if err != nil {
					return err
				}
				for pid, percent := range seen.cpu {
					key := pids[pid] + ".cpu." + x.name
					cpu[key] = append(cpu[key], percent)
				}
				for program, s := range seen.took {
					took[program] = append(took[program], s...)
				}
				for program, s := range seen.sizes {
					size[program] = append(size[program], s...)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, program := range []string{"controller", "agent"} {
		for _, x := range intervals {
			key := program + ".cpu." + x.name
			if err := b.add("metrics."+key, "%", cpu[key], load, report.Aim{Beside: "of a core"}); err != nil {
				return err
			}
		}
		if err := b.add("metrics."+program+".scrape", "ms", took[program], load, report.AtMost(100, "")); err != nil {
			return err
		}
		if err := b.add("metrics."+program+".size", "MB", size[program], load, report.AtMost(2, "")); err != nil {
			return err
		}
	}
	return nil
}

// scrapes are what one window saw; how long scrapes took in ms and how large they were in MB, by program.
type scrapes struct {
	cpu         map[int]float64
	took, sizes map[string][]float64
}

// scraped runs measure while all daemons are scraped that often; 0: not at all.
func (b *bench) scraped(ctx context.Context, every time.Duration, measure func() (map[int]float64, error)) (scrapes, error) {
	out := scrapes{took: map[string][]float64{}, sizes: map[string][]float64{}}
	scraping, stop := context.WithCancel(ctx)
	defer stop()
	type one struct {
		program   string
		took, big float64
	}
	var g errgroup.Group
	lists := make([][]one, len(b.nodes)+1)
	for i, node := range slices.Concat([]string{""}, b.nodes) {
		if every == 0 {
			break
		}
		program := "agent"
		if node == "" {
			program = "controller"
		}
		g.Go(func() error {
			d := b.Daemon(node)
			defer d.Close()
			for scraping.Err() == nil {
				began := time.Now()
				code, body, err := d.Get(scraping, "/metrics")
				if scraping.Err() != nil {
					return nil
				}
				if err == nil && code != 200 {
					err = fmt.Errorf("answer %d", code)
				}
				if err != nil {
					return fmt.Errorf("scrape the %s on %q: %w", program, node, err)
				}
				lists[i] = append(lists[i], one{program, float64(time.Since(began)) / float64(time.Millisecond), float64(len(body)) / 1e6})
				_ = rest(scraping, every-time.Since(began)) // the loop sees why it ended
			}
			return nil
		})
	}
	var err error
	out.cpu, err = measure()
	stop()
	err = errors.Join(err, g.Wait())
	for _, list := range lists {
		for _, x := range list {
			out.took[x.program] = append(out.took[x.program], x.took)
			out.sizes[x.program] = append(out.sizes[x.program], x.big)
		}
	}
	return out, err
}
