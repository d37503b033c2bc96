package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// streamBlock is written at a time: large enough that calls cost nothing.
const streamBlock = 256 << 10

// runStream sends bytes on one connection per worker until the job ends, and
// counts those that the sinks say they took.
func runStream(ctx context.Context, j Job) Report {
	r := Report{Began: time.Now()}
	tallies := make([]*tally, j.Workers)
	taken := make([]int64, j.Workers)
	var group sync.WaitGroup
	for i := range tallies {
		t := newTally()
		tallies[i] = t
		group.Go(func() {
			began := time.Now()
			var err error
			taken[i], err = streamOne(ctx, j.Targets[i%len(j.Targets)], j.Timeout)
			t.add(began, time.Since(began), answer{}, err, 1)
		})
	}
	group.Wait()
	r.Ended = time.Now()
	sum(&r, tallies)
	for _, n := range taken {
		r.Bytes += n
	}
	return r
}

func streamOne(ctx context.Context, target string, timeout time.Duration) (int64, error) {
	dial, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(dial, "tcp", target)
	if err != nil {
		return 0, err
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	block := make([]byte, streamBlock)
	var sent int64
	for ctx.Err() == nil {
		// A stall is a failure: no write waits longer than one request may.
		if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
			return 0, err
		}
		n, err := conn.Write(block)
		sent += int64(n)
		if err != nil {
			return 0, err
		}
	}
	if err := errors.Join(conn.SetDeadline(time.Now().Add(timeout)), conn.CloseWrite()); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read what the sink took: %w", err)
	}
	took, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err == nil && took != sent {
		err = fmt.Errorf("the sink took %d of %d bytes", took, sent)
	}
	return took, err
}
