package manifests

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// MaxSourceBytes is the most that one file may hold: hundreds of services, and
// far below what would trouble the parser.
const MaxSourceBytes = 4 << 20

// Stdin is the path that means standard input.
const Stdin = "-"

// Source is the text of one file.
type Source struct {
	// Name stands in front of each problem.
	Name string
	Data []byte
}

// FromPaths reads files, folders (their *.yaml, *.yml and *.json, sorted, not
// those of sub-folders) and, for "-", stdin. The error, if any, is Problems and
// names every path that could not be read.
func FromPaths(paths []string, stdin io.Reader) ([]Source, error) {
	var sources []Source
	var problems Problems
	refuse := func(path, format string, args ...any) {
		problems = append(problems, Problem{File: path, Message: fmt.Sprintf(format, args...)})
	}
	if len(paths) == 0 {
		refuse("-f", "name a manifest: a file, a folder, or - for standard input")
	}
	for _, path := range expand(paths, refuse) {
		data, err := read(path, stdin)
		name := path
		if path == Stdin {
			name = "<stdin>"
		}
		switch {
		case err != nil:
			refuse(name, "%s", reason(err))
		default:
			sources = append(sources, Source{Name: name, Data: data})
		}
	}
	return sources, problems.err()
}

// expand replaces folders by their files.
func expand(paths []string, refuse func(path, format string, args ...any)) []string {
	var files []string
	for _, path := range paths {
		if path == Stdin {
			if slices.Contains(files, Stdin) {
				refuse("<stdin>", "is named twice: standard input can be read only once")
				continue
			}
			files = append(files, path)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			refuse(path, "%s", reason(err))
			continue
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		entries, err := os.ReadDir(path) // sorted by name
		if err != nil {
			refuse(path, "%s", reason(err))
			continue
		}
		before := len(files)
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if !e.IsDir() && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
		if len(files) == before {
			refuse(path, "this folder has no *.yaml, *.yml or *.json (sub-folders are not searched)")
		}
	}
	return files
}

// read takes one byte more than is allowed, so that Load sees the excess
// whatever the source is: /dev/zero ends too.
func read(path string, stdin io.Reader) ([]byte, error) {
	if path == Stdin {
		if stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		return io.ReadAll(io.LimitReader(stdin, MaxSourceBytes+1))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxSourceBytes+1))
}

// reason gives the cause without operation and path, which the problem names.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return "cannot be read: " + err.Error()
}
