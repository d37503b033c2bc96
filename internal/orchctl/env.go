package orchctl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/tracing"
)

// Env is what a command line stands in: everything that differs in a test.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Cluster finds the cluster that --config and --context name; both may be empty.
	Cluster func(config, name string) (Cluster, error)
	Now     func() time.Time
	// Screen gives the size of the terminal that Out is; ok is false where it is none.
	Screen func() (width, height int, ok bool)
	// Asks tells whether somebody can be asked: In and Err are a terminal.
	Asks func() bool
	// NoColor is set where the user wants no colours anywhere.
	NoColor bool
	// RequestID makes the id under which a change is done once.
	RequestID func() string
	// Trace makes what traces a change; it gives nil where nobody wants that. It may be nil.
	Trace func(context.Context) (*tracing.Tracer, error)
}

// Cluster is one cluster and the way to it.
type Cluster struct {
	Name string
	// Addresses are those of its controllers, for messages.
	Addresses []string
	// Namespace is meant where none is named; empty means "default".
	Namespace string
	// Certificate is who the user is there; nil where that is not known.
	Certificate *x509.Certificate
	// Dial connects; the second result closes the connection.
	Dial func(context.Context) (grpc.ClientConnInterface, func() error, error)
}

// FromOS is the Env of the process.
func FromOS() Env {
	return Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Cluster: fromFile, Now: time.Now, RequestID: requestID, Trace: traceByEnvironment, NoColor: os.Getenv("NO_COLOR") != "",
		Asks: func() bool { return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd())) },
		Screen: func() (int, int, bool) {
			w, h, err := term.GetSize(int(os.Stdout.Fd()))
			if err == nil && (w <= 0 || h <= 0) {
				w, h = 80, 24 // a serial line, or a recorder: it does not know its size
			}
			return w, h, err == nil
		}}
}

// fromFile reads the context file.
func fromFile(config, name string) (Cluster, error) {
	file, err := loadConfig(config)
	if err != nil {
		return Cluster{}, err
	}
	c, err := file.Context(name)
	if err != nil {
		return Cluster{}, fmt.Errorf("%w: choose one with --context or `orchctl config use-context`", err)
	}
	cert, err := pki.ParseCert([]byte(c.Certificate))
	if err != nil {
		cert = nil // the connection will say what is wrong with it
	}
	return Cluster{Name: c.Name, Addresses: c.Controllers, Namespace: c.Namespace, Certificate: cert,
		Dial: func(ctx context.Context) (grpc.ClientConnInterface, func() error, error) {
			conn, err := c.Dial(ctx, tracing.Of(ctx).DialOptions()...)
			if err != nil {
				return nil, nil, err
			}
			return conn, conn.Close, nil
		}}, nil
}

// loadConfig says what to do where there is no context file.
func loadConfig(path string) (*clientconfig.Config, error) {
	file, err := clientconfig.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		where, pathErr := clientconfig.Path(path)
		if pathErr != nil {
			return nil, pathErr
		}
		return nil, fmt.Errorf("there is no context file %s: the controller's first start writes one for the admin; copy it here, or name it with --config or %s", where, clientconfig.EnvPath)
	}
	return file, err
}
