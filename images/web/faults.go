package main

import (
	"flag"
	"fmt"
	"io"
	"time"
)

// faults are the ways in which the server misbehaves from its start.
type faults struct {
	slowStart  time.Duration
	neverReady bool
	// crashAfter is below 0 where it does not crash.
	crashAfter time.Duration
}

func (f *faults) flags(set *flag.FlagSet) {
	f.crashAfter = -1
	set.DurationVar(&f.slowStart, "slow-start", 0, "not well for so long")
	set.BoolVar(&f.neverReady, "never-ready", false, "never well")
	set.Func("crash-after", "exit with code 3 after this `duration`, saying that a database cannot be opened", func(text string) (err error) {
		f.crashAfter, err = time.ParseDuration(text)
		return err
	})
}

// crashCode is what the server exits with where it is told to crash.
const crashCode = 3

// crash ends as programs do that miss what they need: with a last word.
func crash(out io.Writer, exit func(int)) {
	fmt.Fprintln(out, "opening database db:5432")
	fmt.Fprintln(out, "cannot open database: connection refused")
	exit(crashCode)
}

// unwell says why the server is not well; "" if it is.
func (w *web) unwell() string {
	switch {
	case w.neverReady:
		return "never ready, as told"
	case w.failing.Load():
		return "failing"
	case time.Now().Before(w.wellFrom):
		return "starting"
	}
	return ""
}
