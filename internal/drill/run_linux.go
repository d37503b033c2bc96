package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/follow"
	"github.com/orchctl/orch/internal/lab"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// settleMax is how long the fleet may take to come to rest before and after
	// a drill: a node that is powered on again takes a second, a container that
	// stops its grace.
	settleMax = time.Minute
	// commandMax bounds one call of orchctl.
	commandMax = 3 * time.Minute
)

// Config is where drills run.
type Config struct {
	Lab *lab.Lab
	// Orchctl is the path of the binary that applies, scales and deletes.
	Orchctl string
	// Out takes the story for people.
	Out io.Writer
}

// Runner runs drills in one lab, one at a time.
type Runner struct {
	cfg    Config
	conn   *grpc.ClientConn
	client orchv1.OrchClient
	loaded map[string]bool // images that the lab has
}

// NewRunner connects to the lab's controller. Close it.
func NewRunner(ctx context.Context, cfg Config) (*Runner, error) {
	file, err := clientconfig.Load(cfg.Lab.AdminContext())
	if err != nil {
		return nil, err
	}
	c, err := file.Context("")
	if err != nil {
		return nil, err
	}
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &Runner{cfg: cfg, conn: conn, client: orchv1.NewOrchClient(conn), loaded: map[string]bool{}}, nil
}

// Close ends the connection; the lab stays.
func (r *Runner) Close() error { return r.conn.Close() }

// run is one drill under way.
type run struct {
	*Runner
	drill  *Drill
	view   *follow.Follower
	census *census
	began  time.Time
	zero   time.Time // from which "within" counts: the last fault
	spares map[api.ReplicaKey]bool
	used   map[string]bool // services that were applied
	leased map[string]bool // of those, the ones that a fault may rightly end
	result Result
}

// Run runs one drill and leaves the lab whole. What the drill finds wrong is in
// the result; an error means that it could not be run.
func (r *Runner) Run(ctx context.Context, d *Drill) (result Result, err error) {
	x := &run{Runner: r, drill: d, census: newCensus(r.cfg.Lab), began: time.Now(), spares: map[api.ReplicaKey]bool{}, used: map[string]bool{}, leased: map[string]bool{}}
	x.result.Drill = d.Name
	if s, err := r.cfg.Lab.Status(ctx); err != nil {
		return x.result, err
	} else if len(s.Nodes) < d.Nodes {
		return x.result, fmt.Errorf("drill %s: it wants %d nodes, but lab %s has %d; to add one: orchctl lab add --name %s",
			d.Name, d.Nodes, r.cfg.Lab.Name(), len(s.Nodes), r.cfg.Lab.Name())
	}
	fmt.Fprintf(r.cfg.Out, "drill %s: %s\n", d.Name, d.About)
	if x.view, err = follow.New(ctx, r.client); err != nil {
		return x.result, err
	}
	defer x.view.Close()
	defer func() { err = errors.Join(err, x.restore(context.WithoutCancel(ctx))) }()

	watching, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { x.census.run(watching) })
	defer group.Wait()
	defer stop()

	if err := x.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return x.result, x.interrupted(ctx)
		}
		return x.result, fmt.Errorf("drill %s: prepare: %w", d.Name, err)
	}
	x.began = time.Now()
	x.zero = x.began
	x.result.Passed = true
	for _, s := range d.Steps {
		if ok := x.step(ctx, s); ctx.Err() != nil {
			x.result.Passed = false
			return x.result, x.interrupted(ctx)
		} else if !ok {
			x.result.Passed = false
			x.result.Why = fmt.Sprintf("%s:%d: %s: %s", d.File, s.Line, s.Text, x.result.Steps[len(x.result.Steps)-1].Why)
			break
		}
	}
	return x.conclude()
}

// interrupted is no verdict on the drill: somebody wants it to end.
func (x *run) interrupted(ctx context.Context) error {
	fmt.Fprintf(x.cfg.Out, "  %s: interrupted; making the lab whole again\n", x.drill.Name)
	return fmt.Errorf("drill %s was interrupted: %w", x.drill.Name, context.Cause(ctx))
}

func (x *run) conclude() (Result, error) {
	ended, err := x.census.wrongful()
	x.result.Wrongful, x.result.Spares = len(ended), len(x.spares)
	for _, service := range x.census.doubled() {
		if x.result.Duplicates == nil {
			x.result.Duplicates = map[string]Duplicate{}
		}
		most, _, longest := x.census.duplicates(service, time.Now())
		x.result.Duplicates[service] = Duplicate{Most: most, Seconds: longest.Seconds()}
	}
	x.result.Seconds = time.Since(x.began).Seconds()
	for _, c := range ended {
		fmt.Fprintf(x.cfg.Out, "           ended without cause: %s on %s\n", c.ID, c.Node)
	}
	if x.result.Why != "" {
		fmt.Fprintf(x.cfg.Out, "  %s\n", x.result.Why)
	}
	fmt.Fprintf(x.cfg.Out, "  %s\n", x.result.Summary())
	return x.result, err
}

// prepare brings what the drill begins with.
func (x *run) prepare(ctx context.Context) error {
	if err := x.healthy(ctx); err != nil {
		return err
	}
	for _, image := range x.drill.Images {
		if x.loaded[image] {
			continue
		}
		if err := x.orchctl(ctx, "image", "load", image); err != nil {
			return err
		}
		x.loaded[image] = true
	}
	for _, path := range x.drill.Services {
		if err := x.apply(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// apply applies a manifest and waits until it is ready; what runs then may not
// end by itself.
func (x *run) apply(ctx context.Context, path string) error {
	sources, err := manifests.FromPaths([]string{path}, nil)
	if err != nil {
		return err
	}
	docs, err := manifests.Load(sources)
	if err != nil {
		return err
	}
	for _, s := range docs.Services() {
		x.used[s.Metadata.Name] = true
		x.leased[s.Metadata.Name] = s.Spec.Leased()
		x.excuse(s.Metadata.Name)
	}
	if err := x.orchctl(ctx, "apply", "-f", path); err != nil {
		return err
	}
	for _, s := range docs.Services() {
		if err := x.ready(ctx, s.Metadata.Name, s.Spec.Want(), s.Spec.Want(), settleMax); err != nil {
			return err
		}
	}
	return nil
}

func (x *run) excuse(service string) {
	x.census.excuse(func(c lab.Container) bool {
		_, s := slotOf(c.ID)
		return s == service
	})
}

// orchctl runs the built orchctl against the lab.
func (x *run) orchctl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandMax)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, x.cfg.Orchctl, args...)
	cmd.Env = append(os.Environ(), clientconfig.EnvPath+"="+x.cfg.Lab.AdminContext())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		// Not wrapped: an exit status in the chain would mean that all is said.
		return fmt.Errorf("orchctl %s: %v\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// step takes one step and says how it went.
func (x *run) step(ctx context.Context, s Step) bool {
	began := time.Now()
	var took time.Duration
	var err error
	if s.Expects() {
		took, err = x.expect(ctx, s)
	} else {
		err = x.act(ctx, s)
		took = time.Since(began)
		x.zero = began
		if s.For > 0 { // it is over only now
			x.zero = time.Now()
		}
	}
	r := StepResult{Step: s.Text, Line: s.Line, At: began.Sub(x.began).Seconds(), Took: took.Seconds(), OK: err == nil}
	note := ""
	switch {
	case ctx.Err() != nil:
		r.Why = "interrupted"
		note = r.Why
	case err != nil:
		r.Why = err.Error()
		note = "FAILED"
	case s.Within > 0:
		note = fmt.Sprintf("ok, after %.2f s", took.Seconds())
	case s.Expects():
		note = "ok"
	}
	x.result.Steps = append(x.result.Steps, r)
	fmt.Fprintln(x.cfg.Out, strings.TrimRight(fmt.Sprintf("%8.2f s  %-44s %s", r.At, s.Text, note), " "))
	return err == nil
}

// faults may keep a lease from being renewed.
var faults = map[string]bool{"kill": true, "pause": true, "stun": true, "cut": true, "lose": true}

// act breaks, mends or asks for something.
func (x *run) act(ctx context.Context, s Step) error {
	l := x.cfg.Lab
	if faults[s.Verb] {
		for service, leased := range x.leased {
			if leased {
				x.excuse(service)
			}
		}
	}
	switch s.Verb {
	case "kill":
		switch {
		case s.Node == "":
			return l.StopController(ctx, syscall.SIGKILL)
		case s.Program != "":
			return l.KillProcess(ctx, s.Node, s.Program, syscall.SIGKILL)
		}
		x.census.power(s.Node, false)
		return l.KillNode(ctx, s.Node)
	case "start":
		switch {
		case s.Node == "":
			return l.StartController(ctx)
		case s.Program != "":
			return l.StartProcess(ctx, s.Node, s.Program)
		}
		if err := l.StartNode(ctx, s.Node); err != nil {
			return err
		}
		x.census.excuse(func(c lab.Container) bool { return c.Node == s.Node })
		x.census.power(s.Node, true)
		return nil
	case "pause":
		if s.Node == "" {
			return l.Pause(ctx, controllerHost, controllerHost, s.For)
		}
		return l.Pause(ctx, s.Node, s.Program, s.For)
	case "stun":
		return l.Stun(ctx, s.Node, s.For)
	case "cut":
		return l.Cut(ctx, s.Node, s.Peer, s.OneWay)
	case "heal":
		if s.Node == "" {
			return l.Heal(ctx)
		}
		return l.Heal(ctx, s.Node)
	case "lose":
		return l.Loss(ctx, s.Node, s.Percent)
	case "burn":
		return Burn(ctx, s.For)
	case "wait":
		return x.watchFor(ctx, s.For)
	}
	return x.ask(ctx, s)
}

// ask does what a user would, by orchctl.
func (x *run) ask(ctx context.Context, s Step) error {
	switch s.Verb {
	case "apply":
		return x.apply(ctx, x.drill.path(s.Path))
	case "scale":
		x.excuse(s.Service)
		return x.orchctl(ctx, "scale", "service/"+s.Service, fmt.Sprintf("--replicas=%d", s.Count))
	case "delete":
		x.excuse(s.Service)
		return x.orchctl(ctx, "delete", "service", s.Service)
	case "declare":
		return x.orchctl(ctx, "node", "dead", s.Node, "--force")
	case "crash":
		for _, r := range x.view.View.Running(s.Service) {
			for _, ct := range r.Status.Containers {
				c := lab.Container{Node: r.Spec.Node, ID: ct.ID}
				if x.census.runs(c.Node, c.ID) {
					x.census.excuse(func(o lab.Container) bool { return o.Node == c.Node && o.ID == c.ID })
					return x.cfg.Lab.KillContainer(ctx, c)
				}
			}
		}
		return fmt.Errorf("no container of %s runs", s.Service)
	}
	return fmt.Errorf("step %q has nobody who does it", s.Text)
}

// watchFor lets a while pass and misses nothing of it.
func (x *run) watchFor(ctx context.Context, d time.Duration) error {
	return x.view.Take(ctx, d, func(_ time.Time, v *follow.View) { x.note(v) })
}

// note remembers spares: they may be gone when somebody asks.
func (x *run) note(v *follow.View) {
	for k, r := range v.Replicas {
		if r.Spec.Spare {
			x.spares[k] = true
		}
	}
}

// Burn keeps every core busy for so long, or until ctx ends; its error is ctx's.
func Burn(ctx context.Context, d time.Duration) error {
	busy, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var group sync.WaitGroup
	for range runtime.NumCPU() {
		group.Go(func() {
			for n := uint64(1); busy.Err() == nil; {
				for range 1 << 20 {
					n = n*6364136223846793005 + 1442695040888963407
				}
			}
		})
	}
	group.Wait()
	return ctx.Err()
}

// restore makes the lab whole again and removes what was applied.
func (x *run) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*settleMax)
	defer cancel()
	l := x.cfg.Lab
	errs := []error{l.Heal(ctx)}
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if s.Controller != nil {
		errs = append(errs, x.restoreHost(ctx, *s.Controller, l.StartController, func(string) error { return l.StartController(ctx) }))
	}
	for _, n := range s.Nodes {
		errs = append(errs, x.restoreHost(ctx, n, func(ctx context.Context) error { return l.StartNode(ctx, n.Name) },
			func(program string) error { return l.StartProcess(ctx, n.Name, program) }))
	}
	for name := range x.used {
		errs = append(errs, x.orchctl(ctx, "delete", "service", name, "--ignore-not-found"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make the lab whole again: %w", err)
	}
	return x.healthy(ctx)
}

func (x *run) restoreHost(ctx context.Context, h lab.HostStatus, boot func(context.Context) error, start func(program string) error) error {
	if h.Power == lab.Off {
		return boot(ctx)
	}
	if err := x.cfg.Lab.Resume(ctx, h.Name); err != nil {
		return err
	}
	var errs []error
	for _, p := range h.Processes {
		if p.Pid == 0 {
			errs = append(errs, start(p.Name))
		}
	}
	return errors.Join(errs...)
}

// healthy waits until every node is.
func (x *run) healthy(ctx context.Context) error {
	_, err := x.view.Until(ctx, settleMax, "every node to be healthy", func(v *follow.View) error {
		if len(v.Nodes) < x.drill.Nodes {
			return fmt.Errorf("the drill wants %d nodes, the lab has %d", x.drill.Nodes, len(v.Nodes))
		}
		for name, n := range v.Nodes {
			if n.Status.Verdict != api.VerdictHealthy {
				return fmt.Errorf("%s is %s: %s", name, n.Status.Verdict, n.Status.VerdictWhy)
			}
		}
		return nil
	})
	return err
}

// OrchctlBeside finds the orchctl that a lab's other binaries lie beside.
func OrchctlBeside(binDir string) string { return filepath.Join(binDir, "orchctl") }
