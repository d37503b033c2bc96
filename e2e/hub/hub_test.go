package hub

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// TestHub: what the tests with a registry rest on is so.
func TestHub(t *testing.T) {
	image, err := random.Image(200<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	h := New()
	if err := h.Push(t.Context(), "team/web:1", image); err != nil {
		t.Fatal(err)
	}
	cert, authority, err := Certificate(net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := h.Serve(l, cert)
	defer stop()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	over := remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}})
	ref, err := name.ParseReference(l.Addr().String() + "/team/web:1")
	if err != nil {
		t.Fatal(err)
	}
	pull := func(as authn.Authenticator) (v1.Image, error) { return remote.Image(ref, over, remote.WithAuth(as)) }
	layer := func(i v1.Image) (int64, time.Duration, error) {
		began := time.Now()
		layers, err := i.Layers()
		if err != nil {
			return 0, 0, err
		}
		r, err := layers[0].Compressed()
		if err != nil {
			return 0, 0, err
		}
		n, err := io.Copy(io.Discard, r)
		return n, time.Since(began), errors.Join(err, r.Close())
	}

	got, err := pull(authn.Anonymous)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := layer(got); err != nil {
		t.Error("a layer:", err)
	}
	if m, b := h.Asked(); m != 1 || b != 1 {
		t.Errorf("%d manifests and %d blobs were asked for, want 1 and 1", m, b)
	}
	h.Break(Fault{BytesPerSecond: 400 << 10})
	if n, took, err := layer(got); err != nil || took < 300*time.Millisecond {
		t.Errorf("a slow layer of %d bytes took %s: %v", n, took, err)
	}
	h.Break(Fault{Corrupt: true})
	if _, _, err := layer(got); err == nil {
		t.Error("a corrupt layer was taken")
	}
	h.Break(Fault{Status: http.StatusServiceUnavailable})
	var failed *transport.Error
	if _, err := remote.Head(ref, over, remote.WithRetryStatusCodes()); !errors.As(err, &failed) || failed.StatusCode != http.StatusServiceUnavailable {
		t.Error("out of order:", err)
	}
	h.Break(Fault{})

	h.Login("alice", "open sesame")
	if _, err := pull(authn.Anonymous); !errors.As(err, &failed) || failed.StatusCode != http.StatusUnauthorized {
		t.Error("without a login:", err)
	}
	if _, err := pull(&authn.Basic{Username: "alice", Password: "open sesame"}); err != nil {
		t.Error("with a login:", err)
	}

	other, err := random.Image(1<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Push(t.Context(), "team/web:1", other); err != nil {
		t.Fatal(err)
	}
	moved, err := pull(&authn.Basic{Username: "alice", Password: "open sesame"})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := other.RawManifest()
	if is, err := moved.RawManifest(); err != nil || !bytes.Equal(is, want) {
		t.Error("the tag did not move:", err)
	}
}
