package orchctl

import (
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
)

const (
	// runKept is how long a job of run --rm is kept after its end where orchctl could not
	// delete it itself: long enough for its end to be read over a broken line.
	runKept = 10 * time.Minute
	// runSuffix is how many characters tell two runs of an image apart.
	runSuffix = 5
)

// launching is what `run` was asked for.
type launching struct {
	executing
	name, image            string
	words                  []string // behind --
	command, rm, detach    bool
	quiet                  bool
	env, labels, selectors []string
}

func (t *tool) runCmd() *cobra.Command {
	var r launching
	cmd := &cobra.Command{
		Use:   "run IMAGE [-- ARG...]",
		Short: "Run an image once, as a job, and show what it prints",
		Long: `Run an image once, as a job with one index that is not tried again, wherever in the
fleet there is room. What it prints goes where it was printed to, standard output or
error; how far it is goes to standard error. orchctl ends with the command's exit code;
128 and the signal's number where a signal ended it; 1 where it could not be run, with
the reason.

What stands behind -- takes the place of the image's arguments, with --command that of its
entrypoint too. An interrupt stops the job and deletes it (exit code 130). Without --rm
the job stays, for ` + "`orchctl logs job/NAME`" + ` and ` + "`orchctl describe job NAME`" + `.`,
		DisableFlagsInUseLine: true, // what follows -- is the command's
		Example: `  orchctl run --rm busybox:1.36 -- echo hello
  orchctl run --rm -it busybox:1.36 -- sh
  orchctl run --rm -i tools:2 -- psql < dump.sql
  orchctl run -d --name reindex -e INDEX=all tools:2 -- reindex
  orchctl run --rm --node-selector disk=ssd tools:2 -- fio`,
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(cmd *cobra.Command, words []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(words) == 0 || dash == 0:
				return usagef("name an image, such as `orchctl run --rm busybox:1.36 -- echo hello`")
			case dash < 0 && len(words) > 1, dash > 1:
				return usagef("unexpected argument %q: put -- before the command's own words, as in `orchctl run %s -- %s`", words[1], words[0], strings.Join(words[1:], " "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r.image, r.words = args[0], args[1:]
			return t.run(cmd.Context(), r)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.rm, "rm", false, "delete the job when it has ended")
	f.BoolVarP(&r.stdin, "stdin", "i", false, "pass standard input: the command starts when orchctl is attached to it")
	f.BoolVarP(&r.tty, "tty", "t", false, "give the command a terminal, as big as this one; with -i")
	f.BoolVarP(&r.detach, "detach", "d", false, "do not wait: print the job's name alone; with --rm it goes by itself when it has ended")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "say nothing of how far it is")
	f.StringVar(&r.name, "name", "", "name of the job (default: the image's, and some letters)")
	f.BoolVar(&r.command, "command", false, "what stands behind -- takes the place of the image's entrypoint, too")
	f.StringArrayVarP(&r.env, "env", "e", nil, "variable NAME=VALUE, or NAME for the value that it has here; repeatable")
	f.StringArrayVar(&r.labels, "label", nil, "label KEY=VALUE of the job; repeatable")
	f.StringArrayVar(&r.selectors, "node-selector", nil, "label KEY=VALUE that its node must have; repeatable")
	return cmd
}

// job makes what is to be run.
func (t *tool) job(r launching) (*api.Job, error) {
	switch {
	case r.tty && !r.stdin:
		return nil, usagef("-t without -i: a terminal of which nothing is read; give -it")
	case r.detach && r.stdin:
		return nil, usagef("-d and -i: who is detached types nothing; `orchctl attach job/NAME` attaches later to a job with stdin: true")
	case r.command && len(r.words) == 0:
		return nil, usagef("--command: the command is missing; put it behind --")
	}
	c := api.Container{Name: "main", Image: r.image, Stdin: r.stdin}
	if r.command {
		c.Command = r.words
	} else if len(r.words) > 0 {
		c.Args = r.words
	}
	for _, text := range r.env {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				return nil, usagef("--env %s: there is no such variable here; give %s=VALUE", name, name)
			}
		}
		c.Env = append(c.Env, api.EnvVar{Name: name, Value: value})
	}
	labels, err := pairsOf("--label", r.labels)
	if err != nil {
		return nil, err
	}
	selector, err := pairsOf("--node-selector", r.selectors)
	if err != nil {
		return nil, err
	}
	if r.name == "" {
		r.name = runName(r.image, t.RequestID())
	}
	once, none := 1, 0
	j := &api.Job{Metadata: api.Metadata{Name: r.name, Namespace: t.space(), Labels: labels},
		Spec: api.JobSpec{Completions: &once, BackoffLimit: &none, Template: api.Template{Containers: []api.Container{c}, NodeSelector: selector}}}
	if r.rm {
		kept := api.Duration(runKept)
		if r.detach {
			kept = 0
		}
		j.Spec.TTLAfterFinished = &kept
	}
	j.Default()
	if bad := api.Validate(j); len(bad) > 0 {
		var lines []string
		for _, v := range bad {
			lines = append(lines, strings.TrimPrefix(v.String(), "spec.containers[0]."))
		}
		return nil, usagef("run: %s", strings.Join(lines, "\n  "))
	}
	return j, nil
}

// notInName is what no name of a job may have.
var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// runName makes a name of an image's last part and the end of an id.
func runName(image, id string) string {
	image = image[strings.LastIndexByte(image, '/')+1:]
	image, _, _ = strings.Cut(image, "@")
	image, _, _ = strings.Cut(image, ":")
	clean := func(s string) string { return notInName.ReplaceAllString(strings.ToLower(s), "-") }
	image = strings.TrimLeft(strings.Trim(clean(image), "-"), "0123456789-")
	if room := api.MaxServiceName - runSuffix - 1; len(image) > room {
		image = strings.TrimRight(image[:room], "-")
	}
	if image == "" {
		image = "run"
	}
	id = strings.ReplaceAll(clean(id), "-", "x")
	return image + "-" + id[max(0, len(id)-runSuffix):]
}

// pairsOf reads KEY=VALUE of a flag.
func pairsOf(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("%s %s: want KEY=VALUE", flag, text)
		}
		if _, twice := out[key]; twice {
			return nil, usagef("%s: %s is given twice", flag, key)
		}
		out[key] = value
	}
	return out, nil
}
