package clientconfig

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// EnvPath names the environment variable that holds another path for the file.
const EnvPath = "ORCH_CONFIG"

// ErrNoContext: the file, or the context in it, is not there.
var ErrNoContext = errors.New("no such context")

// Config is the file.
type Config struct {
	// CurrentContext is the name of the context that is meant where none is named.
	CurrentContext string    `json:"currentContext,omitempty"`
	Contexts       []Context `json:"contexts,omitempty"`
}

// Context is one cluster and who the client is there. Key is secret.
type Context struct {
	Name string `json:"name"`
	// Controllers are tried in this order: "host:port" or "unix:///path".
	Controllers []string `json:"controllers"`
	// CA, Certificate and Key are PEM texts.
	CA          string `json:"ca"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	// Namespace is meant where none is named; empty means "default".
	Namespace string `json:"namespace,omitempty"`
}

// String keeps the key out of prints.
func (c Context) String() string {
	return fmt.Sprintf("context %s (%s, key ***)", c.Name, strings.Join(c.Controllers, ", "))
}

// GoString keeps the key out of %#v too.
func (c Context) GoString() string { return c.String() }

// Path is where the file lies: path if it is not empty, else $ORCH_CONFIG, else
// ~/.config/orch/config.yaml.
func Path(path string) (string, error) {
	if path = cmp.Or(path, os.Getenv(EnvPath)); path != "" {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the context file: %w: set HOME or %s", err, EnvPath)
	}
	return filepath.Join(home, ".config", "orch", "config.yaml"), nil
}

// Load reads the file; path as in Path. A file that is not there gives an error
// that is fs.ErrNotExist, unknown fields are errors.
func Load(path string) (*Config, error) {
	path, err := Path(path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read context file: %w", err)
	}
	c := &Config{}
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		return nil, fmt.Errorf("read context file %s: %w", path, err)
	}
	return c, nil
}

// Context gives the named context, or the current one for "". A file with a
// single context needs no current one. Errors wrap ErrNoContext.
func (c *Config) Context(name string) (Context, error) {
	if name = cmp.Or(name, c.CurrentContext); name == "" && len(c.Contexts) == 1 {
		return c.Contexts[0], nil
	}
	var names []string
	for _, x := range c.Contexts {
		if x.Name == name {
			return x, nil
		}
		names = append(names, x.Name)
	}
	have := "there are none"
	if len(names) == 1 {
		have = "there is only " + names[0]
	} else if len(names) > 1 {
		have = "there are " + strings.Join(names, ", ")
	}
	if name == "" {
		return Context{}, fmt.Errorf("%w: none is named and none is current; %s", ErrNoContext, have)
	}
	return Context{}, fmt.Errorf("%w %q; %s", ErrNoContext, name, have)
}

// Put adds the context, or replaces the one of its name.
func (c *Config) Put(x Context) {
	if i := slices.IndexFunc(c.Contexts, func(y Context) bool { return y.Name == x.Name }); i >= 0 {
		c.Contexts[i] = x
		return
	}
	c.Contexts = append(c.Contexts, x)
}

// Save replaces the file whole, with mode 0600; path as in Path.
func (c *Config) Save(path string) (err error) {
	if path, err = Path(path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write context file %s: %w", path, err)
		}
	}()
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp") // 0600 from the start
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already if renamed
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Merge puts one context into the file and leaves the rest of it as it is. It
// becomes the current one only where there was none. An unreadable file is an
// error: it may hold the only copy of another cluster's key.
func Merge(path string, x Context) error {
	c, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		c, err = &Config{}, nil
	}
	if err != nil {
		return err
	}
	c.Put(x)
	c.CurrentContext = cmp.Or(c.CurrentContext, x.Name)
	return c.Save(path)
}
