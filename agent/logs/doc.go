// Package logs reads what `shim log` wrote: the output of containers, one
// record per line with its time and stream, in files that are rotated by
// rename. It also says where those files lie, and keeps the last words of
// containers that are gone in an archive of its own, within a budget.
//
// It owns the layout of the log folder and the format's reading side; it never
// writes output. Invariant: lines come in the order of the files, none twice, and a
// rotation while reading loses none as long as the reader is less than two
// files behind.
//
//	<LogDir>/<namespace>/<service>-<slot>@<epoch>/<container>.log      now
//	                                              <container>.log.1    before
//	                                              <container>.log.2    oldest
//
//	<archive>/<namespace>_<service>-<slot>@<epoch>_<container>.json    last words
package logs
