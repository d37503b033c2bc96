package drill

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/orchctl/orch/api"
)

// Kind of a drill's document.
const Kind = "Drill"

// Drill is one script.
type Drill struct {
	Name string
	// About says in a sentence what it shows.
	About string
	// Nodes that the lab must have; 0 means 4.
	Nodes int
	// Capacity of each, as in "cpu=4,memory=8Gi"; empty means what the machine has.
	Capacity string
	// Limits are the controller's, as in "dead-after=10s".
	Limits []string
	// Images are archives to load, Services manifests to apply before the first
	// step; paths are from the working directory.
	Images, Services []string
	Steps            []Step
	// File is where it stands; Dir its folder, from which paths in steps count.
	File, Dir string
}

// file is the document as users write it.
type file struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		About string `yaml:"about"`
		Lab   struct {
			Nodes    int      `yaml:"nodes"`
			Capacity string   `yaml:"capacity"`
			Limits   []string `yaml:"limits"`
		} `yaml:"lab"`
		Images   []string    `yaml:"images"`
		Services []string    `yaml:"services"`
		Steps    []yaml.Node `yaml:"steps"`
	} `yaml:"spec"`
}

const (
	nodesDefault = 4
	// controllerHost is the lab's name for the controller's host and program.
	controllerHost = "controller"
	fileBytesMax   = 1 << 20
)

// Load reads the drills of files and folders; of a folder every *.yaml in the
// order of names that is a drill. It tells all that is wrong, by file and line.
func Load(paths []string) ([]*Drill, error) {
	var drills []*Drill
	var wrong []error
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		files := []string{path}
		if info.IsDir() {
			if files, err = filepath.Glob(filepath.Join(path, "*.yaml")); err != nil {
				return nil, err
			}
		}
		found := 0
		for _, f := range files {
			text, err := read(f)
			if err != nil {
				return nil, err
			}
			if info.IsDir() && !looksLikeDrill(text) {
				continue // the services that drills apply lie beside them
			}
			found++
			d, err := Parse(f, text)
			if err != nil {
				wrong = append(wrong, err)
				continue
			}
			drills = append(drills, d)
		}
		if found == 0 {
			wrong = append(wrong, fmt.Errorf("%s: no drill in this folder: want *.yaml with kind: %s", path, Kind))
		}
	}
	return drills, errors.Join(wrong...)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err == nil && len(text) > fileBytesMax {
		err = fmt.Errorf("%s: larger than %d bytes: that is no drill", path, fileBytesMax)
	}
	return text, err
}

var kindLine = regexp.MustCompile(`(?m)^kind:\s*["']?` + Kind + `["']?\s*(#.*)?$`)

func looksLikeDrill(text []byte) bool { return kindLine.Match(text) }

// yamlType is how it says that a value is of the wrong type.
var yamlType = regexp.MustCompile("^cannot unmarshal !!\\w+ `?(.*?)`? into (\\S+)$")

// typeWords are what users call the types of a drill's fields.
var typeWords = map[string]string{"int": "a number", "string": "a text", "[]string": "a list of texts", "[]yaml.Node": "a list of steps"}

// yamlLine is how the YAML library names a line.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\n\s*)?line (\d+): `)

// Parse reads one drill; path is for its messages and its folder.
func Parse(path string, text []byte) (*Drill, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var f file
	if err := dec.Decode(&f); err != nil {
		if !looksLikeDrill(text) {
			return nil, fmt.Errorf("%s: no drill: want kind: %s", path, Kind)
		}
		return nil, plainly(path, err)
	}
	if dec.Decode(new(yaml.Node)) != io.EOF {
		return nil, fmt.Errorf("%s: one drill per file, but there is a second document", path)
	}
	d := &Drill{Name: f.Metadata.Name, About: f.Spec.About, Nodes: f.Spec.Lab.Nodes, Capacity: f.Spec.Lab.Capacity, Limits: f.Spec.Lab.Limits,
		File: path, Dir: filepath.Dir(path)}
	var wrong []error
	refuse := func(format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("%s: "+format, append([]any{path}, args...)...))
	}
	if f.APIVersion != api.Version {
		refuse("apiVersion: want %q, but found %q", api.Version, f.APIVersion)
	}
	if f.Kind != Kind {
		refuse("kind: want %q, but found %q", Kind, f.Kind)
	}
	if d.Name == "" {
		refuse("metadata.name: a drill needs a name")
	} else if err := api.CheckName(d.Name, api.MaxNamespaceName); err != nil {
		refuse("metadata.name: %w", err) // its lab is called after it
	}
	if d.Nodes == 0 {
		d.Nodes = nodesDefault
	}
	if d.Nodes < 0 {
		refuse("spec.lab.nodes: want 1 or more, but found %d", d.Nodes)
	}
	for _, list := range []struct {
		from []string
		to   *[]string
	}{{f.Spec.Images, &d.Images}, {f.Spec.Services, &d.Services}} {
		for _, p := range list.from {
			*list.to = append(*list.to, d.path(p))
		}
	}
	if len(f.Spec.Steps) == 0 {
		refuse("spec.steps: a drill needs steps, such as %q", "kill n2")
	}
	for _, n := range f.Spec.Steps {
		if n.Kind != yaml.ScalarNode {
			wrong = append(wrong, fmt.Errorf("%s:%d: a step is a line of words, such as %q", path, n.Line, "kill n2"))
			continue
		}
		s, err := ParseStep(n.Value)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: %w", path, n.Line, err))
			continue
		}
		s.Line = n.Line
		for _, node := range []string{s.Node, s.Peer} {
			if node != "" && d.Nodes > 0 && !d.has(node) && (node != controllerHost || node != s.Peer) {
				wrong = append(wrong, fmt.Errorf("%s:%d: %q: there is no %s: the drill's lab has n1 to n%d; spec.lab.nodes says how many", path, n.Line, s.Text, node, d.Nodes))
			}
		}
		d.Steps = append(d.Steps, s)
	}
	return d, errors.Join(wrong...)
}

// has tells whether a lab of the drill's size has a node of that name.
func (d *Drill) has(node string) bool {
	i, err := strconv.Atoi(strings.TrimPrefix(node, "n"))
	return err == nil && i >= 1 && i <= d.Nodes && node == fmt.Sprintf("n%d", i)
}

// Missing tells which files that the drill needs are not there, before anything
// is made or broken.
func (d *Drill) Missing() error {
	var wrong []error
	look := func(what, path, remedy string) {
		if _, err := os.Stat(path); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s %s: %w%s", d.File, what, path, errors.Unwrap(err), remedy))
		}
	}
	for _, p := range d.Images {
		look("image", p, " (`make images` makes those of the suite)")
	}
	for _, p := range d.Services {
		look("service", p, "")
	}
	for _, s := range d.Steps {
		if s.Verb == "apply" {
			look("service", d.path(s.Path), "")
		}
	}
	return errors.Join(wrong...)
}

// path counts from the drill's folder.
func (d *Drill) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(d.Dir, p)
}

// plainly gives an error of the YAML library a file and a line.
func plainly(path string, err error) error {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		rest := text[len(m[0]):]
		rest = strings.ReplaceAll(rest, " in type drill.file", "")
		if field, ok := strings.CutPrefix(rest, "field "); ok {
			name, _, _ := strings.Cut(field, " ")
			rest = fmt.Sprintf("unknown field %q; a drill has %s", name, strings.Join(fields, ", "))
		}
		if m := yamlType.FindStringSubmatch(rest); m != nil && typeWords[m[2]] != "" {
			rest = fmt.Sprintf("want %s, but found %q", typeWords[m[2]], m[1])
		}
		return fmt.Errorf("%s:%s: %s", path, m[1], rest)
	}
	return fmt.Errorf("%s: %s", path, strings.TrimPrefix(text, "yaml: "))
}

var fields = []string{"apiVersion", "kind", "metadata.name", "spec.about", "spec.lab.nodes", "spec.lab.capacity", "spec.lab.limits", "spec.images", "spec.services", "spec.steps"}

// SameLab tells whether two drills can share a lab.
func (d *Drill) SameLab(o *Drill) bool {
	return d.Nodes == o.Nodes && d.Capacity == o.Capacity && slices.Equal(d.Limits, o.Limits)
}
