package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/lab"
	"github.com/orchctl/orch/internal/lab/labcmd"
)

// labOf names the lab that a drill makes where none is named: its own, so that drills can
// run side by side. A lab's name has at most 32 letters, digits and dashes.
func labOf(d *Drill) string {
	const most = 32
	name := "drill-" + d.Name
	return strings.TrimRight(name[:min(len(name), most)], "-")
}

// downMax bounds taking that lab down.
const downMax = time.Minute

// flags of the command.
type flags struct {
	files             []string
	lab, binDir, form string
	keep              bool
	runs              int
}

// Command makes `orchctl drill`.
func Command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "drill -f FILE",
		Short: "Break a lab by a script, and check what is promised",
		Long: `Run scripted faults against a lab and check what is promised.

Without --lab a lab is made for the drill and taken down afterwards; it needs
Linux and root. A folder runs all drills in it. Whatever happens, the lab is whole
again after each drill. Exit code 1 says that something did not hold.

"within" counts from the last step that is no expectation (for steps that last,
from their end). "wrongful" counts containers that were ready and ended though
their node had power and no step asked for it; those that were relieved count.

A step is one of:
  ` + strings.Join(Forms(), "\n  "),
		Example: `  orchctl drill -f e2e/drills/power-cut.yaml
  orchctl drill -f e2e/drills              # all of them
  orchctl drill -f mine.yaml --lab default # in a lab that is up`,
		Args: func(_ *cobra.Command, words []string) error {
			if len(words) > 0 {
				return labcmd.UsageError{Err: fmt.Errorf("unexpected argument %q: name the drill with -f", words[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Also when the terminal or the reader of its story is gone: the lab must not stay.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			// Not among the above: then a connection to a controller that was just
			// killed would send it, too.
			signal.Ignore(syscall.SIGPIPE)
			ctx, gone := context.WithCancelCause(ctx)
			defer gone(nil)
			return f.run(ctx, heard{cmd.OutOrStdout(), gone}, heard{cmd.ErrOrStderr(), gone})
		},
	}
	p := cmd.Flags()
	p.StringArrayVarP(&f.files, "filename", "f", nil, "a drill, or a folder of them; repeatable")
	p.StringVar(&f.lab, "lab", "", "run in this lab, which is up, instead of one made for it")
	p.StringVar(&f.binDir, "bin-dir", "", "folder of controller, agent and shim (default: that of orchctl)")
	p.BoolVar(&f.keep, "keep", false, "leave the lab that was made up")
	p.IntVar(&f.runs, "runs", 1, "how often to run each")
	p.StringVarP(&f.form, "output", "o", "", "json: one line per drill on standard output, the story on standard error")
	return cmd
}

// heard ends the drill once nobody reads what it says.
type heard struct {
	io.Writer
	gone context.CancelCauseFunc
}

func (h heard) Write(b []byte) (int, error) {
	n, err := h.Writer.Write(b)
	if err != nil {
		h.gone(fmt.Errorf("nobody reads what the drill says: %w", err))
	}
	return n, err
}

func (f *flags) run(ctx context.Context, out, errs io.Writer) (err error) {
	switch {
	case len(f.files) == 0:
		return labcmd.UsageError{Err: errors.New("which drill? name a file with -f")}
	case f.form != "" && f.form != "json":
		return labcmd.UsageError{Err: fmt.Errorf("--output %q: want json, or none for a story", f.form)}
	case f.runs < 1:
		return labcmd.UsageError{Err: fmt.Errorf("--runs %d: want 1 or more", f.runs)}
	}
	drills, err := Load(f.files)
	if err != nil {
		return labcmd.UsageError{Err: err}
	}
	for _, d := range drills {
		err = errors.Join(err, d.Missing())
	}
	if err != nil {
		return labcmd.UsageError{Err: err}
	}
	if f.binDir == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		f.binDir = filepath.Dir(self)
	}
	story := out
	if f.form == "json" {
		story = errs
	}
	p := &place{flags: f, story: story}
	defer func() { err = errors.Join(err, p.down(context.WithoutCancel(ctx))) }()
	failed := 0
	for _, d := range drills {
		for range f.runs {
			result, err := p.one(ctx, d)
			if err != nil {
				return err
			}
			if !result.Passed {
				failed++
			}
			if f.form == "json" {
				if err := json.NewEncoder(out).Encode(result); err != nil {
					return err
				}
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d drills failed", failed, len(drills)*f.runs)
	}
	return nil
}

// place is the lab that drills run in; those that want the same share it.
type place struct {
	*flags
	story  io.Writer
	now    *Drill // whose wishes the lab meets; nil: there is none
	runner *Runner
	made   *lab.Lab
}

func (p *place) one(ctx context.Context, d *Drill) (Result, error) {
	if p.now == nil || p.lab == "" && !p.now.SameLab(d) {
		if err := p.down(ctx); err != nil {
			return Result{}, err
		}
		if err := p.up(ctx, d); err != nil {
			return Result{}, err
		}
	}
	return p.runner.Run(ctx, d)
}

func (p *place) up(ctx context.Context, d *Drill) error {
	var l *lab.Lab
	var err error
	if p.lab != "" {
		l, err = lab.Open(p.lab)
	} else {
		fmt.Fprintf(p.story, "making a lab of %d nodes\n", d.Nodes)
		c := lab.Config{Name: labOf(d), Nodes: d.Nodes, Capacity: d.Capacity, BinDir: p.binDir}
		for _, limit := range d.Limits {
			c.ControllerArgs = append(c.ControllerArgs, "--limit", limit)
		}
		l, err = lab.Up(ctx, c)
		p.made = l
	}
	if err != nil {
		return err
	}
	p.runner, err = NewRunner(ctx, Config{Lab: l, Orchctl: OrchctlBeside(p.binDir), Out: p.story})
	p.now = d
	return err
}

func (p *place) down(ctx context.Context) error {
	var errs []error
	if p.runner != nil {
		errs = append(errs, p.runner.Close())
	}
	if p.made != nil && p.keep {
		fmt.Fprintf(p.story, "lab %s is up: export ORCH_CONFIG=%s\n", p.made.Name(), p.made.AdminContext())
	} else if p.made != nil {
		ctx, cancel := context.WithTimeout(ctx, downMax)
		defer cancel()
		errs = append(errs, p.made.Down(ctx))
	}
	p.runner, p.made, p.now = nil, nil, nil
	return errors.Join(errs...)
}
