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
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/orchctl/orch/internal/ociimage"
)

// options are the command line.
type options struct {
	ref, bin, out, arch, user, stopSignal, health string
	env, files                                    list
	interval, timeout, startPeriod                time.Duration
	retries                                       int
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var o options
	flag.StringVar(&o.ref, "ref", "", "full name of the image, with registry and tag")
	flag.StringVar(&o.bin, "bin", "", "static program for linux; it becomes the entrypoint")
	flag.StringVar(&o.out, "o", "", "archive to write")
	flag.StringVar(&o.arch, "arch", "amd64", "architecture that the program was built for")
	flag.StringVar(&o.user, "user", "65534:65534", "user that the program runs as: uid[:gid], or names of the image's /etc/passwd and /etc/group")
	flag.Var(&o.env, "env", "NAME=value in the program's environment; may be repeated")
	flag.Var(&o.files, "file", "/path/in/image=file to put there; may be repeated")
	flag.StringVar(&o.stopSignal, "stop-signal", "", "signal that asks the program to end, as SIGQUIT; default: SIGTERM")
	flag.StringVar(&o.health, "health", "", "the image's HEALTHCHECK: a command, its words separated by spaces")
	flag.DurationVar(&o.interval, "health-interval", 0, "time between health checks; 0: the runtime's default, as for the others")
	flag.DurationVar(&o.timeout, "health-timeout", 0, "time for one health check")
	flag.DurationVar(&o.startPeriod, "health-start-period", 0, "time in which failures do not count")
	flag.IntVar(&o.retries, "health-retries", 0, "failures in a row that count")
	flag.Parse()
	if o.ref == "" || o.bin == "" || o.out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// image reads the files of an image.
func image(o options) (ociimage.Options, error) {
	entry := path.Join("/bin", filepath.Base(o.bin))
	out := ociimage.Options{Ref: o.ref, Files: map[string]ociimage.File{}, Entrypoint: []string{entry}, Env: append([]string{"PATH=/bin"}, o.env...),
		User: o.user, StopSignal: o.stopSignal, Architecture: o.arch}
	data, err := os.ReadFile(o.bin)
	if err != nil {
		return out, err
	}
	out.Files[entry] = ociimage.File{Data: data, Mode: 0o755}
	for _, f := range o.files {
		at, from, ok := strings.Cut(f, "=")
		if !ok {
			return out, fmt.Errorf("-file %q: want /path/in/image=file", f)
		}
		if data, err = os.ReadFile(from); err != nil {
			return out, err
		}
		out.Files[at] = ociimage.File{Data: data}
	}
	if words := strings.Fields(o.health); len(words) > 0 {
		out.Healthcheck = &v1.HealthConfig{Test: append([]string{"CMD"}, words...), Interval: o.interval, Timeout: o.timeout, StartPeriod: o.startPeriod, Retries: o.retries}
	} else if o.interval != 0 || o.timeout != 0 || o.startPeriod != 0 || o.retries != 0 {
		return out, errors.New("-health-... without -health: there is nothing to be run")
	}
	return out, nil
}

// run writes beside the target and renames, so that nobody ever reads half an
// archive.
func run(o options) error {
	img, err := image(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(o.out + ".new")
	if err != nil {
		return err
	}
	err = ociimage.Pack(f, img)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(o.out+".new"))
	}
	return os.Rename(o.out+".new", o.out)
}
