// Command run tries seeds of the step simulator, or tells the story of one.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/sim"
)

func main() {
	var (
		seed    = flag.Uint64("seed", 0, "replay one seed and tell its story")
		seeds   = flag.Int("seeds", 500, "how many seeds to try")
		from    = flag.Uint64("from", 1, "the first seed; with -for 0 means: by the clock")
		steps   = flag.Int("steps", sim.StepsDefault, "steps with faults in each run")
		lasting = flag.Duration("for", 0, "try seeds for so long instead of a number of them")
		without = flag.String("without", "", "kinds of faults to leave out: "+sim.AllFaults.String())
		jobs    = flag.Int("jobs", runtime.GOMAXPROCS(0), "runs at a time")
		shrink  = flag.Bool("shrink", true, "look for a smaller run that fails alike")
	)
	flag.Parse()
	left, err := sim.ParseFaults(*without)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	c := sim.Config{Steps: *steps, Without: left}
	if *seed != 0 {
		c.Seed, c.Tell = *seed, true
		os.Exit(tell(sim.Run(c)))
	}
	first := *from
	if *lasting > 0 && !isSet("from") {
		first = uint64(time.Now().UnixNano()) // seeds that nobody has tried yet
	}
	os.Exit(try(c, first, *seeds, *lasting, *jobs, *shrink))
}

func isSet(name string) bool {
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func tell(r sim.Result) int {
	for _, line := range r.Story {
		fmt.Println(line)
	}
	fmt.Printf("seed %d: %d steps, %.0f s of virtual time, %d requests, %d commits, %d terms, %d containers started, %d stopped, %d spares, settled in %s, hash %016x\n",
		r.Config.Seed, r.Steps, r.Virtual.Seconds(), r.Requests, r.Commits, r.Terms, r.Starts, r.Stops, r.Spares, r.Settled, r.Hash)
	if r.Violation != nil {
		fmt.Println(r.Violation)
		return 1
	}
	return 0
}

// try runs seeds, several at a time, until one fails.
func try(c sim.Config, first uint64, seeds int, lasting time.Duration, jobs int, shrink bool) int {
	var (
		mu      sync.Mutex
		next    uint64
		sum     sim.Result
		done    int
		failing *sim.Result
		began   = time.Now()
		wait    sync.WaitGroup
	)
	sum.Faults = map[sim.Fault]int{}
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if failing != nil || lasting == 0 && next >= uint64(seeds) || lasting > 0 && time.Since(began) > lasting {
			return 0, false
		}
		next++
		return first + next - 1, true
	}
	for range jobs {
		wait.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				c := c
				c.Seed = seed
				r := sim.Run(c)
				mu.Lock()
				done++
				add(&sum, r)
				if r.Violation != nil && (failing == nil || seed < failing.Config.Seed) {
					failing = &r
				}
				if lasting > 0 && done%1000 == 0 {
					fmt.Printf("%d seeds, %.0f s\n", done, time.Since(began).Seconds())
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	took := time.Since(began)
	fmt.Printf("%d seeds, %d steps, %.1f h of virtual time in %.1f s on %d cores: %.0f steps per second\n",
		done, sum.Steps, sum.Virtual.Hours(), took.Seconds(), jobs, float64(sum.Steps)/took.Seconds())
	fmt.Printf("per run: %.0f s virtual, settled in %.1f s; %.1f requests, %.1f commits, %.1f terms, %.1f starts, %.1f stops, %.1f spares\n",
		per(sum.Virtual.Seconds(), done), per(sum.Settled.Seconds(), done), per(sum.Requests, done), per(sum.Commits, done), per(sum.Terms, done), per(sum.Starts, done), per(sum.Stops, done), per(sum.Spares, done))
	fmt.Print("faults per run:")
	sim.AllFaults.Each(func(k sim.Fault) { fmt.Printf(" %s %.1f", k, per(sum.Faults[k], done)) })
	fmt.Println()
	if failing == nil {
		return 0
	}
	r := *failing
	fmt.Printf("\nseed %d fails: %s\n", r.Config.Seed, r.Violation)
	if shrink {
		r = sim.Shrink(r.Config)
		fmt.Printf("the smallest run found that fails alike: %s\n", r.Violation)
	}
	for _, line := range r.Story {
		fmt.Println(line)
	}
	fmt.Printf("replay: %s\n", r.Replay())
	return 1
}

func add(sum *sim.Result, r sim.Result) {
	sum.Steps += r.Steps
	sum.Virtual += r.Virtual
	sum.Settled += r.Settled
	sum.Requests += r.Requests
	sum.Commits += r.Commits
	sum.Terms += r.Terms
	sum.Starts += r.Starts
	sum.Stops += r.Stops
	sum.Spares += r.Spares
	for k, n := range r.Faults {
		sum.Faults[k] += n
	}
}

func per[N int | float64](n N, runs int) float64 { return float64(n) / float64(max(runs, 1)) }
