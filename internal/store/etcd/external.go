package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc/codes"

	"github.com/orchctl/orch/internal/store"
)

const (
	dialTimeout = 5 * time.Second
	// A connection that stays silent this long is given up, so that a member
	// which lost its power does not hold up reads and watches.
	keepAliveEvery   = 3 * time.Second
	keepAliveTimeout = 3 * time.Second
	// dialAgain is the wait before the next try of an etcd that does not answer,
	// and waitSaidEvery how often that is told.
	dialAgain     = time.Second
	waitSaidEvery = 5 * time.Second
	// probeKey is where all of orch's keys lie: a user of etcd's that may read
	// nothing else may read there.
	probeKey = "/orch/"
)

// ExternalConfig names an etcd that orch does not run.
type ExternalConfig struct {
	// Endpoints are https://host:port, or unix:///path for one on this machine.
	Endpoints []string
	// CertFile and KeyFile are the client's certificate, CAFile checks the
	// server's; all PEM. All three are needed for https. The first two are read
	// again for each connection, so that they may be renewed.
	CertFile, KeyFile, CAFile string
	// Username and PasswordFile are a user of etcd's own, where etcd has them.
	Username, PasswordFile string
	// Prefix is put before every key, so that clusters can share an etcd. Empty:
	// all lies below /orch/.
	Prefix string
	// Limits are zero for store.ExternalLimits; set them where etcd's
	// --max-txn-ops and --max-request-bytes were raised.
	Limits store.Limits
	// QuotaBytes is etcd's --quota-backend-bytes, for one below 3.6, which does
	// not tell. 0: it is not known.
	QuotaBytes int64
	// RangePage is the number of keys per read; 0 for the default.
	RangePage int
	// Log receives what etcd's client has to say; nil discards it.
	Log *slog.Logger
}

func (c ExternalConfig) place() string { return strings.Join(c.Endpoints, ",") }

// Check refuses what can never work.
func (c ExternalConfig) Check() error {
	if len(c.Endpoints) == 0 {
		return errors.New("no endpoints")
	}
	tls := TLSFiles{CertFile: c.CertFile, KeyFile: c.KeyFile, CAFile: c.CAFile}
	for _, e := range c.Endpoints {
		switch {
		case strings.HasPrefix(e, "unix://"):
		case !strings.HasPrefix(e, "https://"):
			return fmt.Errorf("%s: only https:// and unix:// are allowed: etcd holds the cluster's secrets", e)
		case !tls.complete():
			return fmt.Errorf("%s: certificate, key and CA files are all needed", e)
		}
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		return errors.New("a user needs a password file, and a password file a user")
	}
	if c.Prefix != "" && (!strings.HasPrefix(c.Prefix, "/") || strings.HasSuffix(c.Prefix, "/")) {
		return fmt.Errorf("prefix %q: want one that begins with a slash and does not end with one, such as /prod", c.Prefix)
	}
	return nil
}

// clientConfig reads the files.
func (c ExternalConfig) clientConfig() (conf clientv3.Config, err error) {
	if err := c.Check(); err != nil {
		return conf, err
	}
	conf = clientv3.Config{
		Endpoints:            c.Endpoints,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveEvery,
		DialKeepAliveTimeout: keepAliveTimeout,
		Username:             c.Username,
		Logger:               zapLogger(orDiscard(c.Log)),
	}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return conf, fmt.Errorf("read password file: %w", err)
		}
		conf.Password = strings.TrimRight(string(text), "\r\n")
	}
	if c.CertFile != "" {
		info := transport.TLSInfo{CertFile: c.CertFile, KeyFile: c.KeyFile, TrustedCAFile: c.CAFile}
		if conf.TLS, err = info.ClientConfig(); err != nil {
			return conf, err
		}
	}
	return conf, nil
}

// Dial connects to an external etcd. While nobody answers it tries again and says
// so, until ctx ends; what waiting cannot mend ends it at once.
func Dial(ctx context.Context, c ExternalConfig) (*Store, error) {
	fail := func(err error) error { return fmt.Errorf("dial etcd at %s: %w", c.place(), err) }
	conf, err := c.clientConfig()
	if err != nil {
		return nil, fail(err)
	}
	log, began := orDiscard(c.Log), time.Now()
	var said time.Time
	var last error
	for {
		s, err := c.dial(ctx, conf)
		if err != nil && ctx.Err() != nil && last != nil {
			err = last // what was wrong, rather than that time ran out
		}
		var final *finalError
		switch {
		case err == nil:
			return s, nil
		case errors.As(err, &final):
			return nil, fail(err)
		case ctx.Err() != nil:
			return nil, fail(fmt.Errorf("no answer within %s: %w", time.Since(began).Round(time.Second), err))
		}
		if last = err; time.Since(said) >= waitSaidEvery {
			log.Warn("waiting for etcd", "endpoints", c.place(), "for", time.Since(began).Round(time.Second), "error", err)
			said = time.Now()
		}
		select {
		case <-time.After(dialAgain):
		case <-ctx.Done():
		}
	}
}

// dial is one try. A *finalError says that another is of no use.
func (c ExternalConfig) dial(ctx context.Context, conf clientv3.Config) (*Store, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.shakeHands(ctx, conf); err != nil {
		return nil, err
	}
	conf.Context = context.WithoutCancel(ctx)
	client, err := clientv3.New(conf)
	if err != nil {
		return nil, c.explain(err)
	}
	if c.Prefix != "" {
		client.KV = namespace.NewKV(client.KV, c.Prefix)
		client.Watcher = namespace.NewWatcher(client.Watcher, c.Prefix)
	}
	limits := c.Limits
	if limits == (store.Limits{}) {
		limits = store.ExternalLimits
	}
	s := newStore(client, limits, c.RangePage)
	s.requireLeader, s.quota = true, c.QuotaBytes
	if _, err := s.get(ctx, probeKey, clientv3.WithCountOnly()); err != nil {
		s.Close()
		return nil, c.explain(err)
	}
	return s, nil
}

// finalError is one that waiting does not mend.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// explain says what an answer of etcd means for who set orch up.
func (c ExternalConfig) explain(err error) error {
	final := func(format string, args ...any) error {
		return &finalError{fmt.Errorf(format+": %w", append(args, err)...)}
	}
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return final("etcd has no user %s with the password in %s: check --etcd-username and --etcd-password-file", c.Username, c.PasswordFile)
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrInvalidAuthToken) && c.Username == "":
		return final("etcd wants a user: give --etcd-username and --etcd-password-file")
	case code(err) == codes.PermissionDenied:
		return final("etcd's user (the one of --etcd-username, or without it of the client certificate's name) may not read and write below %s/orch/: grant it that, as in \"etcdctl role grant-permission ROLE readwrite --prefix=true %[1]s/orch/\"", c.Prefix)
	}
	return err
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
