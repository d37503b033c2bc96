package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/orchctl/orch/agent/disk"
	"github.com/orchctl/orch/api"
)

const (
	// volumesFolder lies in the agent's data.
	volumesFolder = "volumes"
	// removedFolder lies beside the namespaces, none of which has such a name: what lies
	// there is being deleted, and no volume any more.
	removedFolder = ".removed"
)

// VolumePath gives where a volume lies in an agent's data folder.
func VolumePath(data string, k api.VolumeKey) string {
	return filepath.Join(data, volumesFolder, k.Namespace, k.Service+"-"+strconv.Itoa(k.Slot), k.Volume)
}

// removeVolume deletes a volume with what is in it; one that is not there is no failure.
// It is put aside first: what is half deleted is never found as a volume. When ctx ends,
// the rest stays there, for the agent's next life.
func removeVolume(ctx context.Context, data string, k api.VolumeKey) error {
	for _, part := range []string{k.Namespace, k.Service, k.Volume} {
		if part == "" || part[0] == '.' || strings.ContainsAny(part, "/\x00") {
			return fmt.Errorf("remove volume %q: this is no name of one", k)
		}
	}
	path := VolumePath(data, k)
	aside := filepath.Join(data, volumesFolder, removedFolder, strings.ReplaceAll(k.String(), "/", "."))
	if err := setAside(path, aside); err != nil {
		return fmt.Errorf("remove volume %s: %w", k, err)
	}
	_ = os.Remove(filepath.Dir(path)) // the slot's folder, if it is empty
	if err := deleteAll(ctx, aside); err != nil {
		return fmt.Errorf("remove volume %s: %w", k, err)
	}
	return nil
}

// setAside renames a folder into another, so that this holds after a power cut.
func setAside(path, aside string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	into, err := os.MkdirTemp(aside, "")
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(into, "volume")); err != nil {
		return err
	}
	return errors.Join(disk.SyncDir(into), disk.SyncDir(filepath.Dir(path)))
}

// deleteAll is os.RemoveAll for what may take long: it ends with ctx. It never leaves dir,
// by whatever links somebody puts in the place of folders meanwhile: a process that the
// kernel cannot end, or one that was let see the node's folders, may still write there.
func deleteAll(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return nil
		}
		if err := root.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(dir) // by descriptors, too
}

// sweepVolumes deletes what earlier lives of the agent have put aside.
func sweepVolumes(ctx context.Context, cfg Config) error {
	if err := deleteAll(ctx, filepath.Join(cfg.Data, volumesFolder, removedFolder)); err != nil && ctx.Err() == nil {
		cfg.Logger.Warn("cannot delete what is left of volumes that were removed", "err", err)
	}
	return nil
}

// hasVolumes tells whether there is any volume in an agent's data folder.
func hasVolumes(data string) (bool, error) {
	list, err := filepath.Glob(filepath.Join(data, volumesFolder, "[^.]*", "*", "[^.]*"))
	if err != nil {
		return false, fmt.Errorf("look for volumes: %w", err)
	}
	return len(list) > 0, nil
}
