package netfilter

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// routeLocalnet lets packets from and to 127.0.0.0/8 leave and enter by other
// interfaces than loopback: without it published ports would not answer there.
const routeLocalnet = "/proc/sys/net/ipv4/conf/all/route_localnet"

// loopback is that setting. It is in force only while the chain "guard" is.
type loopback struct {
	// marker is a file that says that it was us.
	marker string
	opened bool
}

// open is called with the guard in place.
func (l *loopback) open() error {
	if l.opened {
		return nil
	}
	now, err := os.ReadFile(routeLocalnet)
	if err == nil && string(bytes.TrimSpace(now)) == "0" {
		if err = os.WriteFile(l.marker, nil, 0o600); err == nil {
			err = os.WriteFile(routeLocalnet, []byte("1"), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("let published ports answer on 127.0.0.1: %w", err)
	}
	l.opened = true
	return nil
}

// check opens again what somebody has closed.
func (l *loopback) check() error {
	if !l.opened {
		return nil
	}
	l.opened = false
	return l.open()
}

// close undoes open. What was open before us stays.
func (l *loopback) close() error {
	l.opened = false
	_, err := os.Stat(l.marker)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is another's setting
	}
	if err == nil {
		if err = os.WriteFile(routeLocalnet, []byte("0"), 0); err == nil {
			err = os.Remove(l.marker)
		}
	}
	if err != nil {
		return fmt.Errorf("keep loopback addresses in: %w", err)
	}
	return nil
}
