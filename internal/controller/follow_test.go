package controller_test

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Lines that are followed go on behind a gap after the agent was away, from where
// they broke off.
func TestFollowedLogsGoOn(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	var asked []string
	a.logs = func(o *orchv1.LogsOpen, say func(*orchv1.LogLine)) bool {
		n := len(asked)
		asked = append(asked, fmt.Sprintf("tail %d since %d", o.GetTail(), wire.TimeFromPB(o.GetSince()).UnixNano()))
		say(&orchv1.LogLine{Time: wire.TimeToPB(time.Unix(0, int64(100+n))), Text: fmt.Appendf(nil, "line %d", n)})
		time.Sleep(50 * time.Millisecond) // a relay that breaks off takes its last frames along
		return n > 0
	}
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1)}})
	r.ready("web", 1)
	st, err := r.admin.Logs(r.ctx, &orchv1.LogsRequest{Replica: "web-0", Follow: true, Tail: 7, Since: wire.TimeToPB(time.Unix(0, 5))})
	var got []string
	for err == nil {
		var l *orchv1.LogLine
		if l, err = st.Recv(); err != nil {
			break
		}
		if l.Gap != "" {
			l.Text = []byte("gap")
		}
		got = append(got, string(l.Text))
	}
	if err != io.EOF || !slices.Equal(got, []string{"line 0", "gap", "line 1"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if want := []string{"tail 7 since 5", "tail -1 since 101"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}
