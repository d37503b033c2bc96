package audit

import (
	"time"

	"google.golang.org/grpc/codes"
)

// Line is what the log holds of one call.
type Line struct {
	Time   time.Time `json:"time"` // when the call began
	Who    Who       `json:"who"`
	From   string    `json:"from,omitempty"` // the other end's address; "socket" is a process on this host
	Method string    `json:"method"`         // orch.v1.Orch/Apply
	// Objects are what the call is about: "Service default/web", "Node n1".
	Objects []string `json:"objects,omitempty"`
	// Detail in words: what was asked for, and what is known of what came of it.
	Detail string `json:"detail,omitempty"`
	// RequestID is the client's; Retry says that it was seen before: what the
	// first call did is not done twice.
	RequestID string  `json:"request_id,omitempty"`
	Retry     bool    `json:"retry,omitempty"`
	Outcome   Outcome `json:"outcome"`
	Code      string  `json:"code,omitempty"`    // of gRPC, where it is not OK
	Message   string  `json:"message,omitempty"` // why, as the caller was told
	TookMS    int64   `json:"took_ms"`
	// Call is the same in the two lines of a call that has a line when it begins.
	Call string `json:"call,omitempty"`
	// LeftOut is how many lines like this one were not written since the last.
	LeftOut int `json:"left_out,omitempty"`
}

// Who made a call, as the certificate says. The zero value is somebody without one.
type Who struct {
	Kind string `json:"kind,omitempty"` // user, node or controller
	Name string `json:"name,omitempty"`
	Role string `json:"role,omitempty"` // of users
}

// Outcome of a call.
type Outcome string

const (
	// OK: it was done.
	OK Outcome = "ok"
	// Refused: it was not done, and asking again in the same way will not help.
	Refused Outcome = "refused"
	// Failed: it was not done, or nobody knows whether it was.
	Failed Outcome = "failed"
	// Begun: the first of two lines. It goes on; another line tells its end.
	Begun Outcome = "begun"
)

// outcomeOf tells what a code means for a change.
func outcomeOf(c codes.Code) Outcome {
	switch c {
	case codes.OK:
		return OK
	case codes.Canceled, codes.Unknown, codes.DeadlineExceeded, codes.Aborted, codes.Internal, codes.Unavailable, codes.DataLoss:
		return Failed
	}
	return Refused
}

const (
	// textMax bounds a detail and a message, in bytes: a line is to be read.
	textMax = 2000
	// objectsMax bounds how many objects a line names; the detail says how many more.
	objectsMax = 50
)

// cut shortens a text to its limit, on a letter's boundary.
func cut(s string) string {
	if len(s) <= textMax {
		return s
	}
	at := textMax
	for at > 0 && s[at]&0xC0 == 0x80 {
		at--
	}
	return s[:at] + "..."
}
