package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	db   = api.Key{Namespace: "default", Name: "db"}
)

func ring(t *testing.T) *Keyring {
	t.Helper()
	k, err := OpenFile(filepath.Join(t.TempDir(), "data", "secrets.key"), noon)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealed(t *testing.T, k *Keyring, plain string) Sealed {
	t.Helper()
	s, err := k.Seal(db, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reopened(t *testing.T, k *Keyring) *Keyring {
	t.Helper()
	again, err := OpenFile(k.path, noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestSealAndOpen(t *testing.T) {
	k := ring(t)
	a, b := sealed(t, k, "swordfish"), sealed(t, k, "swordfish")
	if bytes.Equal(a.Payload, b.Payload) {
		t.Error("the same values give the same bytes: somebody could tell that they are the same")
	}
	if bytes.Contains(a.Payload, []byte("swordfish")) || strings.Contains(a.Digest, "swordfish") {
		t.Error("the values can be read in what is stored")
	}
	if a.Digest != b.Digest || a.By != k.Newest() || !strings.HasPrefix(a.Digest, a.By+":") {
		t.Errorf("digests %s and %s by %s, key %s", a.Digest, b.Digest, a.By, k.Newest())
	}
	if other := sealed(t, k, "sailfish"); other.Digest == a.Digest {
		t.Error("other values have the same digest")
	}
	if other, err := k.Seal(api.Key{Namespace: "default", Name: "db2"}, []byte("swordfish")); err != nil || other.Digest == a.Digest {
		t.Errorf("the same values in another secret can be told from the digest (%v)", err)
	}
	// What another process reads from the file opens it.
	if plain, err := reopened(t, k).Open(db, a.Payload); err != nil || string(plain) != "swordfish" {
		t.Errorf("got %q, %v", plain, err)
	}
}

// TestWrongHands: what was changed, cut or moved to another secret opens nothing.
func TestWrongHands(t *testing.T) {
	k := ring(t)
	payload := sealed(t, k, "swordfish").Payload
	for _, name := range []api.Key{{Namespace: "default", Name: "web"}, {Namespace: "other", Name: "db"}} {
		if _, err := k.Open(name, payload); !errors.Is(err, ErrDamaged) {
			t.Errorf("opened as %s: %v", name, err)
		}
	}
	for i := range payload {
		bad := bytes.Clone(payload)
		bad[i] ^= 1
		if plain, err := k.Open(db, bad); err == nil {
			t.Fatalf("byte %d changed: opened as %q", i, plain)
		}
		if plain, err := k.Open(db, payload[:i]); err == nil {
			t.Fatalf("cut to %d bytes: opened as %q", i, plain)
		}
	}
	if _, err := ring(t).Open(db, payload); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "default/db") {
		t.Errorf("another cluster's key: %v", err)
	}
}

func TestRotation(t *testing.T) {
	k := ring(t)
	old := sealed(t, k, "swordfish")
	first := k.Newest()
	second, err := k.Rotate(noon) // in the very second of the first
	if err != nil {
		t.Fatal(err)
	}
	for what, k := range map[string]*Keyring{"at once": k, "after a restart": reopened(t, k)} {
		if got := k.IDs(); !slices.Equal(got, []string{second, first}) {
			t.Errorf("%s: keys %v, want %s, %s", what, got, second, first)
		}
		if plain, err := k.Open(db, old.Payload); err != nil || string(plain) != "swordfish" {
			t.Errorf("%s: what the old key sealed: %q, %v", what, plain, err)
		}
	}
	anew, err := k.Reseal(db, old.Payload)
	if err != nil || anew.By != second {
		t.Fatalf("reseal: by %s, %v", anew.By, err)
	}
	if again := sealed(t, k, "swordfish"); again.Digest != anew.Digest || again.Digest == old.Digest {
		t.Error("digests do not follow the key")
	}
	if err := k.Retire(first); err != nil || len(k.IDs()) != 2 {
		t.Errorf("a key that is to be kept: %v, %v", k.IDs(), err)
	}
	if err := k.Retire(); err != nil {
		t.Fatal(err)
	}
	if got := reopened(t, k).IDs(); !slices.Equal(got, []string{second}) {
		t.Errorf("after Retire: %v", got)
	}
	if _, err := k.Open(db, old.Payload); !errors.Is(err, ErrNoKey) {
		t.Errorf("a retired key opens: %v", err)
	}
	if plain, err := k.Open(db, anew.Payload); err != nil || string(plain) != "swordfish" {
		t.Errorf("what was sealed anew: %q, %v", plain, err)
	}
}

func TestRotationsThatNeverEnd(t *testing.T) {
	k := ring(t)
	for range keysMax - 1 {
		if _, err := k.Rotate(noon); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Rotate(noon); err == nil || !strings.Contains(err.Error(), "16 keys") {
		t.Errorf("one more: %v", err)
	}
	if got := reopened(t, k).IDs(); !slices.Equal(got, k.IDs()) {
		t.Errorf("read as %v, want %v", got, k.IDs())
	}
}

// TestAnOlderCopyAppended: the remedy for a key file that was lost and made anew.
func TestAnOlderCopyAppended(t *testing.T) {
	k := ring(t)
	payload := sealed(t, k, "swordfish").Payload
	older, err := os.ReadFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(k.path)
	anew := reopened(t, k)
	if _, err := anew.Open(db, payload); !errors.Is(err, ErrNoKey) {
		t.Fatalf("the new file opens it: %v", err)
	}
	now, err := os.ReadFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{"behind": slices.Concat(now, older), "before": slices.Concat(older, now), "twice": slices.Concat(older, now, older)} {
		if err := os.WriteFile(k.path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		both := reopened(t, k)
		if plain, err := both.Open(db, payload); err != nil || string(plain) != "swordfish" {
			t.Errorf("%s: %q, %v", what, plain, err)
		}
		if got := both.IDs(); !slices.Equal(got, []string{anew.Newest(), k.Newest()}) {
			t.Errorf("%s: keys %v", what, got)
		}
	}
}

// TestKeysPutBackMeanwhile: what somebody appends to the file of a controller that runs
// stays there, whatever is written next, and is used as soon as that is asked for.
func TestKeysPutBackMeanwhile(t *testing.T) {
	lost := ring(t)
	payload := sealed(t, lost, "swordfish").Payload
	older, err := os.ReadFile(lost.path)
	if err != nil {
		t.Fatal(err)
	}
	for what, write := range map[string]func(*Keyring) error{
		"rotate": func(k *Keyring) error { _, err := k.Rotate(noon); return err },
		"retire": func(k *Keyring) error { return k.Retire() },
		"reread": (*Keyring).Reread,
	} {
		k := ring(t)
		if what == "retire" {
			if _, err := k.Rotate(noon); err != nil {
				t.Fatal(err)
			}
		}
		newest := k.Newest()
		now, err := os.ReadFile(k.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(k.path, slices.Concat(now, older), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := write(k); err != nil {
			t.Fatal(err)
		}
		for when, k := range map[string]*Keyring{"at once": k, "after a restart": reopened(t, k)} {
			if plain, err := k.Open(db, payload); err != nil || string(plain) != "swordfish" {
				t.Errorf("%s, %s: %q, %v", what, when, plain, err)
			}
			if !slices.Contains(k.IDs(), newest) {
				t.Errorf("%s, %s: the key %s that was newest is gone: %v", what, when, newest, k.IDs())
			}
		}
	}
	// What cannot be read is not overwritten.
	k := ring(t)
	if err := os.WriteFile(k.path, []byte("-----BEGIN half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(noon); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("rotated over a file that cannot be read: %v", err)
	}
	// And one that was deleted comes back.
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(noon); err != nil || len(reopened(t, k).IDs()) != 2 {
		t.Errorf("the file was deleted: %v, %v", k.IDs(), err)
	}
}

// TestBadFiles: a file that cannot be read is refused with what to do, and stays.
func TestBadFiles(t *testing.T) {
	k := ring(t)
	if _, err := k.Rotate(noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(k.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(k.path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of its folder %v, %v", info.Mode(), err)
	}
	if !bytes.Contains(good, []byte("keep a copy of it with every backup")) {
		t.Error("the file does not say that it belongs into a backup")
	}
	begin := bytes.LastIndex(good, []byte("-----BEGIN"))
	body := bytes.LastIndex(good, []byte("\n\n")) + 5 // within the last key
	flipped := bytes.Clone(good)
	flipped[body] = map[bool]byte{true: 'A', false: 'B'}[flipped[body] != 'A']
	for _, c := range []struct {
		name string
		text []byte
		mode os.FileMode
		want string
	}{
		{"empty", nil, 0o600, "holds no key"},
		{"the head alone", []byte(fileHead), 0o600, "holds no key"},
		{"torn in a key", good[:body], 0o600, "cut short"},
		{"torn before its end", good[:len(good)-4], 0o600, "cut short"},
		{"torn in its first line", good[:begin+14], 0o600, "cut short"},
		{"a bit of a key flipped", flipped, 0o600, "is damaged"},
		{"another kind", bytes.ReplaceAll(good, []byte(pemKey), []byte("PRIVATE KEY")), 0o600, "PRIVATE KEY"},
		{"without its time", bytes.ReplaceAll(good, []byte("Made:"), []byte("Then:")), 0o600, "is damaged"},
		{"open to its group", good, 0o640, "make it 0600"},
		{"open to all", good, 0o604, "make it 0600"},
	} {
		path := filepath.Join(t.TempDir(), "secrets.key")
		if err := os.WriteFile(path, c.text, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := OpenFile(path, noon)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if c.mode == 0o600 && err != nil && !strings.Contains(err.Error(), "put the file back from a backup") {
			t.Errorf("%s: no remedy: %v", c.name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, c.text) {
			t.Errorf("%s: the file was changed (%v)", c.name, err)
		}
	}
}

// TestAFolderThatTakesNothing: a key that is not on the disk seals nothing.
func TestAFolderThatTakesNothing(t *testing.T) {
	k := ring(t)
	before := k.IDs()
	k.path = filepath.Join(k.path, "below", "secrets.key") // below a file
	if _, err := k.Rotate(noon); err == nil {
		t.Error("rotated without a file")
	}
	if got := k.IDs(); !slices.Equal(got, before) {
		t.Errorf("keys %v, want %v", got, before)
	}
}

func TestPrintsHideKeys(t *testing.T) {
	k := ring(t)
	secret := k.keys[0].secret
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("here", "ring", k, "keys", k.keys)
	text := log.String() + fmt.Sprintf("%v %+v %#v %s %v %+v %#v %s", k, k, k, k, k.keys, k.keys, k.keys, k.keys[0])
	for _, form := range []string{string(secret[:]), fmt.Sprintf("%x", secret[:]), fmt.Sprint(secret[:]), strings.Trim(fmt.Sprintf("%#v", secret[:]), "[]byte{}")} {
		if strings.Contains(text, form) {
			t.Errorf("a print shows a key: %s", text)
		}
	}
	if !strings.Contains(text, k.Newest()) {
		t.Errorf("a print does not even show the id: %s", text)
	}
}

func TestEncode(t *testing.T) {
	c := &api.Config{Data: map[string]string{"b": "2", "a": "1 < \u2028"}, BinaryData: map[string][]byte{"c": {0, 255}}}
	plain, keys, err := Encode(c)
	if err != nil || fmt.Sprint(keys) != "map[a:7 b:1 c:2]" {
		t.Errorf("keys %v, %v", keys, err)
	}
	again, _, _ := Encode(c)
	if !bytes.Equal(plain, again) || DigestPlain(plain) != DigestPlain(again) {
		t.Error("the same values are written in two ways")
	}
	got, err := Decode(plain)
	if err != nil || len(got) != 3 || string(got["a"]) != "1 < \u2028" || !bytes.Equal(got["c"], []byte{0, 255}) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Decode([]byte(`{"data":{"a":"swordfish"`)); err == nil || strings.Contains(err.Error(), "swordfish") {
		t.Errorf("cut short: %v", err)
	}
}
