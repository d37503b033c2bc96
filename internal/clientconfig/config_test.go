package clientconfig

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func TestMergeKeepsOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "config.yaml")
	t.Setenv(EnvPath, path)
	if _, err := Load(""); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load of nothing: %v, want fs.ErrNotExist", err)
	}
	one := Context{Name: "one", Controllers: []string{"a:1"}, CA: "ca", Certificate: "cert", Key: "key", Namespace: "prod"}
	if err := Merge("", one); err != nil {
		t.Fatal(err)
	}
	if err := Merge("", Context{Name: "two", Controllers: []string{"b:1"}}); err != nil {
		t.Fatal(err)
	}
	if err := Merge("", Context{Name: "two", Controllers: []string{"c:1"}}); err != nil {
		t.Fatal(err)
	}
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Contexts) != 2 || c.CurrentContext != "one" {
		t.Errorf("got %d contexts, current %q; want 2, one", len(c.Contexts), c.CurrentContext)
	}
	if got, _ := c.Context(""); got.Certificate != one.Certificate || got.Key != one.Key || got.Namespace != "prod" {
		t.Errorf("current context: got %+v", got)
	}
	if got, _ := c.Context("two"); got.Controllers[0] != "c:1" {
		t.Errorf("context two: got %v, want the newer one", got)
	}
	if _, err := c.Context("three"); !errors.Is(err, ErrNoContext) || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("unknown context: %v", err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestMergeRefusesWhatItCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	const text = "currentContex: one\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Merge(path, Context{Name: "x"}); err == nil {
		t.Error("a file with an unknown field was overwritten")
	}
	if got, _ := os.ReadFile(path); string(got) != text {
		t.Errorf("the file changed to %q", got)
	}
}

// server answers Version on a listener, with or without a controller's certificate.
func server(t *testing.T, ca *pki.CA, l net.Listener, id pki.Identity) {
	t.Helper()
	source := &pki.Source{}
	b := bundle(t, ca, id, time.Now())
	cert, err := b.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	source.Set(cert)
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(pki.ServerTLS(source, ca.Pool, nil))))
	orchv1.RegisterOrchServer(s, versionServer{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
}

type versionServer struct{ orchv1.UnimplementedOrchServer }

func (versionServer) Version(context.Context, *orchv1.VersionRequest) (*orchv1.VersionResponse, error) {
	return &orchv1.VersionResponse{Version: "test"}, nil
}

func bundle(t *testing.T, ca *pki.CA, id pki.Identity, now time.Time) pki.Bundle {
	t.Helper()
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.CSR(key, id)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(csr, id, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pki.Bundle{CA: ca.CertPEM, Cert: cert, Key: pem}
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now().Add(-24*time.Hour), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDial(t *testing.T) {
	ca := newCA(t)
	sock := filepath.Join(t.TempDir(), "c.sock")
	server(t, ca, listen(t, "unix", sock), pki.Identity{Kind: pki.Controller, Name: "c"})
	tcp := listen(t, "tcp", "127.0.0.1:0")
	server(t, ca, tcp, pki.Identity{Kind: pki.Controller, Name: "c"})
	node := listen(t, "tcp", "127.0.0.1:0")
	server(t, ca, node, pki.Identity{Kind: pki.Node, Name: "n"})
	closed := listen(t, "tcp", "127.0.0.1:0")
	closed.Close()

	admin := bundle(t, ca, pki.Identity{Kind: pki.User, Name: "admin", Role: pki.Admin}, time.Now())
	old := bundle(t, ca, pki.Identity{Kind: pki.User, Name: "admin", Role: pki.Admin}, time.Now().Add(-2*time.Hour))
	for _, c := range []struct {
		name        string
		controllers []string
		bundle      pki.Bundle
		ca          []byte
		wrong       string // in the error
	}{
		{name: "unix", controllers: []string{"unix://" + sock}},
		{name: "tcp", controllers: []string{tcp.Addr().String()}},
		{name: "the first is down", controllers: []string{closed.Addr().String(), tcp.Addr().String()}},
		{name: "no socket, then tcp", controllers: []string{"unix:///nowhere/x.sock", tcp.Addr().String()}},
		{name: "all are down", controllers: []string{closed.Addr().String()}, wrong: "connection refused"},
		{name: "not a controller", controllers: []string{node.Addr().String()}, wrong: "verify"},
		{name: "none named", wrong: "names no controllers"},
		{name: "no port", controllers: []string{"10.0.0.1"}, wrong: "host:port"},
		{name: "expired", controllers: []string{tcp.Addr().String()}, bundle: old, wrong: "expired"},
		{name: "foreign", controllers: []string{tcp.Addr().String()}, bundle: bundle(t, newCA(t), pki.Identity{Kind: pki.User, Name: "admin", Role: pki.Admin}, time.Now()), wrong: "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.bundle
			if b.Cert == nil {
				b = admin
			}
			x := Context{Name: "test", Controllers: c.controllers, CA: string(b.CA), Certificate: string(b.Cert), Key: string(b.Key)}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			conn, err := x.Dial(ctx)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %v, want %q in it", err, c.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			v, err := orchv1.NewOrchClient(conn).Version(ctx, &orchv1.VersionRequest{})
			if err != nil || v.Version != "test" {
				t.Errorf("version: %v, %v", v, err)
			}
		})
	}
}
