package images

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func add(t *testing.T, s *Shelf, data string, at int) Image {
	t.Helper()
	img, err := s.Add(strings.NewReader(data), time.Unix(int64(at), 0))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestShelf(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := add(t, s, "a", 1), add(t, s, "b", 2)
	if again := add(t, s, "a", 3); again != a {
		t.Errorf("the same archive has two digests: %v, %v", a, again)
	}
	if err := s.Note(b, "key1", []string{"ref"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("broken"))), time.Unix(4, 0)); err == nil {
		t.Error("half an upload was kept")
	}
	// What a crash leaves behind goes; what is whole stays, with who has it.
	for _, name := range []string{"upload-1", "note-x", "orphan.tar", "torn.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if got := s.Missing("key1"); !slices.Equal(got, []Image{a}) {
		t.Errorf("key1 lacks %v, want a", got)
	}
	if got := s.Missing("key2"); !slices.Equal(got, []Image{b, a}) {
		t.Errorf("key2 lacks %v, want b, a", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("the folder holds %v", entries)
	}
	s.Remove(a)
	for i := range archivesMax + 3 {
		add(t, s, strings.Repeat("x", i+2), 10+i)
	}
	if got := s.Missing("key2"); len(got) != archivesMax || slices.Contains(got, b) {
		t.Errorf("%d archives are kept, want %d, without the oldest", len(got), archivesMax)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2*archivesMax {
		t.Errorf("the folder holds %d files, want %d", len(entries), 2*archivesMax)
	}
}
