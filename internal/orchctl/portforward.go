package orchctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// forwardChunk is the most that one frame carries, in bytes.
const forwardChunk = 32 << 10

type forwarding struct {
	addresses []string
	to        target
	pairs     []portPair
}

// portPair is "8080:80": a port here, 0 for one that is chosen, and one there.
type portPair struct {
	local  uint16
	remote string
}

func (t *tool) portForwardCmd() *cobra.Command {
	var f forwarding
	cmd := &cobra.Command{
		Use:   "port-forward service/NAME | REPLICA [LOCAL:]PORT...",
		Short: "Reach a replica's TCP ports from this machine",
		Long: `Listen on this machine and carry each connection to a port of a replica, by way of
the controller and the replica's node. It reaches ports that are not published, and
those of replicas that are not ready; it is for looking at things, not for traffic.

Of a service, connections go to one ready replica, and when that is gone to another.
PORT is a number or the name of a declared port; without LOCAL the same number is
used here, and with ":PORT" a free one, which is printed. An interrupt ends it.`,
		Example: `  orchctl port-forward service/web 8080:80
  orchctl port-forward web-0 8080 9090:metrics
  orchctl port-forward replica/web-0 :80             # any free port here
  orchctl port-forward service/web 8080:80 --address 0.0.0.0   # for others, too`,
		Args:              usageArgs(cobra.MinimumNArgs(2)),
		ValidArgsFunction: beginning(t.completeReplicaOrService),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.parseForward(&f, args); err != nil {
				return err
			}
			return t.portForward(cmd.Context(), f)
		},
	}
	cmd.Flags().StringSliceVar(&f.addresses, "address", []string{"127.0.0.1"}, "address of this machine to listen on; repeat or separate by commas")
	return cmd
}

func (t *tool) parseForward(f *forwarding, args []string) error {
	kind, name, ok := cutKind(args[0])
	switch {
	case !ok:
		kind, name = api.KindReplica, args[0]
	case kind != api.KindService && kind != api.KindReplica:
		return usagef("a %s has no ports: want a replica, or service/NAME", word(kind))
	}
	if name == "" {
		return usagef("%q: the name is missing", args[0])
	}
	f.to = t.target(kind, name)
	for _, a := range args[1:] {
		p, err := parsePair(a)
		if err != nil {
			return err
		}
		f.pairs = append(f.pairs, p)
	}
	for i, a := range f.addresses {
		if a == "localhost" {
			f.addresses[i] = "127.0.0.1"
		} else if net.ParseIP(a) == nil {
			return usagef("--address %q: want an IP address of this machine, such as 127.0.0.1", a)
		}
	}
	return nil
}

func parsePair(text string) (portPair, error) {
	local, remote, two := strings.Cut(text, ":")
	if !two {
		remote = local
	}
	bad := usagef("%q: want PORT, LOCAL:PORT or :PORT, such as 8080:80", text)
	if remote == "" || strings.Contains(remote, ":") {
		return portPair{}, bad
	}
	if n, err := strconv.Atoi(remote); err == nil && (n < 1 || n > 65535) {
		return portPair{}, usagef("%q: ports go from 1 to 65535", text)
	}
	p := portPair{remote: remote}
	if two && local == "" {
		return p, nil
	}
	n, err := strconv.ParseUint(local, 10, 16)
	switch {
	case err != nil && !two: // a name alone: it has no number here
		return p, nil
	case err != nil:
		return p, bad
	case n == 0 && !two:
		return p, bad
	}
	p.local = uint16(n)
	return p, nil
}

// portForward listens until ctx ends, which is how it should end.
func (t *tool) portForward(ctx context.Context, f forwarding) error {
	client, err := t.connect(ctx, "port-forward", false)
	if err != nil {
		return err
	}
	// A name that is wrong is told now, not at the first connection.
	found, missing, err := t.fetch(ctx, client, listing{}, []target{f.to})
	if err != nil || missing != nil {
		return errors.Join(err, missing)
	}
	if s, ok := found[0].value.(*api.Service); ok { // a replica's ports may be those of an earlier revision: its node's controller knows
		for _, p := range f.pairs {
			if err := declared(s, p.remote); err != nil {
				return err
			}
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	x := &forwarder{t: t, client: client, to: f.to, stop: stop}
	defer x.running.Wait() // before it, listeners are closed
	for _, a := range f.addresses {
		for _, p := range f.pairs {
			l, err := net.Listen("tcp", net.JoinHostPort(a, strconv.Itoa(int(p.local))))
			if err != nil {
				stop(nil)
				return listenError(p, a, err)
			}
			closeIt := context.AfterFunc(ctx, func() { _ = l.Close() })
			defer closeIt()
			if err := t.printf("Forwarding from %s -> %s\n", l.Addr(), p.remote); err != nil {
				stop(nil)
				return err
			}
			x.running.Go(func() { x.accept(ctx, l, p.remote) })
		}
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// declared refuses what cannot be reached at a service: a name that none of its
// ports has, and UDP. Numbers need not be declared.
func declared(s *api.Service, remote string) error {
	number, _ := strconv.Atoi(remote) // 0: a name
	var names []string
	udp := false
	for _, c := range s.Spec.Containers {
		for _, p := range c.Ports {
			switch {
			case p.Name != remote && p.Port != number:
				if p.Name != "" && p.Transport() == api.TCP {
					names = append(names, p.Name)
				}
			case p.Transport() == api.TCP:
				return nil
			default:
				udp = true
			}
		}
	}
	switch {
	case udp:
		return usagef("port %s of service/%s is UDP: only TCP can be forwarded", remote, s.Metadata.Name)
	case number == 0 && len(names) == 0:
		return usagef("service/%s has no port %q: none of its TCP ports has a name, want a number", s.Metadata.Name, remote)
	case number == 0:
		return usagef("service/%s has no port %q: want a number, or %s", s.Metadata.Name, remote, strings.Join(names, ", "))
	}
	return nil
}

func listenError(p portPair, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port-forward: port %d of %s is in use here: choose another, as in %d:%s, or have one chosen with :%s", p.local, address, p.local+1, p.remote, p.remote)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port-forward: port %d may not be used here by this user: choose one above 1023, as in 8080:%s, or have one chosen with :%s", p.local, p.remote, p.remote)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("port-forward: %s is no address of this machine", address)
	}
	return fmt.Errorf("port-forward: %w", err)
}

// forwarder carries connections.
type forwarder struct {
	t       *tool
	client  orchv1.OrchClient
	to      target
	stop    context.CancelCauseFunc // ends all, with why
	running sync.WaitGroup
	mu      sync.Mutex // one line on Err at a time
}

func (x *forwarder) accept(ctx context.Context, l net.Listener, remote string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				x.stop(fmt.Errorf("port-forward: accept on %s: %w", l.Addr(), err))
			}
			return
		}
		x.running.Go(func() {
			err := x.carry(ctx, conn.(*net.TCPConn), remote)
			if err == nil || ctx.Err() != nil {
				return
			}
			if err := x.t.failed(err, "port-forward to "+x.to.String(), operator); hopeless(err) {
				x.stop(err)
				return
			}
			x.mu.Lock()
			defer x.mu.Unlock()
			x.t.warnf("%s -> %s: %s", l.Addr(), remote, cleanText(messageOf(unwrapCall(err))))
		})
	}
}

// hopeless tells whether the next connection must fail, too.
func hopeless(err error) bool {
	switch status.Code(unwrapCall(err)) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// carry carries one connection. An error has the connection reset, so that what
// was cut short does not look complete.
func (x *forwarder) carry(ctx context.Context, conn *net.TCPConn, remote string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	reset := func() {
		_ = conn.SetLinger(0) // the close says it to the peer
		_ = conn.Close()
	}
	ends := context.AfterFunc(ctx, reset) // also of a write that the peer does not read
	var up sync.WaitGroup
	defer func() {
		if ends(); err != nil || ctx.Err() != nil {
			reset()
		}
		_ = conn.Close()
		cancel()
		up.Wait()
	}()
	stream, err := x.client.PortForward(ctx)
	if err != nil {
		return err
	}
	open := &orchv1.PortForwardRequest{Namespace: x.to.namespace, Port: remote}
	if x.to.kind == api.KindService {
		open.Service = x.to.name
	} else {
		open.Replica = x.to.name
	}
	if err := stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_PortForward{PortForward: open}}); err != nil && !errors.Is(err, io.EOF) { // io.EOF: Recv tells why
		return err
	}
	up.Go(func() { sendAll(stream, conn, cancel) })
	for {
		f, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the controller ended the stream without a word")
		case err != nil && ctx.Err() != nil:
			return nil // the user's side is gone
		case err != nil:
			return err
		}
		switch y := f.GetFrame().(type) {
		case *orchv1.Frame_Stdout:
			if _, err := conn.Write(y.Stdout); err != nil {
				return nil // the user's side is gone
			}
		case *orchv1.Frame_DataEnd:
			_ = conn.CloseWrite() // a connection that is gone hears nothing more anyway
		case *orchv1.Frame_End:
			if why := y.End.GetError(); why != "" {
				return errors.New(why)
			}
			return nil
		}
	}
}

// sendAll passes on what the user's side says. One that is gone without having said
// all ends the stream.
func sendAll(stream orchv1.Orch_PortForwardClient, conn *net.TCPConn, gone func()) {
	for {
		buf := make([]byte, forwardChunk)
		n, err := conn.Read(buf)
		if n > 0 && stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: buf[:n]}}) != nil {
			return // Recv tells why
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = stream.Send(&orchv1.Frame{Frame: &orchv1.Frame_StdinClosed{StdinClosed: true}}) // an ended stream needs it no more
			return
		case err != nil:
			gone()
			return
		}
	}
}
