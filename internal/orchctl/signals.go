package orchctl

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// interrupts ends ctx on the first interrupt, so that commands can say what
// they leave; the second one finds the default again and ends the process.
func interrupts(ctx context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
