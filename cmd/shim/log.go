//go:build linux

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The limits of a container's log.
const (
	maxPart     = 16 << 10                              // bytes of a line in one record, as in the CRI format; longer lines are split
	maxLogBytes = 10 << 20                              // bytes of a log file before it is rotated away
	maxLogFiles = 3                                     // files kept per container, the current one among them
	outBytes    = 64 << 10                              // bytes gathered before one write
	memoryLimit = 4 << 20                               // bytes of Go heap that this process aims for; one runs per container
	logTime     = "2006-01-02T15:04:05.000000000Z07:00" // RFC 3339, fixed width, so that lines sort
)

// The descriptors that containerd's logging-binary protocol passes.
const (
	fdStdout = 3
	fdStderr = 4
	fdReady  = 5
)

// logMain is `shim log FILE`: it takes a container's output from two pipes and
// appends it to FILE, one record per line:
//
//	2026-11-21T14:16:50.123456789Z stdout F text
//
// "P" instead of "F" marks a part of a line that goes on in the next record of
// that stream. A record of stream "start" holds the id of the run that begins
// there, one of stream "orch" tells of lost lines. It ends when both pipes do,
// and ignores SIGTERM, which containerd sends while output may still be queued.
func logMain(args []string) int {
	if len(args) != 1 || !filepath.IsAbs(args[0]) {
		os.Stderr.WriteString("usage: shim log /absolute/file\n")
		return 2
	}
	l, err := beginLog(args[0])
	if err != nil {
		complain("log: " + err.Error())
		return 1
	}
	pump(l, fdStdout, fdStderr, noNotes, time.Now)
	return 0
}

// beginLog makes this process one that stays small beside a container, opens
// the log and tells containerd's shim, by a byte, that the container may start.
func beginLog(path string) (*logFile, error) {
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(1)
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	l := &logFile{path: path, max: maxLogBytes, files: maxLogFiles, fd: -1}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	l.record(time.Now(), "start", 'F', []byte(os.Getenv("CONTAINER_ID")))
	l.flush()
	if _, err := unix.Write(fdReady, []byte{0}); err != nil {
		return nil, fmt.Errorf("tell ready: %w", err)
	}
	unix.Close(fdReady)
	return l, nil
}

// pump copies both pipes, and the watchdog's notes, into l until both pipes have
// ended. One goroutine and poll instead of two readers: that saves two threads
// per container.
func pump(l *logFile, stdout, stderr int, n *notes, now func() time.Time) {
	streams := []*stream{{name: "stdout"}, {name: "stderr"}}
	fds := []unix.PollFd{{Fd: int32(stdout), Events: unix.POLLIN}, {Fd: int32(stderr), Events: unix.POLLIN}, {Fd: int32(n.fd), Events: unix.POLLIN}}
	for open := 2; open > 0; {
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return
		}
		for i, s := range streams {
			if fds[i].Fd < 0 || fds[i].Revents == 0 {
				continue
			}
			n, err := unix.Read(int(fds[i].Fd), s.buf[s.n:])
			if err == unix.EINTR || err == unix.EAGAIN {
				continue
			}
			if n <= 0 {
				if s.n > 0 {
					l.record(now(), s.name, 'F', s.buf[:s.n])
				}
				fds[i].Fd = -1 // poll skips negative ones
				open--
				continue
			}
			s.n += n
			s.split(l, now())
		}
		if n.fd >= 0 && fds[2].Revents != 0 {
			n.record(l, now())
		}
		l.flush()
	}
}

// stream is one pipe's unfinished line.
type stream struct {
	name string
	buf  [maxPart]byte
	n    int
}

// split records every finished line in the buffer and, when the buffer is
// full without one, a part.
func (s *stream) split(l *logFile, t time.Time) {
	begin := 0
	for i := 0; i < s.n; i++ {
		if s.buf[i] == '\n' {
			l.record(t, s.name, 'F', s.buf[begin:i])
			begin = i + 1
		}
	}
	if begin == 0 && s.n == len(s.buf) {
		l.record(t, s.name, 'P', s.buf[:])
		begin = s.n
	}
	s.n = copy(s.buf[:], s.buf[begin:s.n])
}

// logFile appends records to a file and rotates it by rename. Two processes may
// append to one path (a run that ends while the next starts): each looks before
// a write whether the path is still its file, and rotates under a lock.
type logFile struct {
	path  string
	max   int64
	files int

	fd   int
	ino  uint64
	size int64
	out  []byte
	// lost counts records that could not be written, why says why not.
	lost int
	why  error
	// records counts those in out.
	records int
}

// record queues one record.
func (l *logFile) record(t time.Time, stream string, tag byte, text []byte) {
	if l.out == nil {
		l.out = make([]byte, 0, outBytes)
	}
	if len(l.out)+len(text)+len(logTime)+16 > cap(l.out) {
		l.flush()
	}
	l.out = t.UTC().AppendFormat(l.out, logTime)
	l.out = append(l.out, ' ')
	l.out = append(l.out, stream...)
	l.out = append(l.out, ' ', tag, ' ')
	l.out = append(l.out, text...)
	l.out = append(l.out, '\n')
	l.records++
}

// flush writes what is queued. A full disk must not block the container: what
// cannot be written is counted, and told once writing works again.
func (l *logFile) flush() {
	if len(l.out) == 0 {
		return
	}
	out, records := l.out, l.records
	l.out, l.records = l.out[:0], 0
	if err := l.prepare(); err != nil {
		l.lost, l.why = l.lost+records, err
		return
	}
	if l.lost > 0 {
		note := time.Now().UTC().Format(logTime) + " orch F " + strconv.Itoa(l.lost) + " lines lost: " + l.why.Error() + "\n"
		if err := l.write([]byte(note)); err == nil {
			l.lost = 0
		}
	}
	if err := l.write(out); err != nil {
		l.lost, l.why = l.lost+records, err
	}
}

// write appends b whole; a part that got in before an error is cut off again,
// so that no record is torn.
func (l *logFile) write(b []byte) error {
	for done := 0; done < len(b); {
		n, err := unix.Write(l.fd, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if done > 0 {
				unix.Ftruncate(l.fd, l.size)
			}
			return err
		}
		done += n
	}
	l.size += int64(len(b))
	return nil
}

// prepare makes fd the file that the path names now, with room in it.
func (l *logFile) prepare() error {
	var st unix.Stat_t
	err := unix.Stat(l.path, &st)
	if l.fd < 0 || err != nil || st.Ino != l.ino {
		return l.open()
	}
	l.size = st.Size
	if l.size < l.max {
		return nil
	}
	return l.rotate()
}

func (l *logFile) open() error {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
	flags := unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC
	fd, err := unix.Open(l.path, flags, 0o640)
	if err == unix.ENOENT {
		if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
			return err
		}
		fd, err = unix.Open(l.path, flags, 0o640)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	l.fd, l.ino, l.size = fd, st.Ino, st.Size
	return nil
}

// rotate renames FILE to FILE.1, FILE.1 to FILE.2 and so on, and opens a new FILE.
func (l *logFile) rotate() error {
	if err := unix.Flock(l.fd, unix.LOCK_EX); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(l.path, &st); err == nil && st.Ino == l.ino { // else another process rotated
		for i := l.files - 1; i > 0; i-- {
			from := l.path
			if i > 1 {
				from += "." + strconv.Itoa(i-1)
			}
			if err := unix.Rename(from, l.path+"."+strconv.Itoa(i)); err != nil && err != unix.ENOENT {
				return err
			}
		}
	}
	return l.open() // closing the old file frees the lock
}
