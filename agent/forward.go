package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// forwardDialMax is how long a replica on this very node may take to accept.
	forwardDialMax = 5 * time.Second
	// forwardBuffer is what is read from a replica at once, in bytes.
	forwardBuffer = 32 << 10
	// halfOpenMax is how long the user may go on after the replica has said all:
	// most have closed the connection, and few users have more to say.
	halfOpenMax = 30 * time.Second
)

// relayForward carries one TCP connection to a replica's port.
func (d *driver) relayForward(ctx context.Context, req *orchv1.PortForwardOpen, r session.Relay) *orchv1.End {
	key, port := wire.KeyFromPB(req.GetReplica()), req.GetPort()
	if port == 0 || port > api.MaxPort {
		return failed(fmt.Errorf("forward to %s: %d is no port", key, port))
	}
	if err := d.observed(ctx); err != nil {
		return failed(err)
	}
	var ip netip.Addr
	var err error
	if e := d.ask(ctx, func(c *plan.Core) { ip, err = c.Address(key) }); e != nil {
		return failed(e) // the plan may still be about to answer
	}
	if err != nil {
		return failed(err)
	}
	at := netip.AddrPortFrom(ip, uint16(port))
	conn, err := (&net.Dialer{Timeout: forwardDialMax}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return failed(dialError(key, at, err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := forward(conn.(*net.TCPConn), r); err != nil {
		return failed(fmt.Errorf("connection to %s at %s: %w", key, at, err))
	}
	return &orchv1.End{}
}

func dialError(key api.ReplicaKey, at netip.AddrPort, err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("replica %s refuses connections on port %d: nothing listens at %s (a program that listens on 127.0.0.1 alone is not reached)", key, at.Port(), at)
	}
	return fmt.Errorf("replica %s is not reached at %s: %w", key, at, err)
}

// forward carries data both ways until both sides have said all, or one is gone.
func forward(conn *net.TCPConn, r session.Relay) error {
	up := make(chan error, 1) // the user's side: nil when it has said all
	go func() { up <- feedForward(conn, r) }()
	buf := make([]byte, forwardBuffer)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			// The frame may still be on its way when this returns, hence a copy.
			if e := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: append([]byte(nil), buf[:n]...)}}); e != nil {
				return nil // the user is gone: nobody hears why
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return plainly(err)
		}
	}
	if err := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_DataEnd{DataEnd: true}}); err != nil {
		return nil
	}
	select {
	case <-up: // an error of it tells that the replica wants no more, as it said
	case <-time.After(halfOpenMax):
	}
	return nil
}

// feedForward hands the replica what the user says.
func feedForward(conn *net.TCPConn, r session.Relay) error {
	for {
		f, err := r.Recv()
		if err != nil {
			_ = conn.Close() // ends the reader, too
			return err
		}
		switch x := f.GetFrame().(type) {
		case *orchv1.Frame_Stdin:
			if _, err := conn.Write(x.Stdin); err != nil {
				return err
			}
		case *orchv1.Frame_StdinClosed:
			return conn.CloseWrite()
		}
	}
}

// plainly leaves out addresses, which whoever reads it has been told.
func plainly(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return errors.New("the replica reset it")
	case errors.Is(err, net.ErrClosed):
		return errors.New("the user has ended it")
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
