// Command run tries seeds of the step simulator, or tells the story of one.
package main

import (
	"errors"
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
		skip    = flag.String("skip", "", "single faults to leave out, by their numbers in the story: 1-3,7")
		skipReq = flag.String("skip-requests", "", "likewise single requests of users")
		out     = flag.String("out", "", "folder to add the summary to, as a line of JSON in sim.jsonl")
		goOn    = flag.Bool("keep-going", false, "do not stop at the first seed that fails: list them all")
		asJSON  = flag.Bool("json", false, "print the summary as a line of JSON instead")
	)
	flag.Parse()
	c := sim.Config{Steps: *steps}
	var errs [3]error
	c.Without, errs[0] = sim.ParseFaults(*without)
	c.Skip, errs[1] = sim.ParseNumbers(*skip)
	c.SkipRequests, errs[2] = sim.ParseNumbers(*skipReq)
	if err := errors.Join(errs[:]...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if *seed != 0 {
		c.Seed, c.Tell = *seed, true
		os.Exit(tell(sim.Run(c)))
	}
	first := *from
	if *lasting > 0 && !isSet("from") {
		first = uint64(time.Now().UnixNano()) // seeds that nobody has tried yet
	}
	s, failing := try(c, first, *seeds, *lasting, *jobs, !*asJSON, *goOn)
	if err := s.write(*out, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if failing != nil {
		report(*failing, *shrink, *asJSON)
		os.Exit(1)
	}
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

// try runs seeds, several at a time, until one fails, or all of them.
func try(c sim.Config, first uint64, seeds int, lasting time.Duration, jobs int, progress, goOn bool) (summary, *sim.Result) {
	var (
		mu      sync.Mutex
		next    uint64
		sum     = summary{Name: "sim", First: first, Cores: jobs, Without: c.Without.String(), Faults: map[string]int{}}
		failing *sim.Result
		began   = time.Now()
		wait    sync.WaitGroup
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if failing != nil && !goOn || lasting == 0 && next >= uint64(seeds) || lasting > 0 && time.Since(began) > lasting {
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
				sum.add(r)
				if r.Violation != nil && goOn {
					fmt.Fprintf(os.Stderr, "seed %d fails: %s\n", seed, r.Violation)
				}
				if r.Violation != nil && (failing == nil || seed < failing.Config.Seed) {
					failing = &r
				}
				if progress && lasting > 0 && sum.Seeds%1000 == 0 {
					fmt.Printf("%d seeds, %.0f s\n", sum.Seeds, time.Since(began).Seconds())
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	sum.Took = time.Since(began).Seconds()
	if failing != nil {
		sum.Failed = &failure{failing.Config.Seed, failing.Violation.Invariant}
	}
	return sum, failing
}

// report tells the story of a failing seed; to standard error where standard
// output is for machines.
func report(r sim.Result, shrink, asJSON bool) {
	out := os.Stdout
	if asJSON {
		out = os.Stderr
	}
	fmt.Fprintf(out, "\nseed %d fails: %s\n", r.Config.Seed, r.Violation)
	if shrink {
		fmt.Fprintf(out, "replay: %s\n", r.Replay())
		r = sim.Shrink(r.Config)
		fmt.Fprintf(out, "the smallest run found that fails alike: %s\n", r.Violation)
	}
	for _, line := range r.Story {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "replay: %s\n", r.Replay())
}
