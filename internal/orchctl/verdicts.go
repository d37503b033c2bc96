package orchctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// verdictsShown is how many of a node's verdicts a description tells unless
// --verdicts says otherwise: more than one incident, less than a screen or two.
const verdictsShown = 10

func verdictCell(f func(*api.VerdictRecord) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.VerdictRecord)) }
}

var verdictColumns = []column{
	{title: "NAME", cell: verdictCell(verdictName)},
	{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.VerdictRecord).Time) }},
	{title: "CHANGE", cell: verdictCell(verdictChange)},
	{title: "BY", cell: verdictCell(func(r *api.VerdictRecord) string { return orDash(strings.Join(r.By, ",")) })},
	{title: "WHY", cell: verdictCell(func(r *api.VerdictRecord) string { return orDash(r.Why) })},
	{title: "TIME", wide: true, cell: verdictCell(func(r *api.VerdictRecord) string { return exactly(r.Time) })},
	{title: "DONE", wide: true, cell: verdictCell(func(r *api.VerdictRecord) string { return orDash(strings.Join(doneWords(r.Done), "; ")) })},
}

func verdictName(r *api.VerdictRecord) string { return fmt.Sprintf("%s/%d", r.Node, r.Seq) }

// exactly gives a time to the millisecond: verdicts follow each other fast.
func exactly(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// besideVerdicts are the words for what changes beside the verdict.
var besideVerdicts = map[string]string{"Impaired": "impaired", "Works": "works again", "Damped": "damped", "Undamped": "no longer damped"}

// verdictChange says what changed: "Healthy -> Suspect", "impaired".
func verdictChange(r *api.VerdictRecord) string {
	if r.From == "" && r.To == "" {
		if w, ok := besideVerdicts[r.What]; ok {
			return w
		}
		return orDash(r.What)
	}
	return fmt.Sprintf("%s -> %s", orDash(string(r.From)), orDash(string(r.To)))
}

// doneWords say what orch did because of a verdict; none if it did nothing yet.
func doneWords(d api.Done) []string {
	var out []string
	say := func(n int, one, many string) {
		switch {
		case n == 1:
			out = append(out, one)
		case n > 1:
			out = append(out, fmt.Sprintf(many, n))
		}
	}
	say(d.EndpointsWithdrawn, "1 endpoint gets no traffic any more", "%d endpoints get no traffic any more")
	say(d.EndpointsDegraded, "1 endpoint kept its traffic: its service had no other", "%d endpoints kept their traffic: their services had no others")
	say(d.SparesPlaced, "1 spare placed elsewhere", "%d spares placed elsewhere")
	say(d.SparesWaiting, "1 spare waits for its turn or for a node", "%d spares wait for their turn or for a node")
	say(d.Relieved, "1 replica relieved: started elsewhere, then stopped here", "%d replicas relieved: started elsewhere, then stopped here")
	say(d.SparesRemoved, "1 spare removed: the incumbent is back", "%d spares removed: the incumbents are back")
	say(d.IncumbentsRemoved, "1 incumbent removed: its spare has taken its place", "%d incumbents removed: their spares have taken their place")
	say(d.Voided, "1 placement voided", "%d placements voided")
	return out
}

// verdict tells one record as a story; its name stands above it.
func (p *page) verdict(indent int, r *api.VerdictRecord) {
	p.field(indent, "When", "%s (%s ago)", exactly(r.Time), age(p.now, r.Time))
	p.field(indent, "Why", "%s", r.Why)
	p.field(indent, "By", "%s", strings.Join(r.By, ", "))
	p.list(indent, "Evidence", r.Evidence)
	done := doneWords(r.Done)
	if len(done) == 0 {
		done = []string{"nothing, so far"}
	}
	p.list(indent, "Done", done)
}

// verdicts tells a node's latest verdicts, the newest last: why, by whose word,
// on what evidence, and what was done.
func (t *tool) verdicts(ctx context.Context, client orchv1.OrchClient, p *page, node string) error {
	about := target{kind: api.KindNode, name: node}
	found, _, err := t.fetch(ctx, client, listing{about: about.ref()}, []target{{kind: api.KindVerdict}})
	if status.Code(unwrapCall(err)) == codes.InvalidArgument {
		p.field(0, "Verdicts", "this controller keeps none: it is older than this orchctl")
		return nil
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		p.field(0, "Verdicts", "none")
		return nil
	}
	title, all := "Verdicts", len(found)
	if p.verdicts > 0 && all > p.verdicts {
		found = found[all-p.verdicts:]
		title = fmt.Sprintf("Verdicts (the last %d of %d; --verdicts 0 tells all)", p.verdicts, all)
	}
	p.title(0, title)
	for _, o := range found {
		r := o.value.(*api.VerdictRecord)
		p.title(2, fmt.Sprintf("%s (%d)", verdictChange(r), r.Seq))
		p.verdict(4, r)
	}
	return nil
}
