package traffic

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// TestMain runs the tests in network and mount namespaces of their own: that
// network is the node's.
func TestMain(m *testing.M) {
	const inside = "ORCH_TRAFFIC_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // the signal comes when this thread ends
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// The node is 192.0.2.1 with replicas in 10.64.7.0/24; beside it, on one segment,
// is n2, 192.0.2.2, with 10.64.8.0/24; outside, at 203.0.113.2, a client that is
// no node.
const (
	nodeIP    = "192.0.2.1"
	otherIP   = "192.0.2.2"
	outsideIP = "203.0.113.2"
	gateway   = "10.64.7.1"
	vip       = "10.128.0.10"
)

// world is that network, new for each test.
type world struct {
	*testing.T
	dir string
}

func sh(t testing.TB, script string, args ...any) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", fmt.Sprintf(script, args...)).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", fmt.Sprintf(script, args...), err, out)
	}
	return string(out)
}

func newWorld(t *testing.T) *world {
	w := &world{t, t.TempDir()}
	if err := os.Mkdir(w.space(""), 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, `ip link set lo up; ip addr add %s/32 dev lo
		echo 1 > /proc/sys/net/ipv4/ip_forward`, gateway)
	t.Cleanup(func() {
		sh(t, `ip addr del %s/32 dev lo; nft flush ruleset; echo 0 > /proc/sys/net/ipv4/conf/all/route_localnet
			for i in $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1); do ip link del $i || true; done`, gateway)
		w.eventually(10*time.Second, "the kernel has taken the links away", func() bool { return sh(t, "ip -o link show type veth") == "" })
	})
	w.host("n2", nodeIP+"/24", otherIP+"/24")
	sh(t, "ip route add 10.64.8.0/24 via %s; ip route add 10.128.0.0/14 dev n2 src %s", otherIP, nodeIP)
	w.in("n2", "ip route add 10.64.7.0/24 via %s", nodeIP)
	w.host("out", "203.0.113.1/24", outsideIP+"/24")
	return w
}

func (w *world) space(name string) string { return filepath.Join(w.dir, "netns", name) }

// host makes a network namespace with one link to the node.
func (w *world) host(name, near, far string) {
	w.Helper()
	sh(w, `touch %[1]s; unshare --net=%[1]s ip link set lo up
		ip link add %[2]s type veth peer name eth0 netns %[1]s
		ip addr add %[3]s dev %[2]s; ip link set %[2]s up`, w.space(name), name, near)
	w.in(name, "ip addr add %s dev eth0; ip link set eth0 up; ip route replace default via %s dev eth0 onlink", far, strings.Split(near, "/")[0])
	w.Cleanup(func() { syscall.Unmount(w.space(name), syscall.MNT_DETACH) })
}

func (w *world) in(name, script string, args ...any) {
	w.Helper()
	sh(w, "nsenter --net=%s sh -ec '%s'", w.space(name), fmt.Sprintf(script, args...))
}

// replica makes one on the node, or on n2 if its address is there. It serves on
// ports 80 and 81 over TCP and UDP.
func (w *world) replica(service string, slot int, ip string, ports ...api.Port) wire.Endpoint {
	w.Helper()
	name := fmt.Sprintf("%s%d", service, slot)
	e := wire.Endpoint{Replica: api.ReplicaKey{Namespace: "default", Service: service, Slot: slot, Epoch: uint64(slot + 1)}, Node: "n1", IP: ip, NodeIP: nodeIP, Ports: ports}
	if strings.HasPrefix(ip, "10.64.8.") {
		e.Node, e.NodeIP = "n2", otherIP
		w.in("n2", "ip addr add %s/32 dev lo", ip)
		name = "n2"
	} else {
		w.host(name, gateway+"/32", ip+"/32")
		sh(w, "ip route add %s/32 dev %s", ip, name)
	}
	for _, port := range []int{80, 81} {
		w.serve(name, ip, port, fmt.Sprintf("%s-%d:%d", service, slot, port))
	}
	return e
}

// serve answers each line with who answers and who asked: "web-0:80 10.64.7.3".
func (w *world) serve(space, ip string, port int, id string) {
	w.Helper()
	w.within(space, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", ip, port))
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", ip, port))
		if err != nil {
			return err
		}
		w.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b := make([]byte, 100)
					for {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						if string(b[:n]) != "wait" {
							fmt.Fprintf(c, "%s %s", id, c.RemoteAddr().(*net.TCPAddr).IP)
						}
					}
				}()
			}
		}()
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				u.WriteTo(fmt.Appendf(nil, "%s %s", id, from.(*net.UDPAddr).IP), from)
			}
		}()
		return nil
	})
}

// within runs f on a thread inside a namespace; "" is the node's.
func (w *world) within(space string, f func() error) {
	w.Helper()
	if err := w.try(space, f); err != nil {
		w.Fatal(err)
	}
}

func (w *world) try(space string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		if space != "" {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			ns, err := netns.GetFromPath(w.space(space))
			if err == nil {
				err = netns.Set(ns)
				ns.Close()
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

// dial connects from a namespace.
func (w *world) dial(space, proto, to string) (net.Conn, error) {
	var c net.Conn
	err := w.try(space, func() (err error) {
		c, err = net.DialTimeout(proto, to, 5*time.Second) // a SYN that was lost is sent again after one second, then two
		return err
	})
	return c, err
}

func say(c net.Conn) (string, error) {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// ask gives who answered, and whom he saw.
func (w *world) ask(space, proto, to string) (id, saw string, err error) {
	c, err := w.dial(space, proto, to)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	said, err := say(c)
	id, saw, _ = strings.Cut(said, " ")
	return id, saw, err
}

func (w *world) wants(space, proto, to, id, saw string) {
	w.Helper()
	gotID, gotSaw, err := w.ask(space, proto, to)
	if err != nil || gotID != id || saw != "" && gotSaw != saw {
		w.Errorf("from %q to %s %s: %s saw %s, %v; want %s and %s", space, proto, to, gotID, gotSaw, err, id, saw)
	}
}

func here() network.Standing {
	return network.Standing{Address: netip.MustParseAddr(nodeIP), Subnet: netip.MustParsePrefix("10.64.7.0/24"),
		Cluster: netip.MustParsePrefix("10.64.0.0/10"), Services: netip.MustParsePrefix("10.128.0.0/14"), Routes: wire.RoutesAuto}
}

// balancer is one life of the agent's traffic.
type balancer struct {
	*Balancer
	w    *world
	stop func()

	mu   sync.Mutex
	mark uint64
	told uint64
}

func (w *world) config() Config {
	return Config{
		Path: filepath.Join(w.dir, "traffic.json"), Rules: netfilter.New(filepath.Join(w.dir, "marker")),
		Names: nobody{}, Connections: netfilter.Connections{Spaces: w.space("")}, Logger: slog.New(slog.NewTextHandler(logWriter{w.T}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (w *world) start() *balancer { return w.startWith(w.config()) }

func (w *world) startWith(cfg Config) *balancer {
	b := &balancer{Balancer: New(cfg), w: w}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.Run(ctx, func(mark uint64) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if mark <= b.told {
				w.Errorf("programmed(%d) after %d", mark, b.told)
			}
			b.told = mark
		})
	}()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.Error(err)
			}
		})
	}
	w.Cleanup(b.stop)
	return b
}

// tell gives an update and waits until it is in force.
func (b *balancer) tell(u network.Update) {
	b.w.Helper()
	mark := b.say(u)
	b.w.eventually(5*time.Second, fmt.Sprintf("mark %d is in force", mark), func() bool { return b.programmed() >= mark })
}

func (b *balancer) say(u network.Update) uint64 {
	b.mu.Lock()
	b.mark++
	mark := b.mark
	b.mu.Unlock()
	b.Balance(plan.Balance{Mark: mark, Complete: u.Complete, Put: u.Put, Drop: u.Drop, Services: u.Services, DropServices: u.DropServices})
	return mark
}

func (b *balancer) programmed() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told
}

// serving starts a balancer with a service web at the virtual IP.
func (w *world) serving(s wire.Service, put ...wire.Endpoint) *balancer {
	w.Helper()
	b := w.start()
	b.Configure(here())
	b.Connected(true)
	b.tell(network.Update{Complete: true, Services: []wire.Service{s}, Put: put})
	return b
}

func web(opts ...func(*wire.Service)) wire.Service {
	s := wire.Service{Key: api.Key{Namespace: "default", Name: "web"}, VIP: vip}
	for _, o := range opts {
		o(&s)
	}
	return s
}

// eventually polls; what it waits for happens in the kernel or in other goroutines.
func (w *world) eventually(within time.Duration, what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("not within %s: %s\n%s", within, what, sh(w, "nft list table ip orch || true; ip route"))
		}
	}
}

type nobody struct{}

func (nobody) Update([]wire.Endpoint, []api.ReplicaKey, []wire.Service, []api.Key, bool) {}

type logWriter struct{ t *testing.T }

func (l logWriter) Write(b []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

var _ io.Writer = logWriter{}
