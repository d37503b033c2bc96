package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// act is what the program does instead of serving, or around it. The zero value
// does nothing.
type act struct {
	note, noteEnd, cat, tryWrite, check string
	exit                                int // below 0: it serves
	wait                                time.Duration
}

func (a *act) flags(set *flag.FlagSet) {
	a.exit = -1
	set.StringVar(&a.note, "note", "", "`FILE=LINE`: append the line to the file, before anything else")
	set.StringVar(&a.noteEnd, "note-end", "", "`FILE=LINE`: append the line, and what ended the server, when it has drained")
	set.IntVar(&a.exit, "exit", -1, "serve nothing: end with this code")
	set.DurationVar(&a.wait, "wait", 0, "with -exit: so long before")
	set.StringVar(&a.cat, "cat", "", "serve nothing: print this file, NUL as a line's end")
	set.StringVar(&a.tryWrite, "try-write", "", "serve nothing: make this file and remove it, or say why that fails")
	set.StringVar(&a.check, "check", "", "serve nothing: end with code 0 if this URL answers with a status below 400")
}

// checkTimeout of one health check.
const checkTimeout = 2 * time.Second

// instead does what is to be done instead of serving, and gives the code to end
// with; below 0 the program is to serve.
func (a *act) instead(ctx context.Context, out io.Writer) (code int, err error) {
	if err := appendLine(a.note, ""); err != nil {
		return 1, err
	}
	switch {
	case a.cat != "":
		b, err := os.ReadFile(a.cat)
		if err == nil {
			_, err = io.WriteString(out, strings.ReplaceAll(string(b), "\x00", "\n"))
		}
		return 0, err
	case a.tryWrite != "":
		f, err := os.Create(a.tryWrite)
		if err != nil {
			return 0, err
		}
		_, err = f.WriteString("x\n")
		return 0, errors.Join(err, f.Close(), os.Remove(a.tryWrite))
	case a.check != "":
		return 0, checkURL(ctx, a.check)
	case a.exit >= 0:
		select {
		case <-time.After(a.wait):
		case <-ctx.Done():
			return 1, context.Cause(ctx)
		}
		fmt.Fprintf(out, "ending with code %d\n", a.exit)
		return a.exit, nil
	}
	return -1, nil
}

// ended notes that the server has drained, and why.
func (a *act) ended(ctx context.Context) error {
	return appendLine(a.noteEnd, fmt.Sprintf(": %v", context.Cause(ctx)))
}

// appendLine adds a line to a file that may have other writers; note is FILE=LINE,
// or nothing.
func appendLine(note, more string) error {
	if note == "" {
		return nil
	}
	file, line, ok := strings.Cut(note, "=")
	if !ok {
		return fmt.Errorf("note %q: want FILE=LINE", note)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + more + "\n")
	return errors.Join(err, f.Close())
}

func checkURL(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: checkTimeout}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return nil
}
