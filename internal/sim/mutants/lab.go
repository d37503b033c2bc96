package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	simulator = "./internal/sim/run"
	// seedsAtOnce is after how many seeds the time is looked at.
	seedsAtOnce = 50
	// testMax is for tests that start real processes on a busy machine.
	testMax = 10 * time.Minute
)

// check makes sure that the mistake still fits the code.
func (m mutation) check() error {
	b, err := os.ReadFile(m.file)
	if err != nil {
		return fmt.Errorf("read what is to be mutated: %w", err)
	}
	if n := strings.Count(string(b), m.old); n != 1 {
		return fmt.Errorf("the table is out of date: %s holds %q %d times, not once (%s)", m.file, m.old, n, m.why)
	}
	return nil
}

// lab tries mistakes. Its methods may be called by several goroutines.
type lab struct {
	dir    string
	from   uint64
	seeds  int
	within time.Duration
	alone  bool

	mu    sync.Mutex
	clean map[string]*clean // by package and flags
}

// clean is whether a test passes without a mistake.
type clean struct {
	once sync.Once
	err  error
}

func (l *lab) try(ctx context.Context, i int, m mutation) verdict {
	began := time.Now()
	v := verdict{mutation: m}
	overlay, err := l.overlay(i, m)
	if err == nil && m.test == "" {
		err = l.simulate(ctx, overlay, &v)
	} else if err == nil {
		v.caught, err = l.runTest(ctx, overlay, m.test)
		v.by = "by " + v.caught + " of " + m.test
		if v.caught == "" {
			v.by = m.test + " passes"
		}
	}
	if own := "./" + filepath.Dir(m.file); err == nil && l.alone && !strings.HasPrefix(m.test, own) {
		v.alone, err = l.runTest(ctx, overlay, own)
		if v.alone == "" {
			v.alone = "-"
		}
	}
	v.err, v.took = err, time.Since(began)
	return v
}

// overlay writes the file with the mistake, and what tells the compiler of it.
func (l *lab) overlay(i int, m mutation) (string, error) {
	if err := m.check(); err != nil { // it was edited meanwhile
		return "", err
	}
	b, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(l.dir, fmt.Sprint(i))
	mutated := filepath.Join(dir, filepath.Base(m.file))
	js, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(err, os.Mkdir(dir, 0o755),
		os.WriteFile(mutated, []byte(strings.Replace(string(b), m.old, m.new, 1)), 0o644), os.WriteFile(overlay, js, 0o644))
}

// build makes a program, or a package's test binary; without overlay that of the
// code as it is.
func build(ctx context.Context, overlay, out, pkg string, test bool) error {
	args := []string{"build"}
	if test {
		args = []string{"test", "-c"}
	}
	cmd := command(ctx, overlay, "go", append(args, "-o", out, pkg)...)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, b)
	}
	return nil
}

// command may build programs of its own: they get the mistake, too.
func command(ctx context.Context, overlay, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOMAXPROCS=1", "GOFLAGS=-p=1")
	if overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS=-p=1 -overlay="+overlay)
	}
	return cmd
}

// simulate tries seeds until one fails.
func (l *lab) simulate(ctx context.Context, overlay string, v *verdict) error {
	bin := filepath.Join(filepath.Dir(overlay), "sim")
	if err := build(ctx, overlay, bin, simulator, false); err != nil {
		return err
	}
	for began := time.Now(); v.caught == "" && v.seeds < l.seeds && time.Since(began) < l.within; {
		n := min(seedsAtOnce, l.seeds-v.seeds)
		first := l.from + uint64(v.seeds)
		seed, invariant, what, err := seedsFrom(ctx, bin, first, n)
		switch {
		case err != nil:
			return err
		case invariant == "":
			v.seeds += n
		default:
			v.seeds, v.caught, v.by = int(seed-l.from+1), invariant, what
		}
	}
	return nil
}

// sound makes sure that without a mistake the seeds pass with which any was caught.
func (l *lab) sound(ctx context.Context, vs []verdict) error {
	most := 0
	for _, v := range vs {
		if v.caught != "" {
			most = max(most, v.seeds)
		}
	}
	bin := filepath.Join(l.dir, "clean-sim")
	if err := build(ctx, "", bin, simulator, false); err != nil || most == 0 {
		return err
	}
	seed, invariant, what, err := seedsFrom(ctx, bin, l.from, most)
	if err == nil && invariant != "" {
		err = fmt.Errorf("the code as it is does not pass seed %d: %s", seed, what)
	}
	return err
}

var failure = regexp.MustCompile(`(?m)^seed \d+ fails: (.*)$`)

// seedsFrom runs seeds one after the other, up to the first that fails.
func seedsFrom(ctx context.Context, bin string, first uint64, n int) (seed uint64, invariant, what string, err error) {
	var out, story bytes.Buffer
	cmd := command(ctx, "", bin, "-from", fmt.Sprint(first), "-seeds", fmt.Sprint(n), "-jobs", "1", "-shrink=false", "-json")
	cmd.Stdout, cmd.Stderr = &out, &story
	runErr := cmd.Run()
	var sum struct {
		Failed *struct {
			Seed      uint64
			Invariant string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		return 0, "", "", fmt.Errorf("seeds from %d: %w: %s", first, errors.Join(runErr, err), story.String())
	}
	if sum.Failed == nil {
		return 0, "", "", runErr
	}
	if m := failure.FindStringSubmatch(story.String()); m != nil {
		what = m[1]
	}
	return sum.Failed.Seed, sum.Failed.Invariant, what, nil
}

func (l *lab) cleanOf(what string) *clean {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clean[what] == nil {
		l.clean[what] = &clean{}
	}
	return l.clean[what]
}

// runTest gives the test that fails with the mistake, "" if none does. Without it
// all have to pass.
func (l *lab) runTest(ctx context.Context, overlay, test string) (string, error) {
	c := l.cleanOf(test)
	c.once.Do(func() {
		var failed string
		if failed, c.err = runOnce(ctx, "", filepath.Join(l.dir, fmt.Sprintf("clean-%p.test", c)), test); failed != "" {
			c.err = fmt.Errorf("%s: %s fails without any mistake", test, failed)
		}
	})
	if c.err != nil {
		return "", c.err
	}
	return runOnce(ctx, overlay, filepath.Join(filepath.Dir(overlay), "own.test"), test)
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

func runOnce(ctx context.Context, overlay, bin, test string) (string, error) {
	pkg, flags, _ := strings.Cut(test, " ")
	if err := build(ctx, overlay, bin, pkg, true); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, testMax)
	defer cancel()
	cmd := command(ctx, overlay, bin, append([]string{"-test.failfast"}, strings.Fields(flags)...)...)
	cmd.Dir = pkg
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case !errors.As(err, &exit):
		return "", fmt.Errorf("run %s: %w", test, err)
	}
	if m := failed.FindStringSubmatch(string(out)); m != nil {
		return m[1], nil
	}
	if first, _, _ := strings.Cut(string(out), "\n"); first != "" {
		return first, nil
	}
	return err.Error(), nil
}
