package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

var (
	// ErrInUse: another controller runs on the data folder.
	ErrInUse = errors.New("is in use by another controller")
	// ErrCorrupt: the data folder's content cannot be read.
	ErrCorrupt = errors.New("damaged")
)

// folderLock keeps a data folder for one controller. The kernel drops it with
// the process, however that ends. etcd has locks of its own, but waits on them
// forever without a word.
type folderLock struct{ file *os.File }

func lockFolder(dir string) (*folderLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close data folder to others: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder %s %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	return &folderLock{file: f}, nil
}

func (l *folderLock) release() { l.file.Close() }
