package logs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/orchctl/orch/api"
)

// The budget of last words on a node: enough to look up what went in the last days,
// and nothing that a disk notices. The oldest go first.
const (
	archiveBytes   = 16 << 20
	archiveEntries = 500
	// WordsBytes of output are kept of one container, on wordsLines lines at most.
	WordsBytes = 16 << 10
	wordsLines = 500
)

// Words are the last words of a container whose replica is gone.
type Words struct {
	Replica   api.ReplicaKey `json:"replica"`
	Container string         `json:"container"`
	// Exit is how its last run ended; nil: it is not known.
	Exit *api.Exit `json:"exit,omitempty"`
	// Lines are the last that this run wrote, at most WordsBytes.
	Lines []Line `json:"lines,omitempty"`
}

// Archive keeps the last words of containers apart from their output, in a folder of
// its own, a file for each, within a budget. It outlives the process. Safe for
// concurrent use.
type Archive struct {
	dir     string
	bytes   int64
	entries int
	mu      sync.Mutex
}

// NewArchive keeps words in dir, which is made when it is needed.
func NewArchive(dir string) *Archive {
	return &Archive{dir: dir, bytes: archiveBytes, entries: archiveEntries}
}

const (
	wordsSuffix = ".json"
	// unfinished is being written. No name of a replica begins with a dot.
	unfinished = ".new"
)

// wordsName has parts without "_", for none of them may hold one.
func wordsName(k api.ReplicaKey, container string) string {
	return fmt.Sprintf("%s_%s@%d_%s%s", k.Namespace, k.Name(), k.Epoch, container, wordsSuffix)
}

// Keep stores words; what was kept of the same container before is replaced, and the
// oldest words go where there are too many.
func (a *Archive) Keep(w Words) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	failed := func(err error) error {
		return fmt.Errorf("keep last words of %s %s in %s: %w", w.Replica, w.Container, a.dir, err)
	}
	js, err := json.Marshal(w)
	if err != nil {
		return failed(err)
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return failed(err)
	}
	fresh := filepath.Join(a.dir, unfinished)
	if err := os.WriteFile(fresh, js, 0o600); err != nil {
		return failed(err)
	}
	if err := os.Rename(fresh, filepath.Join(a.dir, wordsName(w.Replica, w.Container))); err != nil {
		return failed(err)
	}
	if err := a.prune(); err != nil {
		return failed(err)
	}
	return nil
}

// prune removes the oldest words until the rest is within the budget.
func (a *Archive) prune() error {
	list, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	var kept []fs.FileInfo
	size := int64(0)
	for _, e := range list {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !strings.HasSuffix(e.Name(), wordsSuffix) {
			continue
		}
		if err != nil {
			return err
		}
		kept, size = append(kept, info), size+info.Size()
	}
	slices.SortFunc(kept, func(x, y fs.FileInfo) int {
		return cmp.Or(x.ModTime().Compare(y.ModTime()), cmp.Compare(x.Name(), y.Name()))
	})
	for len(kept) > a.entries || size > a.bytes && len(kept) > 1 {
		if err := os.Remove(filepath.Join(a.dir, kept[0].Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		size -= kept[0].Size()
		kept = kept[1:]
	}
	return nil
}

// Find gives the words of a replica's container; an empty name means the first, by
// name. None are fs.ErrNotExist.
func (a *Archive) Find(k api.ReplicaKey, container string) (Words, error) {
	failed := func(err error) (Words, error) {
		return Words{}, fmt.Errorf("last words of %s %s: %w", k, container, err)
	}
	if strings.ContainsAny(k.Namespace+k.Service+container, "/_\x00") { // no name has these, and a path may not
		return failed(fs.ErrNotExist)
	}
	if container == "" {
		begin := wordsName(k, "")
		begin = strings.TrimSuffix(begin, wordsSuffix)
		list, err := os.ReadDir(a.dir) // sorted
		if err != nil {
			return failed(err)
		}
		i := slices.IndexFunc(list, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), begin) })
		if i < 0 {
			return failed(fs.ErrNotExist)
		}
		container = strings.TrimSuffix(strings.TrimPrefix(list[i].Name(), begin), wordsSuffix)
	}
	b, err := os.ReadFile(filepath.Join(a.dir, wordsName(k, container)))
	if err != nil {
		return failed(err)
	}
	var w Words
	if err := json.Unmarshal(b, &w); err != nil { // torn when the machine fell
		return failed(fmt.Errorf("%w: it cannot be read: %s", fs.ErrNotExist, err.Error()))
	}
	return w, nil
}

// LastLines gives the last whole lines that the newest run wrote, at most WordsBytes
// of them. A missing file is fs.ErrNotExist.
func LastLines(file string) ([]Line, error) {
	b, err := tail(file)
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", file, err)
	}
	var lines []Line
	runs := 0
	d := &decoder{parts: map[string][]byte{}}
	d.emit = func(l Line) error {
		if d.starts > runs {
			runs, lines = d.starts, nil
		}
		lines = append(lines, l)
		return nil
	}
	if err := d.feed(b); err != nil {
		return nil, fmt.Errorf("read log %s: %w", file, err)
	}
	if d.starts > runs { // it wrote nothing
		return nil, nil
	}
	first, size := len(lines), 0
	for first > 0 && len(lines)-first < wordsLines && size+len(lines[first-1].Text) < WordsBytes {
		first--
		size += len(lines[first].Text) + 1
	}
	return lines[first:], nil
}
