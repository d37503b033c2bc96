package session

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// What a node says of itself is shown to users and written into events, so one
// that lies or errs is cut down to a size that no transaction, no list and no
// other agent stumbles over.
const (
	// messageBytes is what is kept of a sentence: some lines of a runtime's words.
	messageBytes = 2 << 10
	// wordBytes is what is kept of a reason, a state, an id or a digest.
	wordBytes = 256
	// orphansMax is how many orphans are kept of a report: more are not looked
	// through by anybody.
	orphansMax = 1000
	// containersMax is how many containers of a replica are kept; a service has fewer.
	containersMax = 64
	// volumesMax is how many removed volumes one report may tell of; a node has fewer.
	volumesMax = 10_000
	// imagesMax is how many digests are kept of what a replica found; one has fewer
	// containers.
	imagesMax = 64
	// renewalMax is how many leases one renewal may ask for; a node holds fewer
	// replicas.
	renewalMax = 10_000
)

// The times that JSON and people can read.
var timeMin, timeMax = time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// checkReport bounds a report, in place. It refuses what no agent says.
func checkReport(r *wire.StatusReport) error {
	r.Orphans = r.Orphans[:min(len(r.Orphans), orphansMax)]
	for i := range r.Orphans {
		r.Orphans[i] = cut(r.Orphans[i], wordBytes)
	}
	if len(r.VolumesGone) > volumesMax {
		return fmt.Errorf("%d volumes are gone: at most %d are told at once", len(r.VolumesGone), volumesMax)
	}
	for _, k := range r.VolumesGone {
		if k.Slot < 0 || len(k.Namespace) > wordBytes || len(k.Service) > wordBytes || len(k.Volume) > wordBytes {
			return fmt.Errorf("there is no volume %q", clip(k.String()))
		}
	}
	for i := range r.Replicas {
		x := &r.Replicas[i]
		s := &x.Status
		if a, err := netip.ParseAddr(s.IP); s.IP != "" && (err != nil || a.Zone() != "") {
			return fmt.Errorf("address %q of replica %s is no IP address", clip(s.IP), clip(x.Key.String()))
		}
		s.Reason, s.Message, s.StartedAt = cut(s.Reason, wordBytes), cut(s.Message, messageBytes), moment(s.StartedAt)
		s.Containers = s.Containers[:min(len(s.Containers), containersMax)]
		for j := range s.Containers {
			boundContainer(&s.Containers[j])
		}
		if len(x.Images) > imagesMax {
			return fmt.Errorf("%d images of replica %s: at most %d are told", len(x.Images), clip(x.Key.String()), imagesMax)
		}
		for ref, digest := range x.Images {
			x.Images[ref] = cut(digest, wordBytes)
		}
	}
	return nil
}

func boundContainer(c *api.ContainerStatus) {
	c.Name, c.ID, c.ImageID = cut(c.Name, wordBytes), cut(c.ID, wordBytes), cut(c.ImageID, wordBytes)
	c.State, c.Reason = api.ContainerState(cut(string(c.State), wordBytes)), cut(c.Reason, wordBytes)
	c.Message, c.StartedAt = cut(c.Message, messageBytes), moment(c.StartedAt)
	if e := c.LastExit; e != nil {
		e.Reason, e.Message, e.FinishedAt = cut(e.Reason, wordBytes), cut(e.Message, messageBytes), moment(e.FinishedAt)
		if over := len(e.Output) - api.MaxLastOutput; over > 0 { // its end tells most
			e.Output = strings.Clone(strings.ToValidUTF8(e.Output[over:], ""))
		}
	}
}

// checkOf bounds what a node says of its own health.
func checkOf(b *orchv1.Beat) wire.SelfCheck {
	s := wire.SelfCheckFromPB(b)
	s.Age, s.Failing = max(s.Age, 0), cut(s.Failing, messageBytes)
	s.IOPressure, s.MemoryPressure = share(s.IOPressure), share(s.MemoryPressure)
	return s
}

// share is a number from 0 to 1, whatever was said.
func share(x float64) float64 {
	if !(x > 0) { // NaN too
		return 0
	}
	return min(x, 1)
}

// cut shortens a text between two characters and says so by dots. What is left
// holds no memory of the rest.
func cut(s string, size int) string {
	const dots = "..."
	if len(s) <= size {
		return s
	}
	end := size - len(dots)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end]) + dots
}

// moment is the zero time where t is none that can be told.
func moment(t time.Time) time.Time {
	if t.Before(timeMin) || !t.Before(timeMax) {
		return time.Time{}
	}
	return t
}
