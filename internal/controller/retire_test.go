package controller

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store/mem"
)

// A term whose inbox is full ends all the same, and so does who waits for room.
func TestRetireWithAFullInbox(t *testing.T) {
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	st := mem.New()
	authority, err := identity.Open(ctx, identity.Config{Store: st, Dir: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Name: "c1", Authority: authority, Log: log})
	x := newTerm("inc", election.Lease{Term: 1}, func(error) {})
	kvs, _, err := st.Range(ctx, identity.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Begin(kvs, x); err != nil {
		t.Fatal(err)
	}
	c.setTerm(x)
	for range inboxMax {
		if err := x.Tell(ctx, core.Tick{}); err != nil {
			t.Fatal(err)
		}
	}
	made := make(chan error, 1)
	go func() {
		_, err := authority.CreateToken(ctx, pki.JoinNode, time.Time{}, 0)
		made <- err
	}()
	deadline := time.Now().Add(20 * time.Second)
	for waits := false; !waits; { // until it holds the book and waits for room
		x.mu.Lock()
		waits = len(x.waiting) > 0
		x.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("no token is asked for")
		}
	}
	over := make(chan struct{})
	go func() { c.retire(x); close(over) }()
	for _, what := range []string{"the term", "the caller"} {
		select {
		case <-over:
			over = nil
		case err := <-made:
			if err == nil {
				t.Error("a token was made without a leader")
			}
			made = nil
		case <-time.After(time.Until(deadline)):
			t.Fatalf("%s does not end", what)
		}
	}
}
