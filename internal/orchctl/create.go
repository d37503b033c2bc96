package orchctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) createCmd() *cobra.Command {
	return group("create", "Create a config or a secret of values, files and variables",
		`  orchctl create config app --from-literal LOG=debug --from-file app.ini
  orchctl create secret db --from-file password=- < password.txt`,
		t.createConfigCmd(api.KindConfig), t.createConfigCmd(api.KindSecret))
}

// creating is what `create` was asked for.
type creating struct {
	kind                      string
	typ                       string // of a secret
	fromFiles                 bool   // there are no flags for a login
	login                     login
	literals, files, envFiles []string
	labels                    []string
	dryRun                    bool
	output                    string
}

func (t *tool) createConfigCmd(kind string) *cobra.Command {
	c := creating{kind: kind, fromFiles: true}
	one := word(kind)
	hint := ""
	if kind == api.KindSecret {
		hint = "\n\nWhat stands on a command line is seen by other users of this machine and stays in the\nshell's history: give secrets by file, or on standard input with --from-file KEY=-."
	}
	cmd := &cobra.Command{
		Use:   one + " NAME",
		Short: fmt.Sprintf("Create a %s", one),
		Long: fmt.Sprintf(`Create a %s of values, of files, and of files with a variable on each line. It fails
where there is one of that name; with --dry-run -o yaml it prints the manifest, which
apply takes, and asks no controller.%s`, one, hint),
		Example: fmt.Sprintf(`  orchctl create %[1]s app --from-literal LOG=debug --from-literal PORT=8080
  orchctl create %[1]s app --from-file app.ini --from-file tls.crt=cert.pem
  orchctl create %[1]s app --from-file password=- < password.txt
  orchctl create %[1]s app --from-env-file .env
  orchctl create %[1]s app --from-env-file .env --dry-run -o yaml | orchctl apply -f -`, one),
		Args:              untyped(usageArgs(cobra.ExactArgs(1))),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return t.create(cmd.Context(), c, args[0]) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.literals, "from-literal", nil, "value as KEY=VALUE; repeatable")
	f.StringArrayVar(&c.files, "from-file", nil, "value in a file as [KEY=]PATH, its name being the key; all files of a folder; KEY=- for standard input; repeatable")
	f.StringArrayVar(&c.envFiles, "from-env-file", nil, "file with KEY=VALUE on each line; - for standard input; repeatable")
	if kind == api.KindSecret {
		f.StringVar(&c.typ, "type", "", "registry for a login to a registry, with the key config.json; of no type without it")
		t.complete(cmd, "type", cobra.FixedCompletions([]string{string(api.SecretRegistry)}, cobra.ShellCompDirectiveNoFileComp))
		cmd.AddCommand(t.createLoginCmd())
	}
	t.createFlags(cmd, &c)
	return cmd
}

// createFlags are those of all that is created.
func (t *tool) createFlags(cmd *cobra.Command, c *creating) {
	f := cmd.Flags()
	f.StringArrayVar(&c.labels, "label", nil, "label KEY=VALUE; repeatable")
	f.BoolVar(&c.dryRun, "dry-run", false, "create nothing")
	f.StringVarP(&c.output, "output", "o", "", "yaml or json, with --dry-run: print the manifest")
	t.complete(cmd, "output", cobra.FixedCompletions([]string{"yaml", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// untyped refuses the types that secrets have elsewhere.
func untyped(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, words []string) error {
		if len(words) == 2 {
			if err := foreignType(cmd, words); err != nil {
				return err
			}
		}
		return check(cmd, words)
	}
}

// foreignType says what to do instead where the first of two words is a type that secrets
// have elsewhere.
func foreignType(cmd *cobra.Command, words []string) error {
	if len(words) < 2 || cmd.Name() != "secret" {
		return nil
	}
	name := words[1]
	if strings.HasPrefix(name, "-") {
		name = "NAME"
	}
	switch words[0] {
	case "docker-registry":
		return usagef("a login to a registry is made with `%s registry %s --server HOST --username USER --password-stdin`", cmd.CommandPath(), name)
	case "generic", "tls":
		return usagef("there is no such type of a secret here: leave out %q, as in `%s %s`", words[0], cmd.CommandPath(), name)
	}
	return nil
}

func (t *tool) create(ctx context.Context, c creating, name string) error {
	switch {
	case c.output != "" && c.output != "yaml" && c.output != "json":
		return usagef("-o %s: want yaml, json", c.output)
	case c.output != "" && !c.dryRun:
		return usagef("-o %s prints the manifest: give --dry-run too", c.output)
	}
	object, err := t.configOf(c, name)
	if err != nil {
		return err
	}
	switch c.output {
	case "json":
		return t.writeJSON(object)
	case "yaml":
		text, err := manifests.Marshal(object)
		if err != nil {
			return err
		}
		_, err = t.Out.Write(text)
		return err
	}
	x := target{c.kind, object.Metadata.Namespace, name}
	client, err := t.connect(ctx, "create "+x.String(), true)
	if err != nil {
		return err
	}
	_, missing, err := t.fetch(ctx, client, listing{}, []target{x}) // an older controller knows no MustNotExist
	if err != nil {
		return err
	}
	if missing == nil {
		return fmt.Errorf("create %s: it exists already: change it with `orchctl apply`, for which --dry-run -o yaml prints a manifest", x)
	}
	sent, err := onWire(object)
	if err != nil {
		return err
	}
	request := &orchv1.ApplyRequest{Objects: []*orchv1.Object{sent}, DryRun: c.dryRun, MustNotExist: true, RequestId: t.RequestID()}
	return t.applyAtOnce(ctx, applying{dryRun: c.dryRun}, func() (*orchv1.ApplyResponse, error) {
		return change(ctx, t, "create "+x.String(), operator, func(ctx context.Context) (*orchv1.ApplyResponse, error) { return client.Apply(ctx, request) })
	})
}

// login is what `create secret registry` was asked for.
type login struct {
	server, username, passwordFile string
	passwordStdin                  bool
}

func (t *tool) createLoginCmd() *cobra.Command {
	c := creating{kind: api.KindSecret, typ: string(api.SecretRegistry)}
	cmd := &cobra.Command{
		Use:   "registry NAME",
		Short: "Create a secret with a login to a registry",
		Long: `Create a secret of type registry, with a login to a registry of images, for pullSecrets of
services and jobs. The password comes on standard input or in a file: on a command line
other users of this machine would see it. A line's end behind it is left out.

What docker login wrote is taken with
  orchctl create secret NAME --type registry --from-file config.json=$HOME/.docker/config.json`,
		Example: `  orchctl create secret registry hub --server registry.example:5000 --username puller --password-stdin < password.txt
  orchctl create secret registry hub --server registry.example --username puller --password-file password.txt`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return t.create(cmd.Context(), c, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&c.login.server, "server", "", "registry as host or host:port, as images' names begin")
	f.StringVar(&c.login.username, "username", "", "who the registry knows")
	f.BoolVar(&c.login.passwordStdin, "password-stdin", false, "the password is on standard input")
	f.StringVar(&c.login.passwordFile, "password-file", "", "the password is in this file")
	t.createFlags(cmd, &c)
	return cmd
}

// add gives a login's values.
func (l login) add(x *values) error {
	const one = "want one of --password-stdin and --password-file"
	path := l.passwordFile
	switch {
	case l.server == "" || l.username == "":
		return usagef("--server and --username say whose login it is: both are needed")
	case l.passwordStdin && path != "":
		return usagef("the password is given twice: %s", one)
	case l.passwordStdin:
		path = manifests.Stdin
	case path == "":
		return usagef("the password is missing: %s", one)
	}
	password, err := x.read("--password-file", path)
	if err != nil {
		return err
	}
	for _, v := range []struct{ key, value string }{{api.LoginServer, l.server}, {api.LoginUsername, l.username}, {api.LoginPassword, strings.TrimRight(string(password), "\r\n")}} {
		if err := x.add("--"+v.key, v.key, []byte(v.value)); err != nil {
			return err
		}
	}
	return nil
}

// configOf gathers the values.
func (t *tool) configOf(c creating, name string) (*api.Config, error) {
	labels, err := pairsOf("--label", c.labels)
	if err != nil {
		return nil, err
	}
	x := values{in: t.In, of: &api.Config{TypeMeta: typeMeta(c.kind), Metadata: api.Metadata{Name: name, Namespace: t.space(), Labels: labels}, Type: api.SecretType(c.typ), Data: map[string]string{}, BinaryData: map[string][]byte{}}}
	for _, text := range c.literals {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usagef("--from-literal: want KEY=VALUE") // it may be a secret: it is not repeated
		}
		if err := x.add("--from-literal", key, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, text := range c.files {
		if err := x.file(text); err != nil {
			return nil, err
		}
	}
	for _, path := range c.envFiles {
		if err := x.envFile(path); err != nil {
			return nil, err
		}
	}
	if c.fromFiles && c.typ == string(api.SecretRegistry) && len(c.literals)+len(c.files)+len(c.envFiles) == 0 {
		return nil, usagef("a login to a registry is made with `orchctl create secret registry %s --server HOST --username USER --password-stdin`, or of what docker login wrote, with --from-file config.json=PATH", name)
	}
	if c.login != (login{}) || c.typ == string(api.SecretRegistry) && len(c.literals)+len(c.files)+len(c.envFiles) == 0 {
		if err := c.login.add(&x); err != nil {
			return nil, err
		}
	} else if len(c.literals)+len(c.files)+len(c.envFiles) == 0 {
		return nil, usagef("create %s/%s: %w", word(c.kind), name, errNoValues)
	}
	x.of.Default()
	if err := api.Validate(x.of).Err(); err != nil {
		return nil, usageError{fmt.Errorf("create %s/%s: %w", word(c.kind), name, err)}
	}
	return x.of, nil
}

// values gathers those of one Config; in is read once at most.
type values struct {
	in     io.Reader
	inRead bool
	of     *api.Config
}

func (x *values) add(flag, key string, value []byte) error {
	_, text := x.of.Data[key]
	_, binary := x.of.BinaryData[key]
	switch {
	case key == "":
		return usagef("%s: the key is missing", flag)
	case text || binary:
		return usagef("%s: key %s is given twice", flag, key)
	case utf8.Valid(value) && !strings.ContainsRune(string(value), 0):
		x.of.Data[key] = string(value)
	default:
		x.of.BinaryData[key] = value
	}
	return nil
}

// read reads a file, or standard input where it is "-". More than may be is not read.
func (x *values) read(flag, path string) ([]byte, error) {
	from := x.in
	if path == manifests.Stdin {
		if x.inRead {
			return nil, usagef("%s: standard input can be read once", flag)
		}
		x.inRead = true
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("%s %s: %v", flag, path, fileReason(err))
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, api.MaxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, path, fileReason(err))
	}
	if len(data) > api.MaxConfigBytes {
		return nil, usagef("%s %s: it has more than %d bytes, which is the most that a config or secret may have in all", flag, path, api.MaxConfigBytes)
	}
	return data, nil
}

// file takes [KEY=]PATH; of a folder all its files.
func (x *values) file(text string) error {
	const flag = "--from-file"
	key, path, named := strings.Cut(text, "=")
	if !named {
		key, path = filepath.Base(text), text
	}
	if path == manifests.Stdin {
		if !named {
			return usagef("%s -: standard input has no name: give KEY=-", flag)
		}
	} else if st, err := os.Stat(path); err == nil && st.IsDir() {
		if named {
			return usagef("%s %s: a folder has several values: leave out %s=", flag, text, key)
		}
		return x.folder(path)
	}
	data, err := x.read(flag, path)
	if err != nil {
		return err
	}
	return x.add(flag, key, data)
}

// folder takes all files of a folder, but not of those in it.
func (x *values) folder(path string) error {
	const flag = "--from-file"
	list, err := os.ReadDir(path)
	if err != nil {
		return usagef("%s %s: %v", flag, path, fileReason(err))
	}
	for _, e := range list {
		file := filepath.Join(path, e.Name())
		st, err := os.Stat(file) // links are what they lead to
		if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
			continue
		}
		data, err := x.read(flag, file)
		if err != nil {
			return err
		}
		if err := x.add(flag, e.Name(), data); err != nil {
			return err
		}
	}
	return nil
}

// envFile takes KEY=VALUE of each line, as it stands there; empty lines and those that
// begin with # are left out.
func (x *values) envFile(path string) error {
	const flag = "--from-env-file"
	data, err := x.read(flag, path)
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if plain := strings.TrimSpace(line); plain == "" || strings.HasPrefix(plain, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); !ok || !api.IsVariable(key) {
			return usagef("%s %s:%d: want NAME=VALUE", flag, path, n)
		}
		if err := x.add(flag, key, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}
