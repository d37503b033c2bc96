// Package logs reads what `shim log` wrote: the output of containers, one
// record per line with its time and stream, in files that are rotated by
// rename. It also says where those files lie.
//
// It owns the layout of the log folder and the format's reading side; it never
// writes. Invariant: lines come in the order of the files, none twice, and a
// rotation while reading loses none as long as the reader is less than two
// files behind.
//
//	<LogDir>/<namespace>/<service>-<slot>@<epoch>/<container>.log      now
//	                                              <container>.log.1    before
//	                                              <container>.log.2    oldest
package logs
