package registry

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// Only a name that a resolver says leads nowhere is unknown: a resolver that is down says
// nothing of the name.
func TestUnknownHosts(t *testing.T) {
	a := &asker{client: New(Config{}), host: "hub.example", image: "hub.example/web:1", sent: map[string]Login{}, notes: map[string]string{}}
	for name, c := range map[string]struct {
		err     error
		unknown bool
		says    string
	}{
		"no such host":       {&net.DNSError{Err: "no such host", Name: "hub.example", Server: "10.0.0.53:53", IsNotFound: true}, true, "its name is not known to 10.0.0.53:53"},
		"out of time":        {&net.DNSError{Err: "i/o timeout", Name: "hub.example", Server: "10.0.0.53:53", IsTimeout: true}, false, "10.0.0.53:53 did not say what its name means: i/o timeout"},
		"its upstream fails": {&net.DNSError{Err: "server misbehaving", Name: "hub.example", IsTemporary: true}, false, "this machine's resolver did not say"},
		"resolver refuses":   {&net.DNSError{Err: "read udp: connection refused", Name: "hub.example", Server: "127.0.0.1:53"}, false, "127.0.0.1:53 did not say"},
		"registry refuses":   {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false, "nothing listens at its address"},
	} {
		err := a.explain(t.Context(), fmt.Errorf("resolve: %w", c.err), &seen{})
		if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknownHost) != c.unknown || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: unknown %t, %v", name, errors.Is(err, ErrUnknownHost), err)
		}
	}
}
