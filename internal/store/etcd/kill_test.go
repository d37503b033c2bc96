package etcd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"github.com/orchctl/orch/internal/store"
)

// killDir makes this test binary write to an etcd in the named folder until it
// is killed, and say each write that was acknowledged.
const killDir = "ORCH_ETCD_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if os.Getenv(serveEtcd) != "" {
		etcdmain.Main(os.Args) // it is etcd now, as its own command would be
		return
	}
	if dir := os.Getenv(killDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func writeForever(dir string) error {
	ctx := context.Background()
	e, err := Embedded(ctx, EmbeddedConfig{Dir: dir})
	if err != nil {
		return err
	}
	kvs, _, err := e.Store().Range(ctx, "n/")
	if err != nil {
		return err
	}
	for i := len(kvs); ; i++ {
		// Two keys in each transaction: half of one must never be found.
		n := fmt.Sprintf("%06d", i)
		if _, err := e.Store().Txn(ctx, store.Txn{
			If:   []store.Compare{store.Absent("n/" + n)},
			Then: []store.Op{store.Put("n/"+n, []byte("x")), store.Put("m/"+n, []byte("x"))},
		}); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	for life := 1; life <= 3; life++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		last := -1
		for n := 0; lines.Scan(); n++ {
			if last, err = strconv.Atoi(strings.TrimSpace(lines.Text())); err != nil {
				t.Errorf("said %q", lines.Text())
			}
			if n == 200*life {
				cmd.Process.Kill() // and read on what it still got out
			}
		}
		cmd.Wait()
		if last < 200*life {
			t.Fatalf("life %d ended by itself after write %d", life, last)
		}
		e := open(t, EmbeddedConfig{Dir: dir})
		n, _, err := e.Store().Range(t.Context(), "n/")
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := e.Store().Range(t.Context(), "m/")
		if err != nil {
			t.Fatal(err)
		}
		if len(n) <= last || len(n) > last+2 || len(m) != len(n) {
			t.Fatalf("life %d: last acknowledged %d, found %d and %d", life, last, len(n), len(m))
		}
		e.Close()
	}
}
