package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// answerWait is how long a server may take to say that it does not like our
// certificate, which TLS 1.3 does after the handshake.
const answerWait = 500 * time.Millisecond

// http2Hello is how a client of HTTP/2 begins: the server answers at once.
var http2Hello = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")

// shakeHands connects to each endpoint once and says in words why it cannot:
// etcd's client would try on for ever, and tell nothing but that time ran out.
// One endpoint that answers is enough. It is a *finalError where no endpoint can
// ever be of use.
func (c ExternalConfig) shakeHands(ctx context.Context, conf clientv3.Config) error {
	var failed []error
	final := true
	for _, e := range c.Endpoints {
		if strings.HasPrefix(e, "unix://") {
			return nil
		}
		err := c.shakeHand(ctx, e, conf.TLS)
		if err == nil {
			return nil
		}
		var f *finalError
		final = final && errors.As(err, &f)
		failed = append(failed, fmt.Errorf("%s: %w", e, err))
	}
	err := errors.Join(failed...)
	err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	if final {
		return &finalError{err}
	}
	return err
}

func (c ExternalConfig) shakeHand(ctx context.Context, endpoint string, conf *tls.Config) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return &finalError{err}
	}
	conf = conf.Clone()
	conf.ServerName, conf.NextProtos = u.Hostname(), []string{"h2"}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer raw.Close()
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil && (ctx.Err() != nil || errors.Is(err, io.EOF)) {
		return fmt.Errorf("it takes connections and does not answer in TLS: is it etcd, and started with --cert-file and --client-cert-auth? %w", err)
	} else if err != nil {
		return c.explainTLS(err, u.Hostname())
	}
	_ = conn.SetDeadline(time.Now().Add(answerWait))
	if _, err = conn.Write(http2Hello); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	var slow net.Error
	if err == nil || errors.As(err, &slow) && slow.Timeout() {
		return nil // it did not refuse; what else is wrong the client will tell
	}
	return c.explainTLS(err, u.Hostname())
}

// explainTLS tells apart what only an operator can mend.
func (c ExternalConfig) explainTLS(err error, host string) error {
	final := func(format string, args ...any) error {
		return &finalError{fmt.Errorf(format+": %w", append(args, err)...)}
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return final("its certificate is not of the CA in %s: give the one that signed it, with --etcd-ca", c.CAFile)
	case errors.As(err, &name):
		return final("its certificate is not for %s: use a name that it has in --etcd-endpoints", host)
	case errors.As(err, &invalid):
		return final("its certificate is worth nothing: renew it at etcd")
	case errors.As(err, &plain):
		return final("it does not speak TLS there: start it with --cert-file and --client-cert-auth, or give another port")
	case strings.Contains(err.Error(), "remote error: tls: "):
		return final("it does not take the client certificate %s: give one that is valid, of the CA in etcd's --trusted-ca-file, with --etcd-cert and --etcd-key", c.CertFile)
	}
	return err
}
