package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/preflight"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/etcd"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// etcdTimeout bounds the wait for etcd at the start.
	etcdTimeout = time.Minute
	// spaceEvery is how often etcd is asked how full it is. It fills by some MB a
	// minute at most: its reserve lasts longer.
	spaceEvery = 10 * time.Second
	// spaceTimeout ends such a question.
	spaceTimeout = 5 * time.Second
)

// etcdFlags name an etcd that orch does not run. The zero value: the built-in one.
type etcdFlags struct {
	endpoints          []string
	cert, key, ca      string
	user, passwordFile string
	prefix             string
	maxOps, maxBytes   int
	quota              int64
}

func (e *etcdFlags) addTo(f *pflag.FlagSet) {
	f.StringSliceVar(&e.endpoints, "etcd-endpoints", nil, "`URLs` of an external etcd instead of the built-in one: https://host:port of each of its members")
	f.StringVar(&e.cert, "etcd-cert", "", "client certificate `file` for the external etcd; read again for each connection")
	f.StringVar(&e.key, "etcd-key", "", "client key `file` for the external etcd; read again for each connection")
	f.StringVar(&e.ca, "etcd-ca", "", "CA `file` of the external etcd")
	f.StringVar(&e.user, "etcd-username", "", "`name` of a user of the external etcd, where it has users")
	f.StringVar(&e.passwordFile, "etcd-password-file", "", "`file` with that user's password")
	f.StringVar(&e.prefix, "etcd-prefix", "", "put this, such as /prod, before every `key`, so that clusters can share an etcd (default: all lies below /orch/)")
	f.IntVar(&e.maxOps, "etcd-max-txn-ops", 0, "what the external etcd's --max-txn-ops was raised to, as a `number` (default 128, etcd's own)")
	f.IntVar(&e.maxBytes, "etcd-max-request-bytes", 0, "what the external etcd's --max-request-bytes was raised to, as a `number` (default 1572864, etcd's own)")
	f.Int64Var(&e.quota, "etcd-quota-bytes", 0, "the external etcd's --quota-backend-bytes, as a `number`, for an etcd below 3.6, which does not tell it; a tenth of it is kept for failovers")
}

func (e *etcdFlags) external() bool { return len(e.endpoints) > 0 }

func (e *etcdFlags) check() error {
	if !e.external() {
		if e.cert+e.key+e.ca+e.user+e.passwordFile+e.prefix != "" || e.maxOps+e.maxBytes != 0 || e.quota != 0 {
			return errors.New("--etcd-cert and the other --etcd- flags are for an external etcd: give --etcd-endpoints too")
		}
		return nil
	}
	if e.maxOps != 0 && e.maxOps < store.ExternalLimits.MaxOps {
		return fmt.Errorf("--etcd-max-txn-ops %d: below etcd's own %d", e.maxOps, store.ExternalLimits.MaxOps)
	}
	if least := store.ExternalLimits.MaxBytes / 2 * 3; e.maxBytes != 0 && e.maxBytes < least {
		return fmt.Errorf("--etcd-max-request-bytes %d: below etcd's own %d", e.maxBytes, least)
	}
	if err := e.config(nil).Check(); err != nil {
		return fmt.Errorf("external etcd: %w: see --etcd-endpoints and the --etcd- flags beside it", err)
	}
	return nil
}

// config is what the store needs to know. No limit goes beyond what a controller
// uses of an etcd of its own.
func (e *etcdFlags) config(log *slog.Logger) etcd.ExternalConfig {
	limits := store.ExternalLimits
	if e.maxOps != 0 {
		limits.MaxOps = min(e.maxOps, store.EmbeddedLimits.MaxOps)
	}
	if e.maxBytes != 0 { // a third is left for the encoding, as in ExternalLimits
		limits.MaxBytes = min(e.maxBytes/3*2, store.EmbeddedLimits.MaxBytes)
	}
	return etcd.ExternalConfig{Endpoints: e.endpoints, CertFile: e.cert, KeyFile: e.key, CAFile: e.ca, Username: e.user, PasswordFile: e.passwordFile,
		Prefix: e.prefix, Limits: limits, QuotaBytes: e.quota, Log: log}
}

// look finds what is wrong with an external etcd.
func (e *etcdFlags) look(ctx context.Context) (r preflight.Report) {
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout*time.Duration(1+len(e.endpoints)))
	defer cancel()
	const check = "etcd"
	members, err := etcd.Probe(ctx, e.config(nil))
	if err != nil {
		return preflight.Report{{Check: check, Level: preflight.Fail, What: err.Error(), Remedy: "mend the --etcd- flags, or the files that they name", Hard: true}}
	}
	for _, m := range members {
		words := m.Words()
		switch {
		case m.Err != nil:
			r = append(r, preflight.Finding{Check: check, Level: preflight.Fail, What: m.Endpoint + ": " + words, Remedy: "start it, or mend the --etcd- flags: it says what it misses"})
		case words != "":
			at := strings.LastIndex(words, ": ")
			level := preflight.Warn
			if m.Space.Full {
				level = preflight.Fail
			}
			r = append(r, preflight.Finding{Check: check, Level: level, What: m.Endpoint + ": " + words[:at], Remedy: words[at+2:]})
		default:
			r = append(r, preflight.Finding{Check: check, Level: preflight.OK,
				What: fmt.Sprintf("%s: etcd %s answers in %s and has %d MiB of data", m.Endpoint, m.Version, m.Took.Round(time.Millisecond/10), m.Space.Used>>20)})
		}
	}
	return r
}

// openedStore is the store with what belongs to it.
type openedStore struct {
	store.Store
	eligible election.Eligible
	space    func(context.Context) (etcd.Space, error)
	present  func(context.Context) error // nil for the built-in one
	backup   func(context.Context, io.Writer) (int64, error)
	close    func()
	usage    func() (used, quota int64) // in bytes; a quota that is not known is 0
	done     <-chan struct{}            // nil for an external one
	log      *slog.Logger

	seen  atomic.Pointer[etcd.Space]
	words atomic.Pointer[string] // why there is no room; nil: there is
}

func (c *config) openStore(ctx context.Context, log *slog.Logger) (*openedStore, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	if c.etcd.external() {
		s, err := etcd.Dial(ctx, c.etcd.config(log))
		if err != nil {
			return nil, fmt.Errorf("%w; \"controller check\" looks at it, --etcd-endpoints and the flags beside it say where it is", err)
		}
		o := &openedStore{Store: s, eligible: election.WhenVacant(s, c.name, s, log), space: s.Space, backup: s.Backup, close: func() { s.Close() }, log: log,
			present: func(ctx context.Context) error { return s.Present(ctx, c.name) }}
		o.usage = func() (used, quota int64) {
			if seen := o.seen.Load(); seen != nil {
				return seen.Used, seen.Quota
			}
			return 0, 0
		}
		return o, nil
	}
	e, err := etcd.Embedded(ctx, etcd.EmbeddedConfig{Dir: filepath.Join(c.data, "etcd"), Log: log})
	switch {
	case errors.Is(err, etcd.ErrInUse):
		return nil, fmt.Errorf("%w: stop that one, or choose another folder with --data", err)
	case err != nil:
		return nil, err
	}
	return &openedStore{Store: e.Store(), eligible: election.WhenEtcdLeads(e), space: e.Space, backup: e.Backup, close: func() { e.Close() }, usage: e.Usage, done: e.Done(), log: log}, nil
}

// ofAnother says more of a store that holds another cluster.
func (c *config) ofAnother(cluster string) error {
	if !c.etcd.external() || !c.clusterSaid || cluster == c.cluster {
		return nil
	}
	return fmt.Errorf("the etcd at %s holds the cluster %q%s, and --cluster says %q: give each cluster an --etcd-prefix of its own, or leave --cluster out",
		strings.Join(c.etcd.endpoints, ","), cluster, map[bool]string{false: " below " + c.etcd.prefix}[c.etcd.prefix == ""], c.cluster)
}

// watch ends with an error when etcd stops by itself, and looks how full it is.
func (s *openedStore) watch(ctx context.Context) error {
	t := time.NewTicker(spaceEvery)
	defer t.Stop()
	for {
		s.look(ctx)
		select {
		case <-t.C:
		case <-s.done:
			return errors.New("the built-in etcd has stopped; see the log above")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look asks how full etcd is. What it does not tell, it told before.
func (s *openedStore) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, spaceTimeout)
	defer cancel()
	space, err := s.space(ctx)
	if err != nil {
		s.log.Debug("ask etcd how full it is", "error", err)
		return
	}
	s.seen.Store(&space)
	before, words := s.words.Load(), space.Words()
	switch {
	case words == "" && before != nil:
		s.log.Info("etcd has room again", "used_bytes", space.Used, "quota_bytes", space.Quota)
		s.words.Store(nil)
	case words != "" && (before == nil || *before != words):
		s.log.Error(words, "used_bytes", space.Used, "quota_bytes", space.Quota)
		s.words.Store(&words)
	}
}

// grows has the calls after which there is more in the store than before. Deletes are
// the way out, and what nodes need is what the reserve is for.
var grows = map[string]bool{
	orchv1.Orch_Apply_FullMethodName:           true,
	orchv1.Orch_Scale_FullMethodName:           true,
	orchv1.Orch_Rollout_FullMethodName:         true,
	orchv1.Orch_CreateToken_FullMethodName:     true,
	orchv1.Orch_CreateUser_FullMethodName:      true,
	orchv1.Orch_RotateAuthority_FullMethodName: true,
	orchv1.Orch_RotateSecretKey_FullMethodName: true,
}

// room is a grpc.UnaryServerInterceptor that refuses users' changes while etcd has no
// room but its reserve: else the next node that is lost could not be recorded.
func (s *openedStore) room(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if words := s.words.Load(); words != nil && grows[info.FullMethod] {
		return nil, status.Error(codes.FailedPrecondition, *words)
	}
	return handle(ctx, req)
}
