// Command pack puts a static program into an OCI image archive.
//
//	go run ./images/pack -ref orch.local/web:1.0 -bin bin/web -o out/images/web.tar
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/orchctl/orch/internal/ociimage"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var env list
	ref := flag.String("ref", "", "full name of the image, with registry and tag")
	bin := flag.String("bin", "", "static program for linux; it becomes the entrypoint")
	out := flag.String("o", "", "archive to write")
	arch := flag.String("arch", "amd64", "architecture that the program was built for")
	user := flag.String("user", "65534:65534", "uid[:gid] that the program runs as")
	flag.Var(&env, "env", "NAME=value in the program's environment; may be repeated")
	flag.Parse()
	if *ref == "" || *bin == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*ref, *bin, *out, *arch, *user, env); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// run writes beside the target and renames, so that nobody ever reads half an
// archive.
func run(ref, bin, out, arch, user string, env []string) error {
	data, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	entry := path.Join("/bin", filepath.Base(bin))
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(out + ".new")
	if err != nil {
		return err
	}
	err = ociimage.Pack(f, ociimage.Options{
		Ref:          ref,
		Files:        map[string]ociimage.File{entry: {Data: data, Mode: 0o755}},
		Entrypoint:   []string{entry},
		Env:          append([]string{"PATH=/bin"}, env...),
		User:         user,
		Architecture: arch,
	})
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(out+".new"))
	}
	return os.Rename(out+".new", out)
}
