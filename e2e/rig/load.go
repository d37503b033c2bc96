package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
)

// Load is a job that runs somewhere in the fleet.
type Load struct {
	end    func() error
	done   chan struct{}
	report load.Report
	err    error
}

// Wait waits for the job's own end.
func (l *Load) Wait() (load.Report, error) {
	<-l.done
	return l.report, l.err
}

// Stop ends the job, after the requests that are under way.
func (l *Load) Stop() (load.Report, error) {
	select {
	case <-l.done:
		return l.report, l.err
	default:
	}
	if err := l.end(); err != nil {
		select {
		case <-l.done: // it ended by itself meanwhile
		default:
			return load.Report{}, err
		}
	}
	return l.Wait()
}

// jobs numbers jobs, so that several can run in one replica.
var jobs atomic.Uint64

// startMax is how long a job in a replica may take to be known there.
const startMax = 5 * time.Second

// StartIn begins a job in a replica that runs `web -load` on port 8080. The outer
// network must know the way to replicas: see RouteReplicas.
func (f *Fleet) StartIn(ctx context.Context, r api.Replica, j load.Job) (*Load, error) {
	if r.Status.IP == "" {
		return nil, fmt.Errorf("run a job in %s: it has no address", r.Metadata.Name)
	}
	base, id, client := "http://"+r.Status.IP+":8080", fmt.Sprint(jobs.Add(1)), f.HTTP(0)
	l := &Load{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(l.done)
		defer cancel()
		l.report, l.err = load.Ask(ctx, client, base, id, j)
	}()
	l.end = func() error {
		return Until(ctx, startMax, "job "+id+" of "+r.Metadata.Name+" to stop", func() error { return load.Stop(ctx, client, base, id) })
	}
	return l, nil
}

// RunIn does a job in a replica and waits for its report.
func (f *Fleet) RunIn(ctx context.Context, r api.Replica, j load.Job) (load.Report, error) {
	l, err := f.StartIn(ctx, r, j)
	if err != nil {
		return load.Report{}, err
	}
	return l.Wait()
}

// StartOn begins a job as a program on a node itself, or, where node is empty, in
// the outer network beside the nodes.
func (f *Fleet) StartOn(ctx context.Context, node string, j load.Job) (*Load, error) {
	cmd, err := f.Lab.Command(ctx, node, filepath.Join(f.root, "bin", "web"), "-run")
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &Load{done: make(chan struct{}), end: in.Close}
	if err := json.NewEncoder(in).Encode(j); err != nil {
		return nil, errors.Join(err, in.Close(), cmd.Wait())
	}
	go func() {
		defer close(l.done)
		if err := cmd.Wait(); err != nil {
			l.err = fmt.Errorf("run a job on %q: %w: %s", node, err, errs.Bytes())
			return
		}
		l.err = json.Unmarshal(out.Bytes(), &l.report)
	}()
	return l, nil
}

// RunOn does a job on a node, or beside them, and waits for its report.
func (f *Fleet) RunOn(ctx context.Context, node string, j load.Job) (load.Report, error) {
	l, err := f.StartOn(ctx, node, j)
	if err != nil {
		return load.Report{}, err
	}
	return l.Wait()
}

// Server runs the web program on a node, or beside them, until stop is called.
func (f *Fleet) Server(ctx context.Context, node string, args ...string) (stop func(), err error) {
	cmd, err := f.Lab.Command(ctx, node, append([]string{filepath.Join(f.root, "bin", "web"), "-quiet"}, args...)...)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if node != "" {
		// nsenter stays between us and the program: it is killed by its parent's
		// death, which setpriv asks the kernel for.
		cmd.Args = append(cmd.Args[:indexOf(cmd.Args, "--")+1], append([]string{"setpriv", "--pdeathsig", "KILL"}, cmd.Args[indexOf(cmd.Args, "--")+1:]...)...)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, nil
}

func indexOf(args []string, want string) int {
	for i, a := range args {
		if a == want {
			return i
		}
	}
	return -1
}

// Shell runs a script on a node, or in the outer network, and gives what it printed.
func (f *Fleet) Shell(ctx context.Context, node, script string) (string, error) {
	cmd, err := f.Lab.Command(ctx, node, "sh", "-c", script)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run %q on %q: %w: %s", script, node, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// WebURLs are those of a published port on each of the nodes.
func (f *Fleet) WebURLs(ctx context.Context, port int) ([]string, error) {
	s, err := f.Lab.Status(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range s.Nodes {
		out = append(out, fmt.Sprintf("http://%s:%d/whoami", n.Address, port))
	}
	return out, nil
}

// Under asks a service all the while that act runs, and longer where fewer than
// AtLeast requests were made by then: through its virtual IP from a replica, and
// through its published port on every node from beside them; each on connections
// that are kept and on fresh ones. Rate and AtLeast are
// of all four.
type Under struct {
	Service string
	// Client is a replica of another service that runs `web -load`; it is not to
	// be moved by act.
	Client api.Replica
	// Port of the service's virtual IP, Publish on the nodes; 0 asks the other
	// way alone.
	Port, Publish int
	// Published are the URLs asked from beside the nodes; nil means every node's.
	Published []string
	Rate      int
	AtLeast   int
	// Timeout of one request; 0 means load's.
	Timeout time.Duration
}

// Ways are Under's reports, by the way that was asked.
type Ways map[string]load.Report

// isFresh tells of a way whether its connections are fresh.
func isFresh(way string) bool { return strings.HasSuffix(way, freshWay) }

const keptWay, freshWay = " kept", " fresh"

// Failed is how many requests failed, on any way, and Requests how many were made.
func (w Ways) Failed() (failed, requests int) {
	for _, r := range w {
		failed += r.Failed
		requests += r.Requests
	}
	return failed, requests
}

// underWorkers ask at once on each way: enough that one slow answer does not hold
// up the rate.
const underWorkers = 16

// Run does act under load. The reports are given even if act failed.
func (u Under) Run(ctx context.Context, f *Fleet, act func(context.Context) error) (Ways, error) {
	s, err := f.Service(ctx, u.Service)
	if err != nil {
		return nil, err
	}
	published := u.Published
	if published == nil && u.Publish > 0 {
		if published, err = f.WebURLs(ctx, u.Publish); err != nil {
			return nil, err
		}
	}
	ways := 0
	for _, on := range []bool{u.Port > 0, u.Publish > 0} {
		if on {
			ways += 2
		}
	}
	loads := map[string]*Load{}
	stopAll := func() (Ways, error) {
		out, errs := Ways{}, []error{}
		for way, l := range loads {
			r, err := l.Stop()
			out[way] = r
			errs = append(errs, err)
		}
		return out, errors.Join(errs...)
	}
	for _, fresh := range []bool{false, true} {
		j := load.Job{Kind: load.HTTP, Rate: max(1, u.Rate/ways), AtLeast: u.AtLeast / ways, Workers: underWorkers, Fresh: fresh, Timeout: u.Timeout}
		kind := map[bool]string{false: keptWay, true: freshWay}[fresh]
		if u.Port > 0 && err == nil {
			j.Targets = []string{fmt.Sprintf("http://%s:%d/whoami", s.Status.VIP, u.Port)}
			loads["vip"+kind], err = f.StartIn(ctx, u.Client, j)
		}
		if u.Publish > 0 && err == nil {
			j.Targets = published
			loads["published"+kind], err = f.StartOn(ctx, "", j)
		}
		if err != nil {
			_, stopped := stopAll()
			return nil, errors.Join(err, stopped)
		}
	}
	acted := act(ctx)
	reports, err := stopAll()
	return reports, errors.Join(acted, err)
}
