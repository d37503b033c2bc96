package api

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// TestUsage: all nodes at once, and of each that cannot be asked, why.
func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &agents{away: map[string]bool{"n2": true}, script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
			if open.GetUsage().GetNamespace() != "shop" {
				t.Errorf("asked for %v", open)
			}
			time.Sleep(time.Second) // it measures
			switch node {
			case "n3":
				close(a.from) // goes away
			case "n4":
				a.from <- endFrame("this node's agent does not know what was asked")
			case "n5": // never answers
			case "n6":
				a.from <- endFrame("")
			default:
				a.from <- &orchv1.Frame{Frame: &orchv1.Frame_Usage{Usage: &orchv1.NodeUsage{Node: "somebody", Error: "nothing", CpuMilli: 250}}}
				a.from <- endFrame("")
			}
		}}
		s := New(Config{View: nodesView(7, "n2"), Log: slog.New(slog.DiscardHandler)})
		s.open = x.open
		ask := func(ctx context.Context, nodes ...string) (map[string]string, error) {
			p := newPipe[*orchv1.NodeUsage](ctx)
			err := s.Usage(&orchv1.UsageRequest{Namespace: "shop", Nodes: nodes}, p)
			got := map[string]string{}
			for _, u := range p.out {
				got[u.GetNode()] = fmt.Sprintf("%d %s", u.GetCpuMilli(), u.GetError())
			}
			if len(got) != len(p.out) {
				t.Errorf("a node answers twice: %v", p.out)
			}
			return got, err
		}
		began := time.Now()
		got, err := ask(t.Context())
		if took := time.Since(began); err != nil || took != usageTimeout {
			t.Errorf("took %s: %v", took, err)
		}
		want := map[string]string{"n1": "250 ", "n2": "0 not reachable: it is Suspect: silent for 1s", "n3": "0 not reachable any more: its session ended while it was asked",
			"n4": "0 this node's agent does not know what was asked", "n5": "0 no answer within 3s: its agent may be stuck, its log tells more", "n6": "0 its agent has no answer", "n7": "250 "}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
		began = time.Now()
		if got, err := ask(t.Context(), "n7", "n1", "n7"); err != nil || fmt.Sprint(got) != "map[n1:250  n7:250 ]" || time.Since(began) != time.Second {
			t.Errorf("two by name: %v, %v in %s", got, err, time.Since(began))
		}
		if _, err := ask(t.Context(), "n9"); status.Code(err) != codes.NotFound {
			t.Errorf("one that is not there: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := ask(ctx, "n5"); status.Code(err) != codes.Canceled {
			t.Errorf("a user who goes: %v", err)
		}
	})
	if err := New(Config{View: view.New(), Log: slog.New(slog.DiscardHandler)}).Usage(&orchv1.UsageRequest{}, newPipe[*orchv1.NodeUsage](t.Context())); err == nil {
		t.Error("no nodes, and no error")
	}
}
