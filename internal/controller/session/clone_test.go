package session

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/core"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func helloOf(boot, address string) *orchv1.AgentMessage {
	return &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: boot, Address: address}}}
}

// beatUntil beats every tenth of a second until stop, reading what comes.
func beatUntil(b *bench, stop chan struct{}) {
	l := b.line
	go func() {
		for {
			select {
			case <-l.down:
			case <-l.ctx.Done():
				return
			}
		}
	}()
	go func() {
		for seq := uint64(1); ; seq++ {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-stop:
				return
			case <-l.ctx.Done():
				return
			}
			select {
			case l.up <- &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Beat{Beat: &orchv1.Beat{Sequence: seq}}}:
			case <-l.ctx.Done():
				return
			}
		}
	}()
}

// A newcomer under a node's name: a copy is refused while the first one beats, a machine
// that was booted waits for a second at most, an agent that dials again not at all.
func TestClones(t *testing.T) {
	for _, c := range []struct {
		name    string
		hello   *orchv1.AgentMessage
		silence time.Duration // of the first before the newcomer comes; 0: it beats on
		refused bool
		within  time.Duration
	}{
		{"a copy", helloOf("b2", "10.0.0.2"), 0, true, time.Second},
		{"a copy on the same machine", helloOf("b", "10.0.0.2"), 0, true, time.Second},
		{"a copy with the address", helloOf("b2", "10.0.0.1"), 0, true, time.Second},
		{"booted, and silent for long", helloOf("b2", "10.0.0.1"), 10 * time.Second, false, 0},
		{"booted at once", helloOf("b2", "10.0.0.1"), 50 * time.Millisecond, false, time.Second},
		{"dialled again", helloOf("b", "10.0.0.1"), 0, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := certificate(t)
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				b.cfg.BeatInterval = func() time.Duration { return 100 * time.Millisecond }
				b.open(cert)
				first, firstEnded, hangFirst := b.line, b.ended, b.hang
				stop := make(chan struct{})
				first.up <- helloOf("b", "10.0.0.1")
				beatUntil(b, stop)
				time.Sleep(time.Second)
				synctest.Wait()
				if c.silence > 0 {
					close(stop)
					time.Sleep(c.silence)
				}
				began := time.Now()
				b.open(cert)
				b.line.up <- c.hello
				var got error
				select {
				case got = <-b.ended:
				case <-b.line.down: // the welcome
				}
				if d := time.Since(began); d > c.within {
					t.Errorf("decided after %s, want %s at most", d, c.within)
				}
				synctest.Wait()
				cloned := slices.ContainsFunc(b.lead.events(), func(ev core.Event) bool {
					x, ok := ev.(core.NodeCloned)
					return ok && x.Node == "n1" && strings.Contains(x.Why, "10.0.0.1") && strings.Contains(x.Why, "boot id")
				})
				opened := 0
				for _, ev := range b.lead.events() {
					if _, ok := ev.(core.SessionOpened); ok {
						opened++
					}
				}
				if c.refused {
					if status.Code(got) != codes.AlreadyExists || !strings.Contains(got.Error(), "orchctl token create") || !cloned || opened != 1 || !b.Has("n1") {
						t.Errorf("ended with %v, told of a copy: %v, %d sessions opened", got, cloned, opened)
					}
				} else if cloned || opened != 2 {
					t.Errorf("ended with %v, told of a copy: %v, %d sessions opened", got, cloned, opened)
				}
				hangFirst()
				b.hang()
				<-firstEnded
				b.Wait()
			})
		})
	}
}
