package ctrd

import (
	"errors"
	"testing"
)

// TestStartCode: scripts tell a command that is not there from one that may not run.
func TestStartCode(t *testing.T) {
	runc := func(words string) error {
		return errors.New("failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: " + words + ": unknown")
	}
	for _, x := range []struct {
		err  error
		want int
	}{
		{runc(`exec: "nosuch": executable file not found in $PATH`), 127},
		{runc(`exec: "/no/such": stat /no/such: no such file or directory`), 127},
		{runc(`exec: "/etc": permission denied`), 126},
		{runc(`exec: "/bin/x": exec format error`), 126},
		{runc(`exec: "/etc": is a directory`), 126},
		{runc(`chdir to cwd ("/nowhere") set in config.json failed: no such file or directory`), 128},
		{errors.New("no such file or directory"), 128},
	} {
		if got := startError("x", x.err); got.Exit.Code != x.want {
			t.Errorf("%v: code %d, want %d", x.err, got.Exit.Code, x.want)
		}
	}
}
