// Package rig makes a fleet in a lab and looks at it from outside, for the
// demo, the end-to-end tests and the benchmarks. It drives orch the way that a
// user does: built binaries, orchctl, the API, HTTP from another machine.
//
//	test ──► rig ──► lab (namespaces, faults)
//	          ├────► orchctl ──► controller
//	          ├────► API watch (what the leader holds, with times)
//	          └────► containerd of a node (what really runs)
package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/follow"
	"github.com/orchctl/orch/internal/lab"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Fleet is a lab with orch running in it.
type Fleet struct {
	Lab  *lab.Lab
	Orch orchv1.OrchClient

	conn *grpc.ClientConn
	root string
}

// Root is the folder of the repository, found from this file's place.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// ContainerdEnv names the containerd that fleets run on, another than the one in PATH.
const ContainerdEnv = "ORCH_E2E_CONTAINERD"

// Up makes a fleet and waits until every node is healthy. A lab of the same name
// that an earlier run left is removed first.
func Up(ctx context.Context, c lab.Config) (*Fleet, error) {
	c.BinDir = filepath.Join(Root(), "bin")
	if c.Containerd == "" {
		c.Containerd = os.Getenv(ContainerdEnv)
	}
	if err := lab.Remove(ctx, c.Name, lab.DirFor(c.Name)); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	}
	l, err := lab.Up(ctx, c)
	if err != nil {
		return nil, err
	}
	f, err := open(ctx, l, c.Nodes)
	if err != nil {
		return nil, errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	return f, nil
}

// Open takes a lab that is up already and waits until so many nodes are
// healthy. Unlike Up it leaves the lab as it is when it fails.
func Open(ctx context.Context, name string, nodes int) (*Fleet, error) {
	l, err := lab.Open(name)
	if err != nil {
		return nil, err
	}
	return open(ctx, l, nodes)
}

func open(ctx context.Context, l *lab.Lab, nodes int) (*Fleet, error) {
	f := &Fleet{Lab: l, root: Root()}
	if err := f.connect(ctx); err != nil {
		return nil, err
	}
	if err := f.WaitNodes(ctx, nodes); err != nil {
		var dump bytes.Buffer
		f.Dump(context.WithoutCancel(ctx), &dump)
		return nil, errors.Join(err, errors.New(dump.String()), f.conn.Close())
	}
	return f, nil
}

func (f *Fleet) connect(ctx context.Context) error {
	file, err := clientconfig.Load(f.Lab.AdminContext())
	if err != nil {
		return err
	}
	c, err := file.Context("")
	if err != nil {
		return err
	}
	if f.conn, err = c.Dial(ctx); err != nil {
		return err
	}
	f.Orch = orchv1.NewOrchClient(f.conn)
	return nil
}

// Reconnect connects anew, as who the context file says now.
func (f *Fleet) Reconnect(ctx context.Context) error {
	old := f.conn
	if err := f.connect(ctx); err != nil {
		return err
	}
	return old.Close()
}

// Follow watches what the leader holds from now until Close.
func (f *Fleet) Follow(ctx context.Context) (*follow.Follower, error) { return follow.New(ctx, f.Orch) }

// Down takes the fleet down; nothing is left of it.
func (f *Fleet) Down(ctx context.Context) error {
	if f.conn != nil {
		_ = f.conn.Close()
	}
	return f.Lab.Down(ctx)
}

// Orchctl runs the built orchctl against the fleet.
func (f *Fleet) Orchctl(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	return f.OrchctlIn(ctx, nil, args...)
}

// OrchctlIn is Orchctl with standard input.
func (f *Fleet) OrchctlIn(ctx context.Context, stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(f.root, "bin", "orchctl"), args...)
	cmd.Env = append(os.Environ(), "ORCH_CONFIG="+f.Lab.AdminContext())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	code = cmd.ProcessState.ExitCode()
	if err != nil && code <= 0 {
		return out.String(), errs.String() + err.Error(), -1
	}
	return out.String(), errs.String(), code
}

// Must runs orchctl and turns anything but success into an error.
func (f *Fleet) Must(ctx context.Context, args ...string) error {
	out, errs, code := f.Orchctl(ctx, args...)
	if code != 0 {
		return fmt.Errorf("orchctl %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return nil
}

// ApplyText applies a manifest and waits until it is ready, if wait says so.
func (f *Fleet) ApplyText(ctx context.Context, yaml string, wait bool) error {
	out, errs, code := f.OrchctlIn(ctx, strings.NewReader(yaml), "apply", "-f", "-", fmt.Sprintf("--wait=%v", wait), "--timeout", "60s")
	if code != 0 {
		return fmt.Errorf("orchctl apply: exit %d\n%s%s", code, out, errs)
	}
	return nil
}

// LoadImage brings an image archive to every node.
func (f *Fleet) LoadImage(ctx context.Context, name string) error {
	return f.Must(ctx, "image", "load", filepath.Join(f.root, "out", "images", name))
}

// List gives all objects of a kind in a namespace ("" for all).
func List[T any](ctx context.Context, f *Fleet, kind, namespace string) ([]T, error) {
	return list[T](ctx, f, &orchv1.ListRequest{Kind: kind, Namespace: namespace})
}

// listAbout gives all objects of a kind that are about one of the default namespace.
func listAbout[T any](ctx context.Context, f *Fleet, kind, about, name string) ([]T, error) {
	return list[T](ctx, f, &orchv1.ListRequest{Kind: kind, Namespace: api.DefaultNamespace,
		About: &orchv1.Ref{Kind: about, Namespace: api.DefaultNamespace, Name: name}})
}

func list[T any](ctx context.Context, f *Fleet, ask *orchv1.ListRequest) ([]T, error) {
	r, err := f.Orch.List(ctx, ask)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(r.Objects))
	for i, o := range r.Objects {
		if err := json.Unmarshal(o.Json, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Replicas gives a service's replicas, by slot.
func (f *Fleet) Replicas(ctx context.Context, service string) ([]api.Replica, error) {
	all, err := List[api.Replica](ctx, f, api.KindReplica, api.DefaultNamespace)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r api.Replica) bool { return r.Spec.Service != service })
	slices.SortFunc(all, func(a, b api.Replica) int {
		if a.Spec.Slot != b.Spec.Slot {
			return a.Spec.Slot - b.Spec.Slot
		}
		return int(a.Spec.Epoch) - int(b.Spec.Epoch)
	})
	return all, nil
}

// Service gives one service of the default namespace.
func (f *Fleet) Service(ctx context.Context, name string) (*api.Service, error) {
	o, err := f.Orch.Get(ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindService, Namespace: api.DefaultNamespace, Name: name}})
	if err != nil {
		return nil, err
	}
	s := &api.Service{}
	return s, json.Unmarshal(o.Json, s)
}

// pollEvery is how often Until looks: often enough for figures in tenths of a
// second, seldom enough to leave the cores to the fleet.
const pollEvery = 20 * time.Millisecond

// Until polls cond until it holds. On the deadline it says what cond said last.
func Until(ctx context.Context, within time.Duration, what string, cond func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, within, err)
		case <-tick.C:
		}
	}
}

// WaitNodes waits until so many nodes are healthy.
func (f *Fleet) WaitNodes(ctx context.Context, want int) error {
	return Until(ctx, 30*time.Second, fmt.Sprintf("%d healthy nodes", want), func() error {
		nodes, err := List[api.Node](ctx, f, api.KindNode, "")
		if err != nil {
			return err
		}
		healthy := 0
		for _, n := range nodes {
			if n.Status.Verdict == api.VerdictHealthy {
				healthy++
			}
		}
		if healthy != want {
			return fmt.Errorf("%d are healthy", healthy)
		}
		return nil
	})
}

// WaitNode waits for a node's verdict.
func (f *Fleet) WaitNode(ctx context.Context, name string, verdict api.Verdict, within time.Duration) error {
	return Until(ctx, within, fmt.Sprintf("%s to be %s", name, verdict), func() error {
		nodes, err := List[api.Node](ctx, f, api.KindNode, "")
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Metadata.Name == name {
				if n.Status.Verdict == verdict {
					return nil
				}
				return fmt.Errorf("it is %s: %s", n.Status.Verdict, n.Status.VerdictWhy)
			}
		}
		return fmt.Errorf("there is no such node")
	})
}

// WaitReady waits until a service has exactly so many replicas, all ready and of
// its newest revision.
func (f *Fleet) WaitReady(ctx context.Context, service string, want int, within time.Duration) error {
	return Until(ctx, within, fmt.Sprintf("%s to have %d ready replicas", service, want), func() error {
		s, err := f.Service(ctx, service)
		if err != nil {
			return err
		}
		if st := s.Status; st.Ready != want || st.UpdatedReady != want || st.Replicas != want {
			return fmt.Errorf("%d replicas, %d ready, %d of them updated: %s", st.Replicas, st.Ready, st.UpdatedReady, strings.Join(st.Reasons, "; "))
		}
		return nil
	})
}

// HTTP is a client that connects from inside the lab's network, on a fresh
// connection each time.
func (f *Fleet) HTTP(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DialContext: f.Lab.Dial, DisableKeepAlives: true}}
}

// reachMax is how long after the leader's word that a replica is ready a node may
// refuse what is for it: the nodes hear of it at that time. (net.reachable tells how
// long it really takes: some hundredths of a second.)
const reachMax = time.Second

// Get asks a node's published port and gives the body of a 200.
func (f *Fleet) Get(ctx context.Context, node string, port int, path string) (string, error) {
	addr, err := f.Address(ctx, node)
	if err != nil {
		return "", err
	}
	for began := time.Now(); ; {
		body, err := f.Fetch(ctx, fmt.Sprintf("http://%s:%d%s", addr, port, path))
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > reachMax {
			return body, err
		}
		if err := pass(ctx, pollEvery); err != nil {
			return "", err
		}
	}
}

// Address is a node's own address in the lab.
func (f *Fleet) Address(ctx context.Context, node string) (string, error) {
	s, err := f.Lab.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range s.Nodes {
		if n.Name == node {
			return n.Address.String(), nil
		}
	}
	return "", fmt.Errorf("the lab has no node %s", node)
}

// RouteReplicas tells the lab's outer network, where HTTP connects from, the way
// to each node's replicas, as a router in front of a fleet would be told.
func (f *Fleet) RouteReplicas(ctx context.Context) error {
	nodes, err := List[api.Node](ctx, f, api.KindNode, "")
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Status.Subnet == "" {
			continue // and so no replicas but those in its own network
		}
		cmd, err := f.Lab.Command(ctx, "", "ip", "route", "replace", n.Status.Subnet, "via", n.Status.Address)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("route %s by %s: %w: %s", n.Status.Subnet, n.Metadata.Name, err, out)
		}
	}
	return nil
}

// Fetch asks a URL with a numeric address from inside the lab's network and
// gives the body of a 200.
func (f *Fleet) Fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := f.HTTP(fetchTimeout).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return string(body), nil
}

// fetchTimeout of one request: a web server beside us answers in milliseconds.
const fetchTimeout = 2 * time.Second

// Dump prints what is needed to understand a failure.
func (f *Fleet) Dump(ctx context.Context, w io.Writer) {
	for _, args := range [][]string{{"get", "nodes", "-o", "wide"}, {"get", "services", "-o", "wide"}, {"get", "replicas", "-o", "wide"}, {"events"}} {
		out, errs, code := f.Orchctl(ctx, args...)
		fmt.Fprintf(w, "$ orchctl %s (exit %d)\n%s%s\n", strings.Join(args, " "), code, out, errs)
	}
	_ = filepath.WalkDir(f.Lab.Dir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".log") || strings.Contains(path, "/root/") {
			return nil
		}
		if b, err := os.ReadFile(path); err == nil {
			fmt.Fprintf(w, "--- end of %s\n%s\n", path, tail(b, 4000))
		}
		return nil
	})
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// Endpoints gives the endpoints that the leader gives out for a service.
func (f *Fleet) Endpoints(ctx context.Context, service string) ([]api.Endpoint, error) {
	all, err := List[api.Endpoint](ctx, f, api.KindEndpoint, api.DefaultNamespace)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(e api.Endpoint) bool { return e.Status.Service != service }), nil
}
