package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/orchctl/orch/internal/store"
)

const (
	dialTimeout = 5 * time.Second
	// A connection that stays silent this long is given up, so that a member
	// which lost its power does not hold up reads and watches.
	keepAliveEvery   = 3 * time.Second
	keepAliveTimeout = 3 * time.Second
)

// ExternalConfig names an etcd that orch does not run.
type ExternalConfig struct {
	// Endpoints are https://host:port, or unix:///path for one on this machine.
	Endpoints []string
	// CertFile and KeyFile are the client's certificate, CAFile checks the
	// server's; all PEM. All three are needed for https.
	CertFile, KeyFile, CAFile string
	// Limits are zero for store.ExternalLimits; set them where etcd's
	// --max-txn-ops and --max-request-bytes were raised.
	Limits store.Limits
	// RangePage is the number of keys per read; 0 for the default.
	RangePage int
	// Log receives what etcd's client has to say; nil discards it.
	Log *slog.Logger
}

// Dial connects to an external etcd and makes sure that it answers.
func Dial(ctx context.Context, c ExternalConfig) (*Store, error) {
	if len(c.Endpoints) == 0 {
		return nil, fmt.Errorf("dial etcd: no endpoints")
	}
	place := strings.Join(c.Endpoints, ",")
	conf := clientv3.Config{
		Endpoints:            c.Endpoints,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveEvery,
		DialKeepAliveTimeout: keepAliveTimeout,
		Logger:               zapLogger(orDiscard(c.Log)),
	}
	tls := TLSFiles{CertFile: c.CertFile, KeyFile: c.KeyFile, CAFile: c.CAFile}
	for _, e := range c.Endpoints {
		switch {
		case strings.HasPrefix(e, "unix://"):
		case !strings.HasPrefix(e, "https://"):
			return nil, fmt.Errorf("dial etcd at %s: only https:// and unix:// are allowed: etcd holds the cluster's secrets", e)
		case !tls.complete():
			return nil, fmt.Errorf("dial etcd at %s: certificate, key and CA files are all needed", e)
		}
	}
	if tls.complete() {
		info := transport.TLSInfo{CertFile: tls.CertFile, KeyFile: tls.KeyFile, TrustedCAFile: tls.CAFile}
		conf2, err := info.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("dial etcd at %s: %w", place, err)
		}
		conf.TLS = conf2
	}
	client, err := clientv3.New(conf)
	if err != nil {
		return nil, fmt.Errorf("dial etcd at %s: %w", place, err)
	}
	limits := c.Limits
	if limits == (store.Limits{}) {
		limits = store.ExternalLimits
	}
	s := newStore(client, limits, c.RangePage)
	s.requireLeader = true
	if _, err := s.get(ctx, "/", clientv3.WithCountOnly()); err != nil {
		s.Close()
		return nil, fmt.Errorf("dial etcd at %s: %w", place, err)
	}
	return s, nil
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
