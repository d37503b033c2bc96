package orchctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// exitTrouble is what diff exits with where it cannot compare: 1 says that there are
// differences.
const exitTrouble = 2

// troubled is an error of diff's.
type troubled struct{ error }

func (troubled) ExitCode() int   { return exitTrouble }
func (e troubled) Unwrap() error { return e.error }

func (t *tool) diffCmd() *cobra.Command {
	var files []string
	color := "auto"
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change, as a unified diff",
		Long: `Show what apply would change, as a unified diff of what is and what would be, as
the controller answers to a dry run: with defaults, without status.

Exit codes: 0 no difference, 1 differences, 2 it could not be told.`,
		Example: `  orchctl diff -f web.yaml
  orchctl diff -f services/ --color always | less -R
  orchctl diff -f web.yaml && echo nothing would change`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("name a manifest with -f: a file, a folder, or - for standard input")
			}
			colored, err := t.colored(color)
			if err != nil {
				return err
			}
			differ, err := t.diff(cmd.Context(), files, colored)
			switch {
			case err != nil:
				return troubled{err}
			case differ:
				return exitStatus(exitFailed)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "manifest: a file, a folder, or - for standard input; repeatable")
	f.StringVar(&color, "color", color, "auto (on a terminal, unless NO_COLOR is set), always or never")
	t.complete(cmd, "color", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// colored tells whether --color asks for colours here.
func (t *tool) colored(when string) (bool, error) {
	switch when {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		_, _, terminal := t.Screen()
		return terminal && !t.NoColor, nil
	}
	return false, usagef("--color %s: want auto, always or never", when)
}

// diff prints the differences and tells whether there are any.
func (t *tool) diff(ctx context.Context, files []string, colored bool) (bool, error) {
	docs, err := t.loadManifests(files, "nothing was compared")
	if err != nil {
		return false, err
	}
	request := &orchv1.ApplyRequest{DryRun: true}
	for _, d := range docs {
		o, err := onWire(d.Object)
		if err != nil {
			return false, err
		}
		request.Objects = append(request.Objects, o)
	}
	client, err := t.connect(ctx, "diff", false)
	if err != nil {
		return false, err
	}
	// A dry run changes nothing, and so it may be repeated like a read.
	answer, err := read(ctx, t, "diff", operator, func(ctx context.Context) (*orchv1.ApplyResponse, error) { return client.Apply(ctx, request) })
	if err != nil {
		return false, withDocs(err, docs)
	}
	differ := false
	for _, a := range answer.GetApplied() {
		o, err := decode(a.GetObject())
		if err != nil {
			return false, err
		}
		text, err := t.diffOf(ctx, client, o, a.GetPlan(), docs)
		if err != nil {
			return false, err
		}
		if text == "" {
			continue
		}
		differ = true
		if colored {
			text = paint(text)
		}
		if err := t.printf("%s", text); err != nil {
			return false, err
		}
	}
	return differ, nil
}

// paint colours a unified diff by lines.
func paint(diff string) string {
	var b strings.Builder
	for line := range strings.Lines(diff) {
		color := ""
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			color = "1" // bold
		case strings.HasPrefix(line, "@@"):
			color = "36" // cyan
		case strings.HasPrefix(line, "-"):
			color = "31" // red
		case strings.HasPrefix(line, "+"):
			color = "32" // green
		}
		if color == "" {
			b.WriteString(line)
			continue
		}
		body := strings.TrimSuffix(line, "\n")
		b.WriteString("\x1b[" + color + "m" + body + "\x1b[0m" + line[len(body):])
	}
	return b.String()
}
