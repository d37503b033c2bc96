package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// FlagConfig names the file. It alone has no environment variable: ORCH_CONFIG is
// orchctl's, and names another file on the same machine.
const FlagConfig = "config"

// Annotations of flags.
const (
	asPairs  = "orch_pairs"  // key=value, which a file may write as a map
	asSecret = "orch_secret" // nobody else may read a file that has it
)

// othersMayRead are the bits of a file's mode with which others than its owner read it.
const othersMayRead fs.FileMode = 0o044

// ConfigFile gives a daemon, and the commands under it, a file that sets its flags:
// a key for each, of the same name. What the command line or the environment says
// goes first. The file at usual need not exist; one that is named must. It is called
// once the daemon's flags are defined.
func ConfigFile(daemon *cobra.Command, usual string) {
	daemon.PersistentFlags().String(FlagConfig, usual, "`file` of settings, a key for each flag; the usual one need not exist, \"\" reads none")
}

// Pairs says of flags that their values are key=value: a file may write them as a map.
func Pairs(flags *pflag.FlagSet, names ...string) { annotate(flags, asPairs, names) }

// Secret says of flags that whoever knows their value may do harm.
func Secret(flags *pflag.FlagSet, names ...string) { annotate(flags, asSecret, names) }

func annotate(flags *pflag.FlagSet, what string, names []string) {
	for _, name := range names {
		if err := flags.SetAnnotation(name, what, []string{"true"}); err != nil {
			panic(err) // the flag is defined beside the call
		}
	}
}

// IsKey tells whether a file may set the flag.
func IsKey(f *pflag.Flag) bool {
	return f.Name != FlagConfig && f.Name != "help" && f.Name != "version"
}

// fromFile sets flags that neither the command line nor the environment says.
func fromFile(cmd *cobra.Command) error {
	at := cmd.Flags().Lookup(FlagConfig)
	if at == nil || at.Value.String() == "" {
		return nil
	}
	path := at.Value.String()
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !at.Changed {
		return nil
	}
	if err != nil {
		return Usagef("--%s: %w", FlagConfig, err)
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		return Usagef("--%s: read %s: %w", FlagConfig, path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return Usagef("--%s: %w", FlagConfig, err)
	}
	r := configReader{path: path, known: cmd.Root().Flags(), flags: cmd.Flags()}
	if err := r.read(data); err != nil {
		return UsageError{err}
	}
	if len(r.secrets) > 0 && info.Mode()&othersMayRead != 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: %s holds %s and others may read it: chmod 600 %s, or put the value into a file of its own and name that\n",
			cmd.Root().Name(), path, strings.Join(r.secrets, ", "), path)
	}
	return nil
}

// configReader sets flags by the keys of one file.
type configReader struct {
	path    string
	known   *pflag.FlagSet // of the daemon: what a file may have
	flags   *pflag.FlagSet // of the command: what is set
	secrets []string       // keys found that hold one
}

func (r *configReader) read(data []byte) error {
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // only comments
	} else if err != nil {
		return fmt.Errorf("read %s: %s", r.path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: more than one document: want one, of keys and values", r.path)
	}
	top := doc.Content[0]
	if isNull(top) {
		return nil
	}
	if top.Kind != yaml.MappingNode {
		return r.errorf(top, "want keys and values, such as \"log-level: info\"")
	}
	seen := map[string]int{}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			return r.errorf(key, "%s is there twice, in line %d too", key.Value, line)
		}
		seen[key.Value] = key.Line
		if err := r.set(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *configReader) set(key, value *yaml.Node) error {
	f := r.known.Lookup(key.Value)
	if f == nil || !IsKey(f) {
		return r.unknown(key)
	}
	if isNull(value) { // all that was below it is a comment
		return nil
	}
	if _, ok := f.Annotations[asSecret]; ok {
		r.secrets = append(r.secrets, f.Name)
	}
	items, err := r.items(f, value)
	if err != nil {
		return err
	}
	if f = r.flags.Lookup(f.Name); f == nil || f.Changed {
		return nil
	}
	if err := assign(f.Value, items, resolved(value).Kind == yaml.ScalarNode); err != nil {
		return r.errorf(value, "%s: %q: %w", f.Name, strings.Join(items, ","), inWords(r.flags, err))
	}
	f.Changed = true
	return nil
}

// assign takes a single text as the command line does, which may split it; the items
// of a list are taken as they are.
func assign(v pflag.Value, items []string, single bool) error {
	if list, ok := v.(pflag.SliceValue); ok && !single {
		return list.Replace(items)
	}
	for _, item := range items {
		if err := v.Set(item); err != nil {
			return err
		}
	}
	return nil
}

// unknown says which key was likely meant.
func (r *configReader) unknown(key *yaml.Node) error {
	var names []string
	r.known.VisitAll(func(f *pflag.Flag) {
		if IsKey(f) && !f.Hidden {
			names = append(names, f.Name)
		}
	})
	hint := ""
	if near := Near(key.Value, names); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %s? ", strings.Join(near, ", "))
	}
	return r.errorf(key, "unknown key %q: %skeys are the names of flags, which --help lists", key.Value, hint)
}

// items gives the texts that the flag is set to, one after the other.
func (r *configReader) items(f *pflag.Flag, value *yaml.Node) ([]string, error) {
	_, pairs := f.Annotations[asPairs]
	_, list := f.Value.(pflag.SliceValue)
	value = resolved(value)
	switch {
	case value.Kind == yaml.ScalarNode:
		return []string{value.Value}, nil
	case value.Kind == yaml.SequenceNode && (list || pairs):
		var out []string
		for _, item := range value.Content {
			item = resolved(item)
			if item.Kind != yaml.ScalarNode {
				return nil, r.errorf(item, "%s: want a list of single values", f.Name)
			}
			out = append(out, item.Value)
		}
		return out, nil
	case value.Kind == yaml.MappingNode && pairs:
		var out []string
		for i := 0; i < len(value.Content); i += 2 {
			k, v := value.Content[i], resolved(value.Content[i+1])
			if v.Kind != yaml.ScalarNode {
				return nil, r.errorf(v, "%s: %s: want a single value", f.Name, k.Value)
			}
			out = append(out, k.Value+"="+v.Value)
		}
		return out, nil
	}
	want := "a single value"
	switch {
	case pairs:
		want = "key: value, or a list of key=value"
	case list:
		want = "a list of values"
	}
	return nil, r.errorf(value, "%s: want %s", f.Name, want)
}

func (r *configReader) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", r.path, n.Line, fmt.Errorf(format, args...))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// resolved follows an alias to what it stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// Near gives those names that were likely meant by a word; cobra knows how to
// tell for its own commands.
func Near(word string, names []string) []string {
	const lettersWrongMax = 3 // and no more than half of the word
	all := &cobra.Command{SuggestionsMinimumDistance: max(1, min(lettersWrongMax, len(word)/2))}
	for _, name := range names {
		all.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	return all.SuggestionsFor(word)
}
