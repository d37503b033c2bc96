package orchctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

type logging struct {
	follow, timestamps bool
	previous           bool
	tail               int64
	since, container   string
}

func (t *tool) logsCmd() *cobra.Command {
	var l logging
	cmd := &cobra.Command{
		Use:   "logs REPLICA | service/NAME | job/NAME",
		Short: "Show what replicas print",
		Example: `  orchctl logs web-0
  orchctl logs -f --tail 20 service/web       # of all its replicas
  orchctl logs job/migrate                    # of all its indexes, also of those that have ended
  orchctl logs web-0 --since 10m --timestamps
  orchctl logs web-0 -c sidecar
  orchctl logs web-0 --previous               # of the newest run that has ended
  orchctl logs web-0@12                       # also of a replica that is gone`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: beginning(t.completeReplicaOrService),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, x, err := t.logsRequest(l, args[0])
			if err != nil {
				return err
			}
			return t.logs(cmd.Context(), l, request, x)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&l.follow, "follow", "f", false, "go on with what is printed from now on")
	f.BoolVarP(&l.previous, "previous", "p", false, "what was printed before the last restart or move, also where its node is dead")
	f.Int64Var(&l.tail, "tail", -1, "the last lines of each replica only; -1 for all")
	f.StringVar(&l.since, "since", "", "nothing older: a duration (10m) or a time (2006-01-02T15:04:05Z)")
	f.BoolVar(&l.timestamps, "timestamps", false, "put the time before each line")
	f.StringVarP(&l.container, "container", "c", "", "container whose output to show (default: the first)")
	return cmd
}

// cutKind reads "service/web"; ok is false where no kind stands in front.
func cutKind(arg string) (kind, name string, ok bool) {
	head, rest, slash := strings.Cut(arg, "/")
	if !slash {
		return "", arg, false
	}
	kind, err := parseKind(head)
	return kind, rest, err == nil
}

func (t *tool) logsRequest(l logging, arg string) (*orchv1.LogsRequest, target, error) {
	kind, name, ok := cutKind(arg)
	if !ok {
		kind, name = api.KindReplica, arg
	}
	if name == "" {
		return nil, target{}, usagef("%q: the name is missing", arg)
	}
	x := t.target(kind, name)
	r := &orchv1.LogsRequest{Namespace: x.namespace, Container: l.container, Follow: l.follow, Tail: l.tail, Previous: l.previous}
	switch kind {
	case api.KindService, api.KindJob: // the two share their names
		r.Service = x.name
	case api.KindReplica:
		r.Replica = x.name
	default:
		return nil, target{}, usagef("a %s prints nothing: want a replica, service/NAME or job/NAME", word(kind))
	}
	if l.previous && l.follow {
		return nil, target{}, usagef("--previous and --follow: a run that has ended prints no more")
	}
	if l.tail < -1 {
		return nil, target{}, usagef("--tail %d: want a number of lines, or -1 for all", l.tail)
	}
	if l.since != "" {
		at, err := sinceTime(l.since, t.Now())
		if err != nil {
			return nil, target{}, err
		}
		r.Since = timestamppb.New(at)
	}
	return r, x, nil
}

func sinceTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, usagef("--since %s: want a duration such as 10m, or a time such as %s", text, now.UTC().Format(time.RFC3339))
}

// logPrinter prints lines; it knows how far each replica's output has come, so
// that a broken stream goes on where it was.
type logPrinter struct {
	t       *tool
	l       logging
	prefix  bool
	newest  map[string]time.Time // by replica and container, of the newest printed line
	reached map[string]time.Time // newest, when this stream began
	begun   bool                 // something could be read, if only that there is nothing
	gaps    int                  // told instead of lines
	// errs is where what was written to standard error goes; nil: with the rest.
	errs io.Writer
	// quiet leaves notes out.
	quiet bool
}

func newLogPrinter(t *tool, l logging) *logPrinter {
	return &logPrinter{t: t, l: l, newest: map[string]time.Time{}}
}

func (t *tool) logs(ctx context.Context, l logging, request *orchv1.LogsRequest, x target) error {
	doing := "logs of " + x.name
	if x.kind != api.KindReplica {
		doing = "logs of " + x.String()
	}
	client, err := t.connect(ctx, doing, false)
	if err != nil {
		return err
	}
	p := newLogPrinter(t, l)
	if x.kind != api.KindReplica {
		if p.prefix, err = t.severalReplicas(ctx, client, x); err != nil {
			return err
		}
	}
	if err := p.run(ctx, client, request, doing); err != nil && x.kind == api.KindReplica {
		return t.orReplicas(ctx, client, x, err)
	} else if err != nil {
		return err
	}
	return nil
}

// run prints what a request asks for, over broken streams too.
func (p *logPrinter) run(ctx context.Context, client orchv1.OrchClient, request *orchv1.LogsRequest, doing string) error {
	t, l := p.t, p.l
	wait, lastGood := backOffMin, t.Now()
	for {
		heard, err := p.once(ctx, client, request)
		if err == nil || (l.follow && ctx.Err() != nil) { // an interrupt is how following ends
			if p.gaps > 0 && !p.begun && ctx.Err() == nil {
				return exitStatus(exitFailed) // nothing could be had, and it is said why
			}
			return nil
		}
		if heard {
			wait, lastGood = backOffMin, t.Now()
		}
		patience := readPatience
		if l.follow {
			patience = streamPatience
		}
		if !transient(err) || (heard && !l.follow) || t.Now().Sub(lastGood)+wait > patience {
			return t.failed(err, doing, viewer)
		}
		select {
		case <-ctx.Done():
			return t.failed(ctx.Err(), doing, viewer)
		case <-time.After(wait):
		}
		wait = min(2*wait, backOffMax)
		p.resume(request)
	}
}

// severalReplicas tells whether lines need their replica's name before them.
func (t *tool) severalReplicas(ctx context.Context, client orchv1.OrchClient, x target) (bool, error) {
	found, missing, err := t.fetch(ctx, client, listing{}, []target{x})
	if err != nil || missing != nil {
		return false, errors.Join(err, missing)
	}
	switch v := found[0].value.(type) {
	case *api.Service:
		return v.Spec.Want() > 1 || v.Status.Replicas > 1, nil
	case *api.Job:
		return v.Spec.Want() > 1, nil
	}
	return false, fmt.Errorf("logs of %s: the controller answered with a %s", x, found[0].kind)
}

// resume asks for what came after the oldest of the newest lines.
func (p *logPrinter) resume(r *orchv1.LogsRequest) {
	p.reached = map[string]time.Time{}
	var oldest time.Time
	for k, at := range p.newest {
		p.reached[k] = at
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	if !oldest.IsZero() {
		r.Since, r.Tail = timestamppb.New(oldest), -1
	}
}

func (p *logPrinter) once(ctx context.Context, client orchv1.OrchClient, r *orchv1.LogsRequest) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Logs(ctx, r)
	if err != nil {
		return false, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return heard, nil
		}
		if err != nil {
			return heard, err
		}
		heard = true
		if err := p.print(m); err != nil {
			return heard, err
		}
	}
}

// remark says on stderr what is no replica's output.
func (p *logPrinter) remark(name, text string) {
	if text = cleanText(text); !strings.Contains(text, name) {
		text = name + ": " + text
	}
	fmt.Fprintf(p.t.Err, "-- %s --\n", text)
}

func (p *logPrinter) print(m *orchv1.LogLine) error {
	name := m.GetReplica().GetService()
	if name != "" {
		name = fmt.Sprintf("%s-%d", name, m.GetReplica().GetSlot())
	}
	switch {
	case m.GetGap() != "":
		p.gaps++
		p.remark(name, m.GetGap())
		return nil
	case m.GetNote() != "":
		if !p.quiet {
			p.remark(name, m.GetNote())
		}
		return nil
	}
	p.begun = true
	if m.GetBegun() {
		return nil
	}
	if at := m.GetTime(); at != nil {
		key := fmt.Sprintf("%s@%d/%s", name, m.GetReplica().GetEpoch(), m.GetContainer())
		when := at.AsTime()
		if old, ok := p.reached[key]; ok && !when.After(old) {
			return nil // printed before the stream broke
		}
		p.newest[key] = when
	}
	var b strings.Builder
	if p.prefix {
		b.WriteString("[" + name + "] ")
	}
	if p.l.timestamps && m.GetTime() != nil {
		b.WriteString(m.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000000Z") + " ")
	}
	b.WriteString(strings.TrimSuffix(string(m.GetText()), "\n"))
	b.WriteString("\n")
	to := p.t.Out
	if p.errs != nil && m.GetStream() == "stderr" {
		to = p.errs
	}
	_, err := io.WriteString(to, b.String())
	return err
}
