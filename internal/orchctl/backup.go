package orchctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) backupCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that the cluster has stored to a file",
		Long: `Write all that the cluster has stored to a file, as of one moment; the cluster works on
meanwhile. - writes to standard output. "controller restore" makes a controller from it.

The file is of no use without seal.key and secrets.key of the controller's data folder: back
those up once, and after each "orchctl secret rotate-key", in another place.`,
		Example: `  orchctl backup orch-$(date +%F).db
  orchctl backup - | ssh backup 'cat > orch.db'`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return t.backup(cmd.Context(), args[0]) },
	}
}

// backup writes beside the file and renames: there is never half a backup by that name.
func (t *tool) backup(ctx context.Context, path string) error {
	client, err := t.connect(ctx, "back up", false)
	if err != nil {
		return err
	}
	if path == "-" {
		_, err := t.receiveBackup(ctx, client, t.Out)
		return err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return usagef("%s is a folder: want the name of a file, such as %s", path, filepath.Join(path, "orch.db"))
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600 from the start
	if err != nil {
		return usagef("%s cannot be written: %w", path, fileReason(err))
	}
	defer os.Remove(f.Name()) // gone already if renamed
	n, err := t.receiveBackup(ctx, client, f)
	if err != nil {
		_ = f.Close() // the first error tells why
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return t.printf("%s written, %d bytes; keep seal.key and secrets.key of the controller's data folder in another place\n", path, n)
}

func (t *tool) receiveBackup(ctx context.Context, client orchv1.OrchClient, w io.Writer) (int64, error) {
	stream, err := client.Backup(ctx, &orchv1.BackupRequest{})
	if err != nil {
		return 0, t.failed(err, "back up", admin)
	}
	var n int64
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, t.failed(err, "back up", admin)
		}
		written, err := w.Write(m.GetData())
		n += int64(written)
		if err != nil {
			return n, fmt.Errorf("write the backup: %w", err)
		}
	}
}
