package ctrd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

func TestFilesFromMemory(t *testing.T) {
	s := spec("id", "stat=/app/conf", "stat=/app/conf/a.txt", "cat=/app/conf/a.txt", "cat=/app/conf/b", "touch=/app/conf/new", "touch=/app/conf/b",
		"stat=/app/one.key", "cat=/app/one.key", "mounted=/app/conf", "mounted=/app/one.key", "stat=/.orch")
	s.Container.SecurityContext = &api.SecurityContext{User: "app", ReadOnlyRoot: true}
	s.Container.Mounts = []api.Mount{
		{Path: "/app/one.key", Secret: "db", Key: "tls.key"}, {Path: "/app/conf", Config: "app"}, // what the agent made Files of
		{Path: "/app", Tmpfs: &api.Tmpfs{}},
	}
	s.Files = []FileMount{
		{Path: "/app/conf", Files: map[string][]byte{"a.txt": []byte("first\n"), "b": []byte("second\n"), "unread": []byte("never printed")}, Mode: 0o444},
		{Path: "/app/one.key", Single: true, Files: map[string][]byte{"tls.key": []byte("the key\n")}, Mode: 0o400},
	}
	o := start(t, s)
	ended(t, o.ID)
	prints(t, s, "stdout uid 1000 gid 1000 groups [1000 2000]", "stdout /app/conf 755 0:0", "stdout /app/conf/a.txt 444 1000:1000", "stdout first", "stdout second",
		"stdout open /app/conf/new: read-only file system", "stdout open /app/conf/b: read-only file system",
		"stdout /app/one.key 400 1000:1000", "stdout the key",
		"stdout /app/conf ro,nosuid,nodev,noexec,relatime", "stdout /app/one.key ro,nosuid,nodev,noexec,relatime", "stdout no such file or directory")
	if st, err := os.Stat(env.r.memoryOf(o.ID)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v, %v", st, err)
	}
	if in := inContainerd(t, "never printed"); len(in) > 0 {
		t.Errorf("a value is in %v", in)
	}
	// root, in the image as it is: without a user, and what may be executed.
	s = spec("touch=/bin/run", "stat=/bin/run", "mounted=/bin/run")
	program, err := os.ReadFile(env.dir + "/probe")
	if err != nil {
		t.Fatal(err)
	}
	s.Files = []FileMount{{Path: "/bin/run", Single: true, Files: map[string][]byte{"x": program}, Mode: 0o555}}
	s.Container.Command = []string{"/bin/run"}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout open /bin/run: read-only file system", "stdout /bin/run 555 0:0", "stdout /bin/run ro,nosuid,nodev,relatime")
	for name, f := range map[string]FileMount{
		`".." is no name of a file`: {Path: "/x", Files: map[string][]byte{"..": nil}}, `"a/b" is no name of a file`: {Path: "/x", Files: map[string][]byte{"a/b": nil}},
		"2 files for the one at /x": {Path: "/x", Single: true, Files: map[string][]byte{"a": nil, "b": nil}},
	} {
		s := spec("id")
		s.Files = []FileMount{f}
		if _, err := env.r.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("start with %+v: %v", f, err)
		}
		remove(t, s.ID())
	}
}

// inContainerd gives the files of containerd's, of the shim's and of logs that hold a text.
func inContainerd(t *testing.T, text string) []string {
	t.Helper()
	var in []string
	read := 0
	for _, dir := range []string{"/root", "/state", "/logs", "/files"} {
		err := filepath.WalkDir(env.dir+dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			read++
			if bytes.Contains(b, []byte(text)) {
				in = append(in, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if read < 3 { // at least its database
		t.Fatalf("only %d files were read", read)
	}
	return in
}

func TestSecretEnv(t *testing.T) {
	const secret = "correct horse battery staple"
	for _, c := range []struct {
		name string
		set  func(*ContainerSpec)
		want []string
	}{
		{"root", func(s *ContainerSpec) { s.Container.Args = []string{"cwd", "env=PLAIN", "env=BOTH", "limit=4", "pid"} },
			[]string{"stdout /work", "stdout plain", "stdout secret", "stdout limit 4 1 1", "stdout pid 1 parent 0"}},
		{"a user, on a root that is read-only", func(s *ContainerSpec) {
			s.Container.SecurityContext = &api.SecurityContext{User: "1000", ReadOnlyRoot: true, Capabilities: api.Capabilities{Drop: []string{"ALL"}}}
			s.Container.Args = []string{"env=BOTH", "stat=/.orch/env", "touch=/.orch/env", "caps", "limit=7"}
		}, []string{"stdout secret", "stdout /.orch/env 400 1000:1000", "stdout open /.orch/env: read-only file system", "stdout CapEff:\t0000000000000000", "stdout NoNewPrivs:\t1", "stdout Seccomp:\t2",
			fmt.Sprintf("stdout limit 7 %d %d", openFiles().Soft, openFiles().Hard)}},
		{"a command of PATH, which is secret, too", func(s *ContainerSpec) {
			s.Container.Command, s.Container.Args = []string{"probe"}, []string{"env=BOTH", "env=PATH", "limit=4"}
			s.Container.Ulimits = map[string]api.Ulimit{"core": {Soft: 4096}}
			s.SecretEnv = append(s.SecretEnv, api.EnvVar{Name: "PATH", Value: "/none::/etc/passwd:/"})
		}, []string{"stdout secret", "stdout /none::/etc/passwd:/", "stdout limit 4 4096 4096"}},
		{"by a path of its own folder", func(s *ContainerSpec) {
			s.Container.Command, s.Container.WorkingDir, s.Container.Args = []string{"../probe"}, "/tmp", []string{"env=BOTH", "cwd"}
		}, []string{"stdout secret", "stdout /tmp"}},
		{"on its end", func(s *ContainerSpec) { s.Container.Args = []string{"err=x", "exit=3"} }, []string{"stderr x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec()
			s.Container.Env = []api.EnvVar{{Name: "PLAIN", Value: "plain"}, {Name: "BOTH", Value: "plain"}}
			s.SecretEnv = []api.EnvVar{{Name: "BOTH", Value: "secret"}, {Name: "PASSWORD", Value: secret}, {Name: "EMPTY"}}
			c.set(&s)
			o := start(t, s)
			e := ended(t, o.ID)
			if strings.Contains(c.name, "end") != (e.Code == 3) {
				t.Errorf("exit %+v", e)
			}
			prints(t, s, c.want...)
		})
	}
	s := spec("wait=0")
	s.SecretEnv = []api.EnvVar{{Name: "PASSWORD", Value: secret}, {Name: "LINES", Value: "a\nb=c"}}
	o := start(t, s)
	prints(t, s, "stdout waiting")
	var out bytes.Buffer
	code, err := env.r.Exec(t.Context(), o.ID, ExecSpec{Args: []string{"/probe", "env=PASSWORD", "env=LINES", "env=X", "cwd", "exit=4"}, Stdout: &out, Env: []api.EnvVar{{Name: "X", Value: "y"}}, WorkDir: "/tmp"})
	if out.String() != secret+"\na\nb=c\ny\n/tmp\n" || code != 4 || err != nil {
		t.Errorf("exec: %q, %d, %v", out.String(), code, err)
	}
	if _, err := env.r.Exec(t.Context(), o.ID, ExecSpec{Args: []string{"/nope"}}); err == nil || !strings.Contains(err.Error(), `exec: "/nope": stat /nope: no such file or directory`) {
		t.Errorf("exec of nothing: %v", err)
	}
	if in := inContainerd(t, secret); len(in) > 0 {
		t.Errorf("the secret is in %v", in)
	}
	if in := inContainerd(t, insideEnv); len(in) == 0 { // as a look at the same places shows
		t.Error("nothing at all is found of the container")
	}
	for _, v := range []api.EnvVar{{Name: "A", Value: "x\x00y"}, {Name: "A=B"}, {}} {
		s := spec("id")
		s.SecretEnv = []api.EnvVar{v}
		if _, err := env.r.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), "cannot be set") || strings.Contains(err.Error(), "x\x00y") {
			t.Errorf("start with %+v: %v", v, err)
		}
		remove(t, s.ID())
	}
}

// TestSecretEnvStartFailed: a command that is not there is what it is without secrets.
func TestSecretEnvStartFailed(t *testing.T) {
	for command, want := range map[string]string{
		"/no/such/program": `exec: "/no/such/program": stat /no/such/program: no such file or directory`,
		"missing":          `exec: "missing": executable file not found in $PATH`,
		"/etc":             `exec: "/etc": permission denied`,
		"/etc/hosts":       `exec: "/etc/hosts": permission denied`,
	} {
		var words [2]string
		for i := range words {
			s := spec()
			s.Container.Command = []string{command}
			if i > 0 {
				s.SecretEnv = []api.EnvVar{{Name: "A", Value: "b"}}
			}
			_, err := env.r.Start(t.Context(), s)
			var se *StartError
			if !errors.As(err, &se) || se.Exit.Reason != api.ExitStartFailed {
				t.Fatalf("start of %s: %v", command, err)
			}
			words[i] = strings.TrimSuffix(strings.TrimSuffix(se.Exit.Message, ": unknown"), " : unknown")
			remove(t, s.ID())
		}
		if !strings.HasPrefix(words[0], want) || words[1] != want {
			t.Errorf("plainly  %q\nsecretly %q\nwant     %q", words[0], words[1], want)
		}
	}
}

func TestVolumes(t *testing.T) {
	dir := env.dir + "/volumes/default/web-2/data"
	t.Cleanup(func() {
		if err := os.RemoveAll(env.dir + "/volumes"); err != nil {
			t.Error(err)
		}
	})
	run := func(user string, readOnly bool, args ...string) []string {
		t.Helper()
		s := spec(args...)
		s.Container.SecurityContext = &api.SecurityContext{User: user}
		s.Container.Mounts = []api.Mount{{Path: "/data", Volume: "data", ReadOnly: readOnly}}
		s.Volumes = map[string]string{"data": dir, "other": "/nowhere"}
		ended(t, start(t, s).ID)
		return output(t, s)
	}
	for _, c := range []struct{ got, want []string }{
		{run("app", false, "stat=/data", "touch=/data/x"), []string{"stdout /data 755 1000:1000"}},
		{run("app", true, "cat=/data/x", "out=", "touch=/data/y"), []string{"stdout x", "stdout open /data/y: read-only file system"}},
		{run("2000", false, "stat=/data", "touch=/data/y"), []string{"stdout /data 755 1000:1000", "stdout open /data/y: permission denied"}},
	} {
		if strings.Join(c.got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("output %q, want %q", c.got, c.want)
		}
	}
	if have, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(have) != 1 {
		t.Errorf("beside the volume: %v, %v", have, err)
	}
	s := spec("id")
	s.Container.Mounts = []api.Mount{{Path: "/data", Volume: "data"}}
	if _, err := env.r.Start(t.Context(), s); !errors.Is(err, ErrVolume) {
		t.Errorf("a volume without a folder: %v", err)
	}
	remove(t, s.ID())
	// Containers of one replica start at once: each has the folder that all have.
	const rounds = 30
	for n := range rounds {
		dir := fmt.Sprintf("%s/volumes/default/web-3/%d", env.dir, n)
		inodes := make(chan uint64, 8)
		for range cap(inodes) {
			go func() {
				if err := ownedVolume(dir, 7, 8); err != nil {
					t.Error(err)
				}
				var st unix.Stat_t
				if err := unix.Stat(dir, &st); err != nil || st.Uid != 7 || st.Gid != 8 {
					t.Errorf("%s: of %d:%d, %v", dir, st.Uid, st.Gid, err)
				}
				inodes <- st.Ino
			}()
		}
		first := <-inodes
		for range cap(inodes) - 1 {
			if other := <-inodes; other != first {
				t.Errorf("%s was replaced", dir)
			}
		}
	}
	if have, err := os.ReadDir(env.dir + "/volumes/default/web-3"); err != nil || len(have) != rounds {
		t.Errorf("beside the volumes: %v, %v", have, err)
	}
}

func TestMemory(t *testing.T) {
	s := spec("wait=0")
	s.Files = []FileMount{{Path: "/f", Files: map[string][]byte{"a": []byte("b")}, Mode: 0o444}}
	o := start(t, s)
	// As after a crash of the agent, and while it was away.
	left := env.r.memoryOf("web-9@9.main")
	if err := os.MkdirAll(left+"/files/0", 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := Dial(t.Context(), testConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is nobody's is left: %v", err)
	}
	if b, err := os.ReadFile(r.filesIn(o.ID, 0) + "/a"); string(b) != "b" || err != nil {
		t.Errorf("what a container has is %q, %v", b, err)
	}
	if how := mountedHow(t, testConfig().MemoryDir); len(how) != 1 || (!strings.Contains(how[0], "noswap") && !strings.Contains(how[0], "ramfs")) {
		t.Errorf("mounted %q", how)
	}
	if err := r.LeaveMemory(); err == nil || !strings.Contains(err.Error(), "containers have files there, such as "+o.ID) {
		t.Errorf("leave while a container runs: %v", err)
	}

	// Where there is nothing yet, and by the older file system.
	for _, mount := range []func(string) error{openMemory, func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), mountRAM(dir, 0), openMemory(dir)) }} {
		dir := env.dir + "/other"
		if err := errors.Join(mount(dir), openMemory(dir)); err != nil {
			t.Fatal(err)
		}
		if how := mountedHow(t, dir); len(how) != 1 {
			t.Errorf("mounted %q, want once", how)
		}
		if err := os.WriteFile(dir+"/x", []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
		other := Runtime{cfg: Config{MemoryDir: dir}}
		if err := other.LeaveMemory(); err == nil {
			t.Error("unmounted with what is in it")
		}
		if err := errors.Join(os.Remove(dir+"/x"), other.LeaveMemory()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("left: %v", err)
		}
	}
	disk := t.TempDir()
	if err := unix.Mount("proc", disk, "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(disk, 0)
	if err := openMemory(disk); err == nil || !strings.Contains(err.Error(), "something else is mounted there") {
		t.Errorf("over something else: %v", err)
	}
}

func mountedHow(t *testing.T, dir string) (how []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Fields(line)[4] == dir {
			how = append(how, line)
		}
	}
	return how
}

// TestLookInside: of what is not certain nothing is said.
func TestLookInside(t *testing.T) {
	o := start(t, spec("wait=0"))
	for _, c := range []struct {
		name, cwd string
		env       []string
		want      string
	}{
		{"/probe", "/", nil, ""},
		{"probe", "/", nil, `exec: "probe": executable file not found in $PATH`},
		{"probe", "/", []string{"PATH=/x", "PATH=/"}, ""},
		{"probe", "/work", []string{"PATH=.."}, ""},
		{"probe", "/", []string{"PATH="}, ""},
		{"./probe", "/work", nil, `exec: "./probe": stat ./probe: no such file or directory`},
		{"../probe", "/work", nil, ""},
		{"/probe/x", "/", nil, `exec: "/probe/x": stat /probe/x: not a directory`},
		{"/proc/self/exe", "/", nil, ""},
		{"", "/", nil, `exec: "": executable file not found in $PATH`},
	} {
		err := lookInside(o.Pid, c.name, c.cwd, c.env)
		if got := fmt.Sprint(err); got != c.want && (err != nil || c.want != "") {
			t.Errorf("%s in %s with %v: %v, want %s", c.name, c.cwd, c.env, err, c.want)
		}
	}
	if err := env.r.Stop(t.Context(), o.ID, time.Second, ""); err != nil {
		t.Fatal(err)
	}
	if err := lookInside(o.Pid, "/nope", "/", nil); err != nil {
		t.Errorf("in one that is gone: %v", err)
	}
}
