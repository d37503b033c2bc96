package drill

import (
	"context"
	"errors"
	"io"
	"testing"
)

func TestDrillEndsWhenNobodyReads(t *testing.T) {
	ctx, gone := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	go r.Read(make([]byte, 10))
	out := heard{w, gone}
	if _, err := out.Write([]byte("a line")); err != nil || ctx.Err() != nil {
		t.Fatalf("with a reader: %v, %v", err, ctx.Err())
	}
	r.Close()
	if _, err := out.Write([]byte("a line")); err == nil || !errors.Is(context.Cause(ctx), io.ErrClosedPipe) {
		t.Errorf("without one: %v, %v", err, context.Cause(ctx))
	}
}
