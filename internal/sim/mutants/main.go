// Command mutants breaks the real code on purpose, one small mistake at a time,
// and shows that each is caught: by the step simulator, or, where a mistake is
// about what that does not run, by the tests that its row names.
//
//	go run ./internal/sim/mutants [-only regexp] [-alone] [-md file]
//
// The table is data (table_*.go). The tree is never changed: each mistake is
// built from an overlay. What is caught must pass without the mistake, so that
// nothing is caught by an error that is there anyway. It ends with 1 if a mistake
// survived, with 2 if the table does not fit the code any more.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"time"
)

// mutation is one mistake.
type mutation struct {
	breaks string // the invariant that it is meant to break
	file   string // from the root of the module
	old    string // occurs there once
	new    string
	why    string // what is wrong then, in a clause
	// test names the net, where it is not the step simulator: a package and flags
	// of its test binary.
	test string
}

// verdict is what became of one.
type verdict struct {
	mutation
	err    error // it could not be tried
	caught string
	by     string // how
	seeds  int
	took   time.Duration
	alone  string // what the tests of its own package say
}

func main() {
	var (
		only   = flag.String("only", "", "try those only whose invariant, file or text matches this regular expression")
		seeds  = flag.Int("seeds", 2000, "most seeds to try with each")
		from   = flag.Uint64("from", 1, "the first seed")
		within = flag.Duration("within", 3*time.Minute, "most time to try each")
		jobs   = flag.Int("jobs", 2, "how many to try at a time")
		alone  = flag.Bool("alone", false, "also ask the tests of the package that has the mistake")
		md     = flag.String("md", "", "file for the outcome as a table in Markdown")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pick, err := regexp.Compile(*only)
	fail(err)
	var chosen []mutation
	for _, m := range table() {
		fail(m.check())
		if pick.MatchString(m.breaks + " " + m.file + " " + m.why) {
			chosen = append(chosen, m)
		}
	}
	dir, err := os.MkdirTemp("", "orch-mutants-")
	fail(err)
	defer os.RemoveAll(dir)
	l := &lab{dir: dir, from: *from, seeds: *seeds, within: *within, alone: *alone, clean: map[string]*clean{}}
	verdicts := make([]verdict, len(chosen))
	turn := make(chan int)
	var wait sync.WaitGroup
	for range *jobs {
		wait.Go(func() {
			for i := range turn {
				verdicts[i] = l.try(ctx, i, chosen[i])
				fmt.Println(verdicts[i])
			}
		})
	}
	for i := range chosen {
		turn <- i
	}
	close(turn)
	wait.Wait()
	fail(l.sound(ctx, verdicts))
	if *md != "" {
		fail(os.WriteFile(*md, []byte(markdown(verdicts)), 0o644))
	}
	os.Exit(sum(verdicts))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// String gives the line of one.
func (v verdict) String() string {
	what := "caught  "
	switch {
	case v.err != nil:
		what = "ERROR   "
	case v.caught == "":
		what = "SURVIVED"
	}
	line := fmt.Sprintf("%s %-3s %s: %s\n             %s", what, v.breaks, v.file, v.why, v.outcome())
	if v.alone != "" {
		line += "; its package's tests: " + v.alone
	}
	return fmt.Sprintf("%s (%.0fs)", line, v.took.Seconds())
}

func (v verdict) outcome() string {
	switch {
	case v.err != nil:
		return v.err.Error()
	case v.test != "":
		return v.by
	case v.caught == "":
		return fmt.Sprintf("%d seeds found nothing", v.seeds)
	}
	return fmt.Sprintf("by %s after %d seeds: %s", v.caught, v.seeds, v.by)
}

func markdown(vs []verdict) string {
	var b strings.Builder
	b.WriteString("| breaks | mistake | caught by | seeds | its package's tests |\n|---|---|---|---|---|\n")
	for _, v := range vs {
		by, seeds := v.caught, fmt.Sprint(v.seeds)
		switch {
		case v.err != nil || v.caught == "":
			by = "**nothing**"
		case v.test != "":
			by, seeds = "`"+strings.Fields(v.test)[0]+"` "+v.caught, "-"
		}
		fmt.Fprintf(&b, "| %s | `%s`: %s | %s | %s | %s |\n", v.breaks, v.file, v.why, by, seeds, v.alone)
	}
	return b.String()
}

// sum prints what all came to and gives the code to end with.
func sum(vs []verdict) int {
	caught, code := 0, 0
	for _, v := range vs {
		switch {
		case v.err != nil:
			code = 2
		case v.caught != "":
			caught++
		default:
			code = max(code, 1)
		}
	}
	fmt.Printf("%d of %d mistakes are caught\n", caught, len(vs))
	return code
}
