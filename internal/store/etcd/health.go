package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Space is how full a store is.
type Space struct {
	// Used is what the data takes, in bytes; free room inside etcd's file does not count.
	Used int64
	// Quota is what it may take, in bytes; 0: it is not known.
	Quota int64
	// Full: etcd refuses writes, until somebody makes room and lifts the alarm.
	Full bool
}

// reserve is the share of the quota that is kept for what must be written when
// nodes are lost: at its beginning changes of users are refused.
const reserve = 10 // percent

// Words say what is wrong and what to do; empty: nothing is.
func (s Space) Words() string {
	switch {
	case s.Full:
		return "etcd is full and refuses writes (alarm NOSPACE): raise its --quota-backend-bytes, or compact and defragment it, then lift the alarm with \"etcdctl alarm disarm\""
	case s.Quota > 0 && s.Used > s.Quota/100*(100-reserve):
		return fmt.Sprintf("etcd is nearly full: %d of %d MiB are used, and the rest is kept for moving replicas away from lost nodes: delete what is not needed, or raise etcd's --quota-backend-bytes", s.Used>>20, s.Quota>>20)
	}
	return ""
}

// Space asks etcd how full it is: all members of an external one, of which the
// fullest counts.
func (s *Store) Space(ctx context.Context) (Space, error) {
	worst := Space{Quota: s.quota}
	var failed []error
	for _, e := range s.client.Endpoints() {
		st, err := s.client.Status(ctx, e)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		worst.Used = max(worst.Used, st.DbSizeInUse)
		if st.DbSizeQuota > 0 {
			worst.Quota = st.DbSizeQuota
		}
		worst.Full = worst.Full || full(st)
	}
	if len(failed) == len(s.client.Endpoints()) {
		return Space{}, fmt.Errorf("ask etcd for its size: %w", errors.Join(failed...))
	}
	return worst, nil
}

// Space is how full this etcd is.
func (e *EmbeddedServer) Space(context.Context) (Space, error) {
	used, quota := e.Usage()
	s := Space{Used: used, Quota: quota}
	for _, a := range e.etcd.Server.Alarms() {
		s.Full = s.Full || a.Alarm == etcdserverpb.AlarmType_NOSPACE
	}
	return s, nil
}

// full tells whether a member reports the alarm: its status has it among errors.
func full(st *clientv3.StatusResponse) bool {
	for _, e := range st.Errors {
		if strings.Contains(e, etcdserverpb.AlarmType_NOSPACE.String()) {
			return true
		}
	}
	return false
}

// Member is what one endpoint of an external etcd says of itself.
type Member struct {
	Endpoint string
	Version  string
	Leader   bool
	Space    Space
	// Took is the time of a read that needs a quorum.
	Took time.Duration
	Err  error // in words, with a remedy; then only Endpoint is set
}

// slowRead is what a read of a healthy etcd never takes.
const slowRead = 100 * time.Millisecond

// Words say what is wrong with the member; empty: nothing is.
func (m Member) Words() string {
	switch {
	case m.Err != nil:
		return m.Err.Error()
	case m.Space.Words() != "":
		return m.Space.Words()
	case m.Took > slowRead:
		return fmt.Sprintf("a read took %s, and controllers want it below %s: look at its disk, at what else uses that, and at the network", m.Took.Round(time.Millisecond), slowRead)
	}
	return ""
}

// Probe looks at each endpoint once, for who sets a controller up. The error is
// about what was configured; what is wrong with an endpoint is in its Member.
func Probe(ctx context.Context, c ExternalConfig) ([]Member, error) {
	if _, err := c.clientConfig(); err != nil {
		return nil, fmt.Errorf("look at etcd: %w", err)
	}
	var out []Member
	for _, e := range c.Endpoints {
		one := c
		one.Endpoints = []string{e}
		m, err := probe(ctx, one)
		if err != nil {
			m = Member{Err: err}
		}
		m.Endpoint = e
		out = append(out, m)
	}
	return out, nil
}

func probe(ctx context.Context, c ExternalConfig) (Member, error) {
	conf, err := c.clientConfig()
	if err != nil {
		return Member{}, err
	}
	s, err := c.dial(ctx, conf)
	if err != nil {
		return Member{}, err
	}
	defer s.Close()
	began := time.Now()
	if _, err := s.get(ctx, probeKey, clientv3.WithCountOnly()); err != nil {
		return Member{}, c.explain(err)
	}
	m := Member{Took: time.Since(began)}
	st, err := s.client.Status(ctx, c.Endpoints[0])
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return m, nil // etcd's users need not see that
	}
	if err != nil {
		return Member{}, err
	}
	m.Version, m.Leader = st.Version, st.Leader == st.Header.MemberId
	m.Space, err = s.Space(ctx)
	return m, err
}
