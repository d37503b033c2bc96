package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

const (
	labName   = "demo"
	service   = "hello"
	manifest  = "manifests/examples/demo.yaml"
	nodeCount = 3
	replicas  = 3
	// runMax bounds the whole demo: it takes about half a minute, and one that
	// hangs must end and tidy up.
	runMax = 5 * time.Minute
	// downMax bounds the taking down.
	downMax = time.Minute
)

func main() {
	keep := flag.Bool("keep", false, "leave the fleet up at the end and say what to try next")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run plays the demo and takes the fleet down, unless it is to be kept.
func run(ctx context.Context, keep bool) error {
	d := &demo{talk: &talk{out: os.Stdout}}
	if err := lab.Remove(ctx, labName, lab.DirFor(labName)); err != nil {
		return fmt.Errorf("remove what an earlier demo left: %w", err)
	}
	began := time.Now()
	playing, cancel := context.WithTimeout(ctx, runMax)
	defer cancel()
	err := d.play(playing)
	if err != nil && ctx.Err() == nil && d.fleet != nil {
		d.fleet.Dump(context.WithoutCancel(ctx), os.Stderr)
	}
	if keep && ctx.Err() == nil && d.fleet != nil {
		d.next()
		return err
	}
	down, cancelDown := context.WithTimeout(context.WithoutCancel(ctx), downMax)
	defer cancelDown()
	if err := errors.Join(err, d.takeDown(down)); err != nil {
		return err
	}
	d.say("That was the whole of it, in %s.", seconds(time.Since(began)))
	return nil
}

// takeDown is the last step, and what follows a failure.
func (d *demo) takeDown(ctx context.Context) error {
	d.heading("The fleet goes")
	if err := d.orchctl(ctx, "lab", "down", "--name", labName); err != nil {
		// It must go in any case.
		return errors.Join(err, lab.Remove(ctx, labName, lab.DirFor(labName)))
	}
	left, err := lab.List()
	if err != nil {
		return err
	}
	if slices.Contains(left, labName) {
		return fmt.Errorf("something of lab %s is left", labName)
	}
	if _, err := os.Stat(lab.DirFor(labName)); err == nil {
		return fmt.Errorf("folder %s is left", lab.DirFor(labName))
	}
	d.say("Nothing is left on this machine: no process, no network namespace, no cgroup, no folder of the fleet.")
	return nil
}

// next says what to try with a fleet that stays up.
func (d *demo) next() {
	d.heading("The fleet stays up: what to try next")
	fetch := "  # with curl installed, this would ask a replica: orchctl lab exec --name demo -- curl -s " + d.url
	if _, err := exec.LookPath("curl"); err == nil {
		fetch = "  orchctl lab exec --name demo -- curl -s " + d.url
	}
	fmt.Fprintf(d.out, `
  export PATH=%s/bin:$PATH ORCH_CONFIG=%s

  orchctl get nodes                              # who is there
  orchctl get replicas -o wide -w                # watch, while you do the rest elsewhere
  orchctl describe service hello                 # all that is known of it, and why
  orchctl logs service/hello --tail 5            # of all its replicas
%s
  orchctl scale service/hello --replicas 6

  orchctl lab kill --name demo n3                # cut another node's power
  orchctl lab start --name demo n3
  orchctl lab cut --name demo n1                 # cut its network; its containers run on
  orchctl lab heal --name demo
  orchctl lab pause --name demo n2 agent --for 3s  # slow, not dead: nothing happens
  orchctl lab kill-controller --name demo        # the containers do not care
  orchctl lab start-controller --name demo
  orchctl events -A                              # what happened, and why

  orchctl lab down --name demo                   # when you are done
`, rig.Root(), d.config, fetch)
}
