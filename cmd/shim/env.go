//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The exit codes of a command that could not be run, as shells and container
// runtimes have them.
const (
	codeOurs      = 125 // what failed is not the command
	codeCannotRun = 126 // it is there, and cannot be executed
	codeNotFound  = 127
)

// envMain is `shim env FILE -- COMMAND...`: it becomes the command, with the variables
// of FILE (name=value, each ended by a NUL) on top of its own. It is how a container gets
// values that stand in no description of it: containerd keeps those on disk and tells
// them to whoever asks. FILE lies in memory.
//
// It runs inside containers, as their user, in any image: nothing is taken for granted,
// no /proc and no library.
func envMain(args []string) int {
	if len(args) < 3 || args[1] != "--" {
		complain("usage: shim env FILE -- COMMAND...")
		return 2
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		complain("read the secret variables: " + err.Error())
		return codeOurs
	}
	return become(args[2:], mergeEnv(os.Environ(), strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")))
}

// become executes a command in place of this process. It returns only what failed, said.
func become(args, env []string) int {
	path, err := lookPath(args[0], valueOf(env, "PATH"))
	if err == nil {
		// Gives back the limit of open files, too, which the Go runtime had raised.
		err = syscall.Exec(path, args, env)
	}
	words, code := cannotRun(args[0], err)
	os.Stderr.WriteString(words)
	return code
}

// cannotRun gives why a command was not run, as container runtimes say it, and the code.
func cannotRun(name string, err error) (words string, code int) {
	code = codeCannotRun
	if errors.Is(err, unix.ENOENT) || errors.Is(err, errNotInPath) {
		code = codeNotFound
	}
	return fmt.Sprintf("exec: %q: %v\n", name, err), code
}

var errNotInPath = errors.New("executable file not found in $PATH")

// lookPath finds a command as a shell does: one with a slash is a path, any other is
// looked for in the folders of path, of which an empty one is the working folder.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	if name == "" {
		return "", errNotInPath
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		if file := filepath.Join(dir, name); executable(file) == nil {
			if !filepath.IsAbs(file) {
				file = "./" + file
			}
			return file, nil
		}
	}
	return "", errNotInPath
}

// executable leaves the user's rights to the kernel: it knows best.
func executable(file string) error {
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case st.IsDir() || st.Mode()&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

// mergeEnv sets variables on top of others: each name once, the later value.
func mergeEnv(env, over []string) []string {
	out := make([]string, 0, len(env)+len(over))
	at := map[string]int{}
	for _, list := range [][]string{env, over} {
		for _, v := range list {
			name, _, ok := strings.Cut(v, "=")
			if !ok {
				continue
			}
			if i, had := at[name]; had {
				out[i] = v
				continue
			}
			at[name] = len(out)
			out = append(out, v)
		}
	}
	return out
}

func valueOf(env []string, name string) string {
	for _, v := range env {
		if n, value, _ := strings.Cut(v, "="); n == name {
			return value
		}
	}
	return ""
}
