package bubble

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// leasesOn: services under leases are among those that users apply.
const leasesOn = true

// progressDeadline is how long a rollout may hang: short of a round, so that it passes.
const progressDeadline = time.Minute

// askMax is how long a user waits for an answer before asking again.
const askMax = 10 * time.Second

// user owns one service, asks one thing at a time, and asks again with the same
// request id while no answer came.
type user struct {
	w   *world
	key api.Key
	r   *chance
	// exclusive services have leases, kept ones run on in a partition.
	exclusive, leased bool
	// global services have a replica on every node.
	global bool

	mu      sync.Mutex
	acked   want // what there was when the last request was answered
	asking  bool
	asked   map[string]request // all that were ever made, by id
	version int
}

// request is one thing asked for, through all its tries.
type request struct {
	want
	id string
	// scales changes the number only, restarts nothing of what is wanted.
	scales, restarts bool
}

// want is what a user wants of the service; the zero value: nothing of it.
type want struct {
	exists   bool
	replicas int
	image    string
}

func (x want) String() string {
	if !x.exists {
		return "nothing"
	}
	return fmt.Sprintf("%d x %s", x.replicas, x.image)
}

func newUser(w *world, i int) *user {
	name := []string{"web", "db", "cache", "queue", "log"}[i]
	return &user{w: w, key: api.Key{Namespace: api.DefaultNamespace, Name: name}, asked: map[string]request{}, r: newChance(w.cfg.seed, uint64(10+i)), exclusive: leasesOn && name == "db", leased: leasesOn && name == "queue", global: name == "log"}
}

func (w *world) user(key api.Key) *user {
	for _, u := range w.users {
		if u.key == key {
			return u
		}
	}
	w.violate("sim", "there is no user of service %s", key)
	return w.users[0]
}

// stored: I2. What a service is to be changes only by a request that is done in
// the same transaction, or by a rollback.
func (u *user) stored(old, s *api.Service, done []string, back *rollback) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was, is := wantOf(old), wantOf(s)
	if back != nil {
		u.w.bit("rolled back")
		u.w.say("service %s goes back to %s: %s", u.key, is, back.cause)
		switch {
		case is.replicas != was.replicas || is.image != back.stable:
			u.w.violate("rollout", "service %s becomes %s by a rollback, it was %s; %q was rolled out well last", u.key, is, was, back.stable)
		case goodImage(was.image) && back.lasted < progressDeadline:
			u.w.violate("rollout", "service %s is rolled back from %s after %s, though nothing is wrong with that: %s", u.key, was, back.lasted, back.cause)
		}
		u.acked = is
		return
	}
	if is == was {
		return
	}
	images := map[string]bool{was.image: true}
	for _, id := range done {
		images[u.asked[id].image] = true
	}
	for _, id := range done {
		x, ours := u.asked[id]
		if ours && (is == x.want || x.scales && is.exists && is.replicas == x.replicas && images[is.image]) {
			return
		}
	}
	u.w.violate("I2", "service %s becomes %s, it was %s; the requests done with it are %v", u.key, is, was, done)
}

func wantOf(s *api.Service) want {
	if s == nil || !s.Metadata.DeletedAt.IsZero() {
		return want{}
	}
	return want{true, s.Spec.Want(), s.Spec.Containers[0].Image}
}

// state is what was acknowledged, and whether something is asked for now.
func (u *user) state() (acked want, asking bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.acked, u.asking
}

// run asks for things until the run ends; in a calm world it only waits.
func (u *user) run(ctx context.Context) {
	for sleep(ctx, u.r.between(500*time.Millisecond, 25*time.Second)) {
		if u.w.calm.Load() {
			continue
		}
		u.ask(ctx)
	}
}

func (u *user) ask(ctx context.Context) {
	acked, _ := u.state()
	next := acked
	n := u.r.n(100)
	switch {
	case !acked.exists || n < 40:
		u.version++
		image := "good"
		if u.r.hits(0.3) {
			image = pick(u.r, []string{"slow", "crash", "missing", "dies", "dies"})
		}
		next = want{exists: true, replicas: u.r.n(6), image: fmt.Sprintf("%s:%d", image, u.version)}
		if u.global {
			next.replicas = api.DefaultReplicas
		}
	case n < 50 || n < 85 && u.global:
		u.pursue(ctx, u.request(request{want: acked, restarts: true}), false)
		u.mu.Lock()
		u.asking = false
		u.mu.Unlock()
		return
	case n < 85:
		next.replicas = u.r.n(6)
	default:
		next = want{}
	}
	r := u.request(request{want: next, scales: acked.exists && next.exists && acked.image == next.image})
	u.pursue(ctx, r, true)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asking = false
}

// request notes what is asked for from now on.
func (u *user) request(r request) request {
	u.w.bit("requests")
	u.mu.Lock()
	defer u.mu.Unlock()
	r.id = fmt.Sprintf("%s-%d", u.key.Name, len(u.asked))
	u.asked[r.id], u.asking = r, true
	return r
}

// pursue asks until there is an answer. Meanwhile a colleague may have scaled the
// service: what was done before that must not be done again.
func (u *user) pursue(ctx context.Context, r request, colleague bool) {
	for try := 0; ; try++ {
		u.w.say("user of %s asks for %s (%s)%s", u.key.Name, r.want, r.id, map[bool]string{true: ", again"}[try > 0])
		err := u.try(ctx, r, try)
		switch {
		case err == nil:
			u.answered(r)
			return
		case ctx.Err() != nil:
			return
		case status.Code(err) == codes.NotFound && (r.scales || r.restarts):
			u.w.say("user of %s: it is gone", u.key.Name)
			u.answered(r)
			return
		case status.Code(err) == codes.InvalidArgument, status.Code(err) == codes.NotFound, status.Code(err) == codes.PermissionDenied:
			u.w.violate("sim", "the user of %s is refused: %v", u.key.Name, err)
			return
		}
		u.w.say("user of %s has no answer to %s: %v", u.key.Name, r.id, err)
		if !sleep(ctx, u.r.between(50*time.Millisecond, time.Second)) {
			return
		}
		if colleague && r.exists && !u.global && u.r.hits(0.2) {
			u.pursue(ctx, u.request(request{want: want{exists: true, replicas: u.r.n(6)}, scales: true}), false)
		}
	}
}

// answered: I2. What is acknowledged was done, or was so already.
func (u *user) answered(r request) {
	u.w.say("user of %s is answered: %s", u.key.Name, r.id)
	var now want
	u.w.etcd.look(func(g *ledger) {
		now = wantOf(g.services[u.key])
		was := now == r.want || r.restarts || r.scales && now.replicas == r.replicas || r.scales && !now.exists
		if !g.requests[r.id] && !was {
			u.w.violate("I2", "%s of service %s was acknowledged (%s), the store has %s", r.want, u.key, r.id, now)
		}
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.acked = now
}

func (u *user) try(ctx context.Context, r request, try int) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	admin := u.w.admins[try%len(u.w.admins)]
	switch {
	case !r.exists:
		_, err := admin.Delete(ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: api.KindService, Name: u.key.Name}}, IgnoreMissing: true, RequestId: r.id})
		return err
	case r.restarts:
		_, err := admin.Rollout(ctx, &orchv1.RolloutRequest{Name: u.key.Name, Word: "restart", RequestId: r.id})
		return err
	case r.scales:
		_, err := admin.Scale(ctx, &orchv1.ScaleRequest{Name: u.key.Name, Replicas: int32(r.replicas), CurrentReplicas: -1, RequestId: r.id})
		return err
	}
	js, err := json.Marshal(u.manifest(r.want))
	if err != nil {
		return err
	}
	_, err = admin.Apply(ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{{Kind: api.KindService, Json: js}}, RequestId: r.id})
	return err
}

func (u *user) manifest(x want) *api.Service {
	d := func(v time.Duration) *api.Duration { out := api.Duration(v); return &out }
	exec := func(what string) *api.Probe {
		return &api.Probe{Exec: &api.ExecProbe{Command: []string{what}}, Interval: d(time.Second)}
	}
	c := api.Container{Name: "main", Image: x.image, ReadinessProbe: exec(askReady),
		Resources: api.Resources{Requests: api.ResourceList{api.CPU: api.Quantity(200), api.Memory: api.Whole(64 << 20)}}}
	if u.version%2 == 0 {
		c.LivenessProbe = exec(askAlive)
	}
	if u.key.Name == "cache" {
		c.Ports = []api.Port{{Port: 8080, Publish: 8080, Mode: api.PublishHost}}
	}
	var before []api.Container
	if u.version%3 == 0 {
		before = []api.Container{{Name: "init", Image: "init:1"}}
	}
	t := api.Template{InitContainers: before, Containers: []api.Container{c}, TerminationGracePeriod: d(time.Duration(u.version%4) * time.Second)}
	t.RestartPolicy = api.RestartPolicy{MaxBackOff: d(10 * time.Second)}
	s := &api.Service{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindService}, Metadata: api.Metadata{Name: u.key.Name},
		Spec: api.ServiceSpec{Replicas: &x.replicas, Template: t}}
	s.Spec.Rollout.ProgressDeadline = d(progressDeadline)
	if u.global {
		s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, nil
	}
	if u.version%4 == 1 {
		s.Spec.Rollout.MinReady = d(time.Second)
	}
	if u.exclusive {
		s.Spec.Exclusive = true
	}
	if u.leased {
		s.Spec.OnPartition = api.PartitionStop
	}
	return s
}

// newAdmins dials every controller as a user of the cluster, from a machine that
// no fault touches.
func (w *world) newAdmins(ctx context.Context, authority *identity.Authority) error {
	m := w.net.machine("user", netip.AddrFrom4([4]byte{10, 0, 2, 1}))
	p := m.proc()
	id := pki.Identity{Kind: pki.User, Name: "admin", Role: pki.Admin}
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	csr, err := pki.CSR(key, id)
	if err != nil {
		return err
	}
	cert, err := authority.CreateUser(ctx, identity.NewUser{Name: id.Name, Role: id.Role, CSR: csr})
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	tls, err := pki.Bundle{CA: w.ca.CertPEM, Cert: cert, Key: keyPEM}.Certificate()
	if err != nil {
		return err
	}
	source := &pki.Source{}
	source.Set(tls)
	for _, addr := range w.controllerAddresses() {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(pki.ClientTLS(source, w.ca.Pool(), "", nil))),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return w.net.dial(ctx, p, addr) }))
		if err != nil {
			return err
		}
		w.conns = append(w.conns, conn)
		w.admins = append(w.admins, orchv1.NewOrchClient(conn))
	}
	return nil
}

// operator says a word about a node, whatever comes of it.
func (w *world) operator(ctx context.Context, n *node, word string) {
	w.say("an operator: %s %s", word, n.name)
	for try := range 6 {
		c, cancel := context.WithTimeout(ctx, askMax)
		_, err := w.admins[try%len(w.admins)].NodeWord(c, &orchv1.NodeWordRequest{Node: n.name, Word: word, Force: true})
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		w.say("an operator has no answer: %v", err)
	}
}
