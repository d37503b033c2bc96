package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

// An echo's answer begins with a line "replica client-address"; a connection's
// comes at once, a datagram's before its payload. A sink takes bytes until the
// client has no more, and answers with a line that holds their count.

const (
	// datagramMax is the largest that UDP over IPv4 carries.
	datagramMax = 65507
	// connsMax is how many connections an echo or a sink serves at once.
	connsMax = 4096
)

// ServeEcho answers datagrams and connections on an address until ctx ends.
func ServeEcho(ctx context.Context, addr, name string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	var group sync.WaitGroup
	group.Go(func() {
		serveConns(ctx, l, func(c *net.TCPConn) {
			if _, err := fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr()); err == nil {
				_, _ = io.Copy(c, c) // the client sees how it ended
			}
		})
	})
	group.Go(func() {
		buf := make([]byte, datagramMax)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				if ctx.Err() == nil {
					slog.Error("echo of datagrams ended", "err", err)
				}
				return
			}
			out := append(fmt.Appendf(nil, "%s %s\n", name, from), buf[:n]...)
			_, _ = packets.WriteTo(out, from) // too long, or nobody listens any more: the client's affair
		}
	})
	<-ctx.Done()
	err = errors.Join(l.Close(), packets.Close())
	group.Wait()
	return err
}

// ServeSink takes streams on an address until ctx ends.
func ServeSink(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveConns(ctx, l, func(c *net.TCPConn) {
			if n, err := io.Copy(io.Discard, c); err == nil {
				_, _ = fmt.Fprintf(c, "%d\n", n)
			}
		})
	}()
	<-ctx.Done()
	err = l.Close()
	<-done
	return err
}

// serveConns serves each connection until l is closed, and ends those that are
// left then.
func serveConns(ctx context.Context, l net.Listener, serve func(*net.TCPConn)) {
	var group sync.WaitGroup
	defer group.Wait()
	free := make(chan struct{}, connsMax)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		free <- struct{}{}
		group.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer func() { stop(); _ = c.Close(); <-free }()
			serve(c.(*net.TCPConn))
		})
	}
}

// echo is one exchange with an echo, on a socket of its own.
func echo(j Job) request {
	payload := bytes.Repeat([]byte("orch"), j.Size/4+1)[:j.Size]
	return func(ctx context.Context, n int) (answer, error) {
		conn, err := new(net.Dialer).DialContext(ctx, string(j.Kind), j.Targets[n%len(j.Targets)])
		if err != nil {
			return answer{}, err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return answer{}, err
		}
		if j.Kind == UDP {
			return echoDatagram(conn, payload)
		}
		return echoStream(conn, payload)
	}
}

func echoDatagram(conn net.Conn, payload []byte) (answer, error) {
	if _, err := conn.Write(payload); err != nil {
		return answer{}, err
	}
	buf := make([]byte, datagramMax)
	n, err := conn.Read(buf)
	if err != nil {
		return answer{}, err
	}
	line, rest, _ := bytes.Cut(buf[:n], []byte("\n"))
	if !bytes.Equal(rest, payload) {
		return answer{}, fmt.Errorf("%d bytes came back that are not the %d sent", len(rest), len(payload))
	}
	return greeting(string(line)), nil
}

func echoStream(conn net.Conn, payload []byte) (answer, error) {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(payload)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err == nil {
		var rest []byte
		if rest, err = io.ReadAll(in); err == nil && !bytes.Equal(rest, payload) {
			err = fmt.Errorf("%d bytes came back that are not the %d sent", len(rest), len(payload))
		}
	}
	if err != nil {
		_ = conn.Close() // so that the writer ends
		<-sent
		return answer{}, err
	}
	return greeting(strings.TrimSpace(line)), <-sent
}

func greeting(line string) answer {
	by, seen, _ := strings.Cut(line, " ")
	return answer{by: by, seen: seen}
}

// hold connects each worker to an echo once and waits for the end that the other
// side or the network makes; a connection that lasts until the job ends is none
// that failed. It sends nothing: it is a client that waits for an answer.
func hold(ctx context.Context, j Job) Report {
	r := Report{Began: time.Now()}
	tallies := make([]*tally, j.Workers)
	var group sync.WaitGroup
	for i := range tallies {
		t := newTally()
		tallies[i] = t
		group.Go(func() {
			a, err := holdOne(ctx, j.Targets[i%len(j.Targets)], j.Timeout)
			// A failure's time is when the connection ended, not when it began.
			now := time.Now()
			t.add(now, now.Sub(r.Began), a, err, 1)
			t.by[a.by] += boolToInt(err != nil && a.by != "")
		})
	}
	group.Wait()
	r.Ended = time.Now()
	sum(&r, tallies)
	return r
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func holdOne(ctx context.Context, target string, timeout time.Duration) (answer, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return answer{}, err
	}
	a := greeting(strings.TrimSpace(line))
	_, err = in.ReadByte()
	if ctx.Err() != nil {
		return a, nil
	}
	if err == nil {
		err = errors.New("a byte came that nobody asked for")
	}
	return a, fmt.Errorf("held to %s: %w", a.by, err)
}

// reachEvery is the pause between tries of a Reach job: its figures have this
// much error.
const reachEvery = 2 * time.Millisecond

// reach connects until it succeeds; Ended is when it did.
func reach(ctx context.Context, j Job) Report {
	r := Report{Began: time.Now(), By: map[string]int{}}
	failures := newTally()
	for ctx.Err() == nil {
		r.Requests++
		began := time.Now()
		d := net.Dialer{Timeout: j.Timeout}
		conn, err := d.DialContext(ctx, "tcp", j.Targets[0])
		if err == nil {
			r.Ended = time.Now()
			_ = conn.Close()
			return r
		}
		failures.add(began, 0, answer{}, err, 0)
		select {
		case <-ctx.Done():
		case <-time.After(reachEvery):
		}
	}
	r.Ended = time.Now()
	r.Failed, r.Failures = r.Requests, sorted(failures.failures)
	return r
}
