package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/orchctl/orch/e2e/rig"
)

// talk says what the demo does, and runs the commands that it shows.
type talk struct {
	out    io.Writer
	config string // ORCH_CONFIG of the commands, once there is a fleet
	step   int
}

// width of the text in columns: what every terminal has.
const width = 78

func (t *talk) heading(title string) {
	t.step++
	line := fmt.Sprintf("== %d. %s ", t.step, title)
	fmt.Fprintf(t.out, "\n%s%s\n", line, strings.Repeat("=", max(0, width-utf8.RuneCountInString(line))))
}

// say prints a paragraph, broken into lines.
func (t *talk) say(format string, args ...any) {
	line := ""
	for _, word := range strings.Fields(fmt.Sprintf(format, args...)) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			fmt.Fprintln(t.out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(t.out, line)
}

// box prints lines that must not be overlooked.
func (t *talk) box(lines ...string) {
	widest := 0
	for _, l := range lines {
		widest = max(widest, utf8.RuneCountInString(l))
	}
	edge := "  +" + strings.Repeat("-", widest+4) + "+"
	fmt.Fprintln(t.out, "\n"+edge)
	for _, l := range lines {
		fmt.Fprintf(t.out, "  |  %s%s  |\n", l, strings.Repeat(" ", widest-utf8.RuneCountInString(l)))
	}
	fmt.Fprintln(t.out, edge+"\n")
}

// orchctl prints a command, runs it, and shows its output as it comes.
func (t *talk) orchctl(ctx context.Context, args ...string) error {
	fmt.Fprintf(t.out, "\n$ orchctl %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, filepath.Join(rig.Root(), "bin", "orchctl"), args...)
	cmd.Dir = rig.Root()
	cmd.Stdout, cmd.Stderr = t.out, t.out
	if t.config != "" {
		cmd.Env = append(os.Environ(), "ORCH_CONFIG="+t.config)
	}
	// An interrupt lets the command end by itself before it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = interruptTimeout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("orchctl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// interruptTimeout is how long an interrupted command may take to tidy up: the
// removal of half a lab takes a few seconds.
const interruptTimeout = 30 * time.Second

// seconds prints a measured time; thousandths would be noise.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
